// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Configuration, PCI regions, life and death, latencies, the log
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests.h"
#include "vfio.h"

void test_configfs(void)
{
	static const char *const nonsense[][2] = {
		{ "flags", "p2p" }, { "flags", "pre_copy p2p" },
		{ "flags", "stop_copy x" }, { "flags", "stop_copyp2p" },
		{ "size_bytes", "4095" }, { "size_bytes", "67108865" },
		{ "size_bytes", "-1" }, { "size_bytes", "x" },
		{ "initial_bytes", "65537" }, { "dirty_bytes", "65537" },
		{ "seed", "0x10000000000000000" }, { "live", "maybe" },
		{ "dma_logging", "maybe" }, { "precopy_info_v2", "maybe" },
		{ "read_ns_per_kib", "1000000001" },
		{ "write_ns_per_kib", "1000000001" },
		{ "load_in", "read" }, { "on_bad_stream", "x" },
		{ "reset", "wait defer" },
		{ "reinit_drain", "-1" }, { "reinit_query", "x" },
		{ "latency_us", "RUNNING STOP" },
		{ "latency_us", "RUNNING STOP x" },
		{ "latency_us", "RUNNING STOP -1" },
		{ "latency_us", "RUNNING STOP 1 2" },
		{ "latency_us", "RUNNING STOP 60000001" },
		{ "latency_us", "RUNNING RUNNING 1" },
		{ "latency_us", "STOP_COPY PRE_COPY 1" },
		{ "latency_us", "RUNNING NOWHERE 1" },
		{ "latency_us", "STOP RUNNING 1\nSTOP ERROR 1\n" },
		{ "peer_group", "a b" },
		{ "peer_group", "a23456789012345678901234567890123" },
		{ "peer_id", "32" }, { "peer_id", "x" },
		{ "peers", "32" }, { "peers", "1 x" }, { "peers", "1 1" },
		{ "peers", "0" }, { "peers", "1,2" },
		{ "peer_period_us", "9" }, { "peer_period_us", "60000001" },
		{ "peer_completion_us", "60000001" },
		{ "traffic", "maybe" },
	};
	static const char *const writable[] = {
		"flags", "size_bytes", "initial_bytes", "dirty_bytes", "seed",
		"dma_logging", "dma_iova", "dma_bytes", "dma_period_us",
		"precopy_info_v2", "reinit_drain",
		"read_ns_per_kib", "write_ns_per_kib", "load_in",
		"on_bad_stream", "reset",
		"reinit_query", "latency_us", "peer_group", "peer_id", "peers",
		"peer_period_us", "peer_completion_us", "faults",
	};
	size_t i;

	is(sim_mkdir("a b"), -EINVAL, "name with a blank");
	is(sim_mkdir("(a)"), -EINVAL, "name with parentheses");
	is(sim_mkdir(".a"), -EINVAL, "name with a leading dot");
	is(sim_mkdir("power"), -EINVAL, "name that sysfs has already");
	is(sim_mkdir("a23456789012345678901234567890123"), -EINVAL,
	   "name too long");
	is(sim_mkdir("a2345678901234567890123456789012"), 0, "long name");
	sim_rmdir("a2345678901234567890123456789012");

	is(sim_mkdir("a"), 0, "mkdir");
	is(sim_mkdir("a"), -EEXIST, "mkdir again");
	attribute_is("a", "flags", "stop_copy p2p pre_copy\n");
	attribute_is("a", "size_bytes", "65536\n");
	attribute_is("a", "initial_bytes", "4096\n");
	attribute_is("a", "dirty_bytes", "0\n");
	attribute_is("a", "seed", "1\n");
	attribute_is("a", "dma_logging", "0\n");
	attribute_is("a", "precopy_info_v2", "0\n");
	attribute_is("a", "reinit_drain", "0\n");
	attribute_is("a", "reinit_query", "0\n");
	attribute_is("a", "read_ns_per_kib", "0\n");
	attribute_is("a", "write_ns_per_kib", "0\n");
	attribute_is("a", "load_in", "resuming_stop\n");
	attribute_is("a", "on_bad_stream", "error\n");
	attribute_is("a", "reset", "wait\n");
	attribute_is("a", "latency_us", "");
	attribute_is("a", "peer_group", "\n");
	attribute_is("a", "peer_id", "0\n");
	attribute_is("a", "peers", "\n");
	attribute_is("a", "peer_period_us", "500\n");
	attribute_is("a", "peer_completion_us", "10\n");
	attribute_is("a", "faults", "");
	attribute_is("a", "traffic", "0\n");
	attribute_is("a", "live", "0\n");
	attribute_is("a", "sysfs_path", "/sys/devices/p2psim/a\n");
	for (i = 0; i < ARRAY_SIZE(nonsense); i++)
		is(sim_set("a", nonsense[i][0], nonsense[i][1]), -EINVAL,
		   "nonsense for %s, %zu", nonsense[i][0], i);
	attribute_is("a", "latency_us", "");
	is(sim_set("a", "latency_us",
		   "STOP RUNNING 7\n  RUNNING_P2P\tSTOP  8\n\n"), 0,
	   "two latencies at once");
	is(sim_set("a", "latency_us", "STOP RUNNING 0"), 0, "none again");
	attribute_is("a", "latency_us", "RUNNING_P2P STOP 8\n");
	is(sim_set("a", "size_bytes", "4096"), 0, "smallest size");
	is(sim_set("a", "initial_bytes", "4097"), -EINVAL, "too much initial");
	is(sim_set("a", "size_bytes", "67108864"), 0, "largest size");
	is(sim_set("a", "initial_bytes", "67108864"), 0, "all is initial");
	is(sim_set("a", "size_bytes", "65536"), -EINVAL,
	   "size below initial_bytes");
	is(sim_set("a", "live", "1"), 0, "live");
	is(sim_set("a", "live", "1"), 0, "live twice");
	attribute_is("a", "live", "1\n");
	for (i = 0; i < ARRAY_SIZE(writable); i++)
		is(sim_set("a", writable[i], "1"), -EBUSY, "%s while live",
		   writable[i]);
	is(sim_rmdir("a"), -EBUSY, "rmdir while live");
	is(sim_set("a", "live", "0"), 0, "gone");
	is(sim_set("a", "live", "0"), 0, "gone twice");
	is(access("/sys/devices/p2psim/a", F_OK), -1, "gone from sysfs");
	is(sim_set("a", "flags", "p2p\tstop_copy\n"), 0, "flags");
	attribute_is("a", "flags", "stop_copy p2p\n");
	is(sim_rmdir("a"), 0, "rmdir");
	is(access("/sys/kernel/debug/p2psim/a", F_OK), -1, "log removed");
}

