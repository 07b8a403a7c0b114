// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * DMA: which states write, what they write, and what is reported of it
 *
 * The program's own memory is that of a VM.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests.h"
#include "vfio.h"

#define S(name)		VFIO_DEVICE_STATE_##name
#define IOVA		0x1000000ULL
#define PAGE		4096ULL
#define PAGES		8
#define MAGIC		0x31414d4453503250ULL
/* Far more than the wait for a few records, on any machine */
#define PATIENCE_US	60000000
#define POLL_US		1000

struct vm {
	struct sim sim;
	__u8 *memory;
};

static __u64 *record(struct vm *vm, int page)
{
	return (__u64 *)(vm->memory + page * PAGE);
}

/* The highest number in memory; 0 is none */
static __u64 newest(struct vm *vm)
{
	__u64 last = 0;
	int page;

	for (page = 0; page < PAGES; page++) {
		volatile __u64 *at = record(vm, page);

		if (at[0] == MAGIC && at[1] > last)
			last = at[1];
	}
	return last;
}

static bool await(struct vm *vm, __u64 number)
{
	int i;

	for (i = 0; i < PATIENCE_US / POLL_US; i++) {
		if (newest(vm) >= number)
			return true;
		usleep(POLL_US);
	}
	return false;
}

/* As long as many records take */
static bool is_quiet(struct vm *vm)
{
	__u64 before = newest(vm);

	usleep(20000);
	return newest(vm) == before;
}

static void vm_open(struct vm *vm, const char *name, bool map)
{
	struct vfio_iommu_type1_dma_map dma = {
		.argsz = sizeof(dma),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.iova = IOVA,
		.size = PAGES * PAGE,
	};

	vm->memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm->memory == MAP_FAILED)
		die("mmap");
	sim_open(&vm->sim, name);
	dma.vaddr = (unsigned long)vm->memory;
	if (map && ioctl(vm->sim.container, VFIO_IOMMU_MAP_DMA, &dma))
		die("mapping the memory of %s", name);
}

static void vm_close(struct vm *vm)
{
	sim_close(&vm->sim);
	munmap(vm->memory, PAGES * PAGE);
}

static void create(const char *name, const char *more)
{
	sim_create(name, "dma_iova=16777216", "dma_bytes=32768",
		   "dma_period_us=500", more, NULL);
}

static void test_dma_config(void)
{
	static const char *const nonsense[][2] = {
		{ "dma_iova", "1" }, { "dma_iova", "x" },
		{ "dma_bytes", "100" }, { "dma_bytes", "67112960" },
		{ "dma_period_us", "9" }, { "dma_period_us", "60000001" },
	};
	size_t i;

	sim_mkdir("a");
	for (i = 0; i < ARRAY_SIZE(nonsense); i++)
		is(sim_set("a", nonsense[i][0], nonsense[i][1]), -EINVAL,
		   "%s: %s", nonsense[i][0], nonsense[i][1]);
	is(sim_set("a", "dma", "1"), -ENODEV, "DMA of what is not live");
	attribute_is("a", "dma", "0\n");
	sim_rmdir("a");
}

static void test_dma_none(void)
{
	struct sim sim;

	sim_create("a", NULL);
	sim_open(&sim, "a");
	is(sim_set("a", "dma", "1"), -ENODEV, "DMA of a device without");
	sim_close(&sim);
	sim_delete("a");
}