static void test_config_space(struct sim *sim, __u64 at)
{
	__u8 config[256], after[300];
	__u8 ones[256];
	__u32 bar;

	is(pread(sim->fd, config, 256, at), 256, "configuration space");
	ok(config[0] == 0xf4 && config[1] == 0x1a && config[2] == 0xf0 &&
	   config[3] == 0x10, "vendor and device");
	ok(!(config[6] & 0x10) && !config[14] && !config[61],
	   "no capabilities, type 0, no interrupt");
	memset(ones, 0xff, sizeof(ones));
	is(pwrite(sim->fd, ones, 256, at), 256, "writing all ones");
	is(pread(sim->fd, after, 256, at), 256, "reading it back");
	memcpy(&bar, after + 16, 4);
	is(bar, 0xfffff000, "BAR 0 is 4 KiB of memory");
	ok(!memcmp(config, after, 4) && !memcmp(config + 20, after + 20, 40),
	   "the rest is read-only");
	is(pread(sim->fd, after, 300, at + 200), 56, "cut at the end");
	errno = 0;
	ok(pread(sim->fd, after, 1, at + 256) < 0 && errno == EINVAL,
	   "beyond the end");
}

static void test_bar(struct sim *sim)
{
	__u32 regs[4], window;
	__u8 zero[16] = {}, got[16], *memory;
	static const char text[] = "written through the BAR";

	is(bar_read(sim, 0, regs, sizeof(regs)), 16, "registers");
	is(regs[0], 0x73703270, "id");
	is(regs[1], 2, "version");
	is(regs[2], 10000, "size");
	is(regs[3], 0, "window");
	is(bar_write(sim, 0, regs, 4), 4, "writing the id");
	window = 10001;
	bar_write(sim, 12, &window, 4);
	bar_read(sim, 0, regs, sizeof(regs));
	is(regs[3], 8192, "window rounded down");
	window = 12288;
	bar_write(sim, 12, &window, 4);
	bar_read(sim, 0, regs, sizeof(regs));
	is(regs[3], 8192, "window beyond the memory ignored");
	is(bar_read(sim, 20, got, 16), 16, "between");
	ok(!memcmp(got, zero, 16), "zero between");
	is(bar_read(sim, BAR_WINDOW + 1808, got, 16), 16, "behind the memory");
	ok(!memcmp(got, zero, 16), "zero behind the memory");
	is(bar_write(sim, BAR_WINDOW + 1800, text, 16), 16,
	   "across the end of memory");
	is(memory_write(sim, 2049, text, sizeof(text)), sizeof(text),
	   "unaligned write");
	memory = memory_read(sim, 10000);
	ok(!memcmp(memory + 2049, text, sizeof(text)), "and what it wrote");
	ok(!memcmp(memory + 9992, text, 8), "cut at the end of memory");
	free(memory);
	is(bar_read(sim, 4096, got, 1), -EINVAL, "beyond the BAR");
}

void test_pci(void)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_region_info region = { .argsz = sizeof(region) };
	struct vfio_irq_info irq = { .argsz = sizeof(irq) };
	static const __u64 first[] = {
		0x910a2dec89025cc1, 0xbeeb8da1658eec67,
	};
	__u8 *memory;
	struct sim sim;
	unsigned int i, sizes = 0;

	sim_create("pci", "size_bytes=10000", NULL);
	sim_open(&sim, "pci");
	is(ioctl(sim.fd, VFIO_DEVICE_GET_INFO, &info), 0, "device info");
	is(info.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
	   "device flags");
	is(info.num_regions, VFIO_PCI_NUM_REGIONS, "regions");
	is(info.num_irqs, VFIO_PCI_NUM_IRQS, "interrupts");
	for (i = 0; i < info.num_regions; i++) {
		region.index = i;
		if (ioctl(sim.fd, VFIO_DEVICE_GET_REGION_INFO, &region))
			die("region %u", i);
		if (region.size)
			sizes |= 1 << i;
	}
	is(sizes, 1 << VFIO_PCI_BAR0_REGION_INDEX |
		  1 << VFIO_PCI_CONFIG_REGION_INDEX, "regions that exist");
	region.index = i;
	ok(ioctl(sim.fd, VFIO_DEVICE_GET_REGION_INFO, &region) < 0,
	   "one region too many");
	for (i = 0; i <= VFIO_PCI_MSIX_IRQ_INDEX; i++) {
		irq.index = i;
		if (ioctl(sim.fd, VFIO_DEVICE_GET_IRQ_INFO, &irq) || irq.count)
			die("interrupt %u", i);
	}
	memory = memory_read(&sim, 10000);
	ok(!memcmp(memory, first, sizeof(first)),
	   "memory is splitmix64 of the seed");
	free(memory);
	region.index = VFIO_PCI_CONFIG_REGION_INDEX;
	ioctl(sim.fd, VFIO_DEVICE_GET_REGION_INFO, &region);
	test_config_space(&sim, region.offset);
	sim_reset(&sim);
	test_bar(&sim);
	sim_close(&sim);
	sim_delete("pci");
}