static void test_dma_states(void)
{
	static const __u32 path[] = {
		S(RUNNING_P2P), S(RUNNING), S(PRE_COPY), S(PRE_COPY_P2P),
		S(STOP_COPY), S(STOP), S(RUNNING_P2P), S(RUNNING),
	};
	char text[64];
	struct vm vm;
	__u64 last;
	size_t i;

	create("a", "dirty_bytes=0");
	is(sim_set("a", "dma", "1"), -ENODEV, "DMA of what is not open");
	vm_open(&vm, "a", true);
	ok(is_quiet(&vm) && !newest(&vm), "no DMA by itself");
	is(sim_set("a", "dma", "1"), 0, "DMA");
	attribute_is("a", "dma", "1\n");
	ok(await(&vm, 3 * PAGES), "records, around and around");
	for (i = 0; i < ARRAY_SIZE(path); i++) {
		bool writes = path[i] != S(STOP) && path[i] != S(STOP_COPY);

		is(sim_set_state(&vm.sim, path[i], NULL), 0, "to %s",
		   state_names[path[i]]);
		last = newest(&vm);
		if (writes)
			ok(await(&vm, last + PAGES), "%s writes",
			   state_names[path[i]]);
		else
			ok(is_quiet(&vm), "%s does not", state_names[path[i]]);
		if (path[i] == S(STOP_COPY)) {
			snprintf(text, sizeof(text),
				 " dma when=stop seq=%llu failed=0 error=0\n",
				 last);
			is(sim_logged("a", text), 1, "the last one is logged");
		}
	}
	sim_set_state(&vm.sim, S(STOP), NULL);
	last = newest(&vm);
	for (i = 0; i < PAGES; i++)
		is(record(&vm, i)[1], last - (last - 1 - i) % PAGES,
		   "record of page %zu", i);
	is(sim_logged("a", " dma memory "), 0, "nothing was loaded");
	is(sim_reset(&vm.sim), 0, "reset");
	attribute_is("a", "dma", "0\n");
	ok(is_quiet(&vm), "no DMA after a reset");
	vm_close(&vm);
	sim_delete("a");
}

static void test_dma_refused(void)
{
	struct vm vm;

	create("a", "dirty_bytes=0");
	vm_open(&vm, "a", false);
	sim_set("a", "dma", "1");
	usleep(20000);
	sim_set("a", "dma", "0");
	is(sim_logged("a", " dma when=off seq=0 failed="), 1,
	   "nothing is written to what is not mapped");
	is(sim_logged("a", " failed=0 "), 0, "the kernel refuses it");
	vm_close(&vm);
	sim_delete("a");
}

/* Saves, loads what was saved, and runs, as two devices would */
static void load(struct vm *vm)
{
	static __u8 stream[1 << 20];
	ssize_t n, bytes = 0;
	int data_fd;

	if (sim_set_state(&vm->sim, S(STOP_COPY), &data_fd))
		die("STOP_COPY");
	while ((n = read(data_fd, stream + bytes, sizeof(stream) - bytes)) > 0)
		bytes += n;
	close(data_fd);
	sim_set_state(&vm->sim, S(STOP), NULL);
	if (sim_set_state(&vm->sim, S(RESUMING), &data_fd) ||
	    write(data_fd, stream, bytes) != bytes)
		die("RESUMING");
	close(data_fd);
	is(sim_set_state(&vm->sim, S(STOP), NULL), 0, "loaded");
}

static void test_dma_memory(void)
{
	char text[80];
	struct vm vm;
	__u64 last;

	create("a", "dirty_bytes=0");
	vm_open(&vm, "a", true);
	sim_set("a", "dma", "1");
	await(&vm, 2 * PAGES);
	load(&vm);
	last = newest(&vm);
	is(sim_logged("a", " dma memory "), 0, "not yet looked at");
	sim_set_state(&vm.sim, S(RUNNING_P2P), NULL);
	snprintf(text, sizeof(text),
		 " dma memory last=%llu pages=8 stale=0 empty=0 error=0\n",
		 last);
	is(sim_logged("a", text), 1, "all of it is there");
	sim_set("a", "dma", "0");
	load(&vm);
	last = newest(&vm);
	/* Neither is the newest one */
	record(&vm, last % PAGES)[1] -= PAGES;
	record(&vm, (last + 1) % PAGES)[0] = 0;
	sim_set_state(&vm.sim, S(RUNNING), NULL);
	snprintf(text, sizeof(text),
		 " dma memory last=%llu pages=8 stale=2 empty=1 error=0\n",
		 last);
	is(sim_logged("a", text), 1, "a stale page and an empty one");
	vm_close(&vm);
	sim_delete("a");
}

static int logging_start(struct sim *sim)
{
	return sim_logging_start(sim, IOVA, PAGES * PAGE);
}