void test_life(void)
{
	__u8 *fresh, *memory;
	struct sim sim;
	char byte = 0;
	int data_fd;

	sim_create("life", NULL);
	sim_open(&sim, "life");
	is(sim_set("life", "live", "0"), -EBUSY, "going away while open");
	is(sim_state(&sim), VFIO_DEVICE_STATE_RUNNING, "RUNNING when opened");
	fresh = memory_read(&sim, 65536);

	memory_write(&sim, 100, "x", 1);
	sim_set_state(&sim, VFIO_DEVICE_STATE_STOP_COPY, &data_fd);
	is(bar_write(&sim, BAR_WINDOW, "x", 1), -EBUSY, "memory holds still");
	is(sim_reset(&sim), 0, "reset");
	is(sim_state(&sim), VFIO_DEVICE_STATE_RUNNING, "RUNNING after reset");
	ok(read(data_fd, &byte, 1) < 0 && errno == ENODEV,
	   "reset ends the session");
	memory = memory_read(&sim, 65536);
	ok(!memcmp(memory, fresh, 65536), "memory is fresh after reset");
	free(memory);
	close(data_fd);

	memory_write(&sim, 100, "x", 1);
	sim_set_state(&sim, VFIO_DEVICE_STATE_STOP_COPY, &data_fd);
	sim_close(&sim);
	ok(read(data_fd, &byte, 1) < 0 && errno == ENODEV,
	   "close ends the session");
	sim_open(&sim, "life");
	is(sim_state(&sim), VFIO_DEVICE_STATE_RUNNING, "RUNNING after close");
	memory = memory_read(&sim, 65536);
	ok(!memcmp(memory, fresh, 65536), "memory is fresh after close");
	free(memory);
	sim_close(&sim);
	sim_delete("life");
	ok(read(data_fd, &byte, 1) < 0 && errno == ENODEV,
	   "the data fd outlives the device");
	close(data_fd);
	free(fresh);
}

void test_latency(void)
{
	unsigned long long start, end, t0, t1;
	struct sim sim;
	__u64 took;
	char *log, *arc;

	sim_create("slow", "latency_us=RUNNING_P2P STOP 30000\n"
		   "STOP RUNNING_P2P 1500\n", NULL);
	sim_open(&sim, "slow");
	t0 = now_ns(CLOCK_REALTIME);
	took = now_ns(CLOCK_MONOTONIC);
	sim_set_state(&sim, VFIO_DEVICE_STATE_STOP, NULL);
	took = now_ns(CLOCK_MONOTONIC) - took;
	t1 = now_ns(CLOCK_REALTIME);
	ok(took >= 30000000, "the request takes as long as its arcs");
	log = sim_log("slow");
	arc = strstr(log, "arc from=RUNNING_P2P to=STOP ret=0 ");
	if (!arc || sscanf(arc, "%*s %*s %*s %*s start_ns=%llu end_ns=%llu",
			   &start, &end) != 2)
		die("no such arc in the log");
	ok(end - start >= 30000000, "so does the arc in the log");
	ok(t0 <= start && end <= t1, "in CLOCK_REALTIME");
	arc = strstr(log, "arc from=RUNNING to=RUNNING_P2P ret=0 ");
	if (!arc || sscanf(arc, "%*s %*s %*s %*s start_ns=%llu end_ns=%llu",
			   &start, &end) != 2)
		die("no such arc in the log");
	ok(end - start < 30000000, "another arc does not");
	free(log);
	sim_close(&sim);
	sim_delete("slow");
}

/* The clock is set back between two beats */
static void test_heartbeat_set_back(void)
{
	unsigned long long at[4];
	struct timespec before;
	struct sim sim;
	char *log, *line;
	__u32 beat;

	sim_create("heart", NULL);
	sim_open(&sim, "heart");
	for (beat = 1; beat < 5; beat++) {
		bar_write(&sim, 16, &beat, 4);
		usleep(beat == 2 ? 10000 : 1000);
		if (beat != 3)
			continue;
		clock_gettime(CLOCK_REALTIME, &before);
		before.tv_sec -= 10;
		if (clock_settime(CLOCK_REALTIME, &before))
			die("setting the clock");
	}
	clock_gettime(CLOCK_REALTIME, &before);
	before.tv_sec += 10;
	clock_settime(CLOCK_REALTIME, &before);
	sim_close(&sim);
	log = sim_log("heart");
	line = strstr(log, "heartbeat when=close ");
	if (!line || sscanf(line, "heartbeat when=close count=4 first=1 "
			    "first_ns=%llu last=4 last_ns=%llu "
			    "gap_start_ns=%llu gap_end_ns=%llu ", &at[0],
			    &at[1], &at[2], &at[3]) != 4)
		die("no such heartbeats in the log");
	ok(at[1] < at[0] && at[3] - at[2] >= 10000000 &&
	   at[3] - at[2] < 9000000000ull,
	   "a clock that is set back is no gap");
	free(log);
	sim_delete("heart");
}

void test_heartbeat(void)
{
	unsigned long long begin, end, at[4];
	unsigned int i, count, first, last, missed, repeated, untimely;
	static const __u32 beats[] = { 7, 8, 11, 11 };
	struct sim sim;
	char *log, *line;
	__u32 beat = 0;

	sim_create("heart", NULL);
	sim_open(&sim, "heart");
	begin = now_ns(CLOCK_REALTIME);
	for (i = 0; i < 4; i++) {
		if (i == 2)
			usleep(20000);
		is(bar_write(&sim, 16, &beats[i], 4), 4, "heartbeat");
	}
	is(bar_read(&sim, 16, &beat, 4), 4, "heartbeat read");
	is(beat, 11, "as it was written");
	bar_write(&sim, 16, &beat, 2);
	bar_write(&sim, 18, &beat, 2);
	sim_set_state(&sim, VFIO_DEVICE_STATE_STOP, NULL);
	is(bar_write(&sim, 16, &beat, 4), -EBUSY, "heartbeat when stopped");
	sim_set_state(&sim, VFIO_DEVICE_STATE_RUNNING_P2P, NULL);
	beat = 12;
	is(bar_write(&sim, 16, &beat, 4), 4, "heartbeat when quiescent");
	end = now_ns(CLOCK_REALTIME);
	sim_close(&sim);

	log = sim_log("heart");
	line = strstr(log, "heartbeat when=close ");
	if (!line || sscanf(line, "heartbeat when=close count=%u first=%u "
			    "first_ns=%llu last=%u last_ns=%llu "
			    "gap_start_ns=%llu gap_end_ns=%llu missed=%u "
			    "repeated=%u untimely=%u\n", &count, &first, &at[0],
			    &last, &at[1], &at[2], &at[3], &missed, &repeated,
			    &untimely) != 10)
		die("no such heartbeats in the log");
	is(count, 5, "heartbeats are counted, if all 4 bytes are");
	ok(first == 7 && last == 12, "first and last");
	ok(missed == 2 && repeated == 1 && untimely == 2,
	   "what is wrong with them");
	ok(begin <= at[0] && at[0] <= at[2] && at[2] < at[3] &&
	   at[3] <= at[1] && at[1] <= end, "in CLOCK_REALTIME");
	ok(at[3] - at[2] >= 20000000, "the longest gap");
	ok(!strstr(line + 1, "heartbeat "), "said once");
	free(log);

	sim_open(&sim, "heart");
	bar_read(&sim, 16, &beat, 4);
	is(beat, 0, "none when opened");
	bar_write(&sim, 16, &beats[0], 4);
	sim_reset(&sim);
	sim_close(&sim);
	log = sim_log("heart");
	line = strstr(log, "heartbeat when=reset count=1 ");
	ok(line && !strstr(line + 1, "heartbeat "), "forgotten by a reset");
	free(log);
	sim_delete("heart");
	test_heartbeat_set_back();
}