/* The pages of a report, a bit for each, or -errno */
static int logging_report(struct sim *sim)
{
	__u64 bitmap = 0;
	struct vfio_device_feature_dma_logging_report report = {
		.iova = IOVA,
		.length = PAGES * PAGE,
		.page_size = PAGE,
		.bitmap = (unsigned long)&bitmap,
	};
	int ret;

	ret = sim_feature_get(sim, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
			      &report, sizeof(report));
	return ret ?: (int)bitmap;
}

/* Lets the device write to all pages, and then to no more */
static void write_all(struct vm *vm)
{
	sim_set_state(&vm->sim, S(RUNNING), NULL);
	await(vm, newest(vm) + PAGES);
	sim_set_state(&vm->sim, S(STOP), NULL);
}

static void test_dma_logging_off(void)
{
	struct sim sim;

	sim_create("plain", NULL);
	sim_open(&sim, "plain");
	is(sim_feature_probe(&sim, VFIO_DEVICE_FEATURE_DMA_LOGGING_START),
	   -ENOTTY, "no DMA logging by default");
	sim_close(&sim);
	sim_delete("plain");

	sim_create("logging", "dma_logging=1", NULL);
	sim_open(&sim, "logging");
	is(sim_feature_probe(&sim, VFIO_DEVICE_FEATURE_DMA_LOGGING_START), 0,
	   "DMA logging offered");
	is(logging_start(&sim), 0, "by a device without DMA, too");
	sim_close(&sim);
	sim_delete("logging");
}

/* Debian's kernel has no bitmaps for reports */
static bool has_reports(void)
{
	struct vm vm;
	int ret;

	create("a", "dma_logging=1");
	vm_open(&vm, "a", true);
	is(logging_start(&vm.sim), 0, "logging started");
	is(sim_logged("a", " logging started ranges=1 pages=8 page_size=4096"),
	   1, "logged");
	ret = logging_report(&vm.sim);
	if (ret)
		is(ret, -EOPNOTSUPP, "no reports in this kernel");
	vm_close(&vm);
	sim_delete("a");
	return !ret;
}

static void test_dma_reports(void)
{
	struct vm vm;

	create("a", "dma_logging=1");
	vm_open(&vm, "a", true);
	sim_set("a", "dma", "1");
	write_all(&vm);
	is(logging_start(&vm.sim), 0, "logging started");
	is(logging_report(&vm.sim), 0, "nothing of before");
	write_all(&vm);
	is(logging_report(&vm.sim), 0xff, "all pages");
	is(logging_report(&vm.sim), 0, "once");
	write_all(&vm);
	is(sim_feature_set(&vm.sim, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP), 0,
	   "logging stopped");
	is(sim_logged("a", " logging report pages=8 "), 1, "logged");
	is(sim_logged("a", " logging stopped reported=8 left=8\n"), 1,
	   "logged");
	vm_close(&vm);
	sim_delete("a");
}

static void test_dma_faults(void)
{
	struct vm vm;

	create("a", "dma_logging=1");
	sim_set("a", "live", "0");
	sim_set("a", "faults", "report 1 late 2\nreport 2 short 3\n");
	sim_set("a", "live", "1");
	vm_open(&vm, "a", true);
	logging_start(&vm.sim);
	sim_set("a", "dma", "1");
	write_all(&vm);
	is(logging_report(&vm.sim), 0xfc, "two pages are late");
	is(sim_logged("a", " fault report 1 late 2\n"), 1, "logged");
	write_all(&vm);
	is(logging_report(&vm.sim), 0xf8, "three pages are left out");
	is(logging_report(&vm.sim), 0, "for ever");
	write_all(&vm);
	is(logging_report(&vm.sim), 0xff, "no fault the third time");
	vm_close(&vm);
	sim_delete("a");
}

void test_dma(void)
{
	test_dma_config();
	test_dma_none();
	test_dma_states();
	test_dma_refused();
	test_dma_memory();
	test_dma_logging_off();
	if (has_reports()) {
		test_dma_reports();
		test_dma_faults();
	}
}