void test_log_names(void)
{
	char path[64];
	char *log;
	int fd;

	sim_mkdir("again");
	snprintf(path, sizeof(path), "/sys/kernel/config/p2psim/again/seed");
	fd = open(path, O_RDONLY);
	if (fd < 0)
		die("%s", path);
	is(sim_rmdir("again"), 0, "rmdir with a file open");
	is(access("/sys/kernel/debug/p2psim/again", F_OK), -1,
	   "its log is gone all the same");
	is(sim_mkdir("again"), 0, "the same name again");
	sim_set("again", "live", "1");
	log = sim_log("again");
	ok(strstr(log, " live "), "with a log of its own");
	free(log);
	close(fd);
	log = sim_log("again");
	ok(strstr(log, " live "), "that stays when the file is closed");
	free(log);
	sim_delete("again");
}

/* Opens each device that comes, as soon as the kernel allows it */
static void *open_early(void *arg)
{
	struct {
		struct inotify_event head;
		char name[NAME_MAX + 1];
	} event;
	int watch = *(int *)arg, container, group, fd = -1;
	char path[PATH_MAX];

	if (read(watch, &event, sizeof(event)) <= 0)
		die("inotify");
	snprintf(path, sizeof(path), "/dev/vfio/%s", event.name);
	container = open("/dev/vfio/vfio", O_RDWR);
	while (fd < 0) {
		usleep(10);
		group = open(path, O_RDWR);
		if (group < 0)
			continue;
		if (!ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) &&
		    !ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
			fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "early");
		if (fd >= 0)
			close(fd);
		close(group);
	}
	close(container);
	return NULL;
}

void test_open_early(void)
{
	struct sched_param urgent = { .sched_priority = 1 };
	char *log, *live, *opened;
	int watch, i, good = 0;
	pthread_t thread;

	for (i = 0; i < 20; i++) {
		watch = inotify_init();
		if (inotify_add_watch(watch, "/dev/vfio", IN_CREATE) < 0)
			die("inotify");
		sim_mkdir("early");
		pthread_create(&thread, NULL, open_early, &watch);
		pthread_setschedparam(thread, SCHED_FIFO, &urgent);
		usleep(1000);
		if (sim_set("early", "live", "1"))
			die("early: live");
		pthread_join(thread, NULL);
		close(watch);
		log = sim_log("early");
		live = strstr(log, " live ");
		opened = strstr(log, " open\n");
		good += live && opened && live < opened;
		free(log);
		sim_delete("early");
	}
	is(good, 20, "no device is open before it is live");
}

void test_log(void)
{
	const char *head = "p2psim-log version=6 clock=CLOCK_REALTIME\n";
	unsigned long long count;
	struct sim sim;
	char *log, *last;
	int i;

	sim_create("log", "size_bytes=4096", NULL);
	log = sim_log("log");
	ok(!strncmp(log, head, strlen(head)) && strstr(log, " live "),
	   "the log begins with its version");
	free(log);
	sim_open(&sim, "log");
	for (i = 0; i < 10000; i++)
		sim_reset(&sim);
	sim_close(&sim);
	sim_set("log", "live", "0");
	log = sim_log("log");
	ok(strlen(log) > 256000 && strlen(log) < 263000, "the log is bounded");
	log[strlen(log) - 1] = '\0';
	last = strrchr(log, '\n');
	ok(last && sscanf(last, "%*u dropped count=%llu", &count) == 1 &&
	   count > 1000, "and tells that events were dropped");
	free(log);
	sim_rmdir("log");
}
