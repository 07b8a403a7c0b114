// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Streams: precopy, save and restore, and streams that are not right
 */
#define _GNU_SOURCE	/* POLLRDHUP */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "stream.h"
#include "tests.h"
#include "vfio.h"

/* The kernel's headers may be older than these */
#ifndef VFIO_PRECOPY_INFO_REINIT
#define VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2	12
#define VFIO_PRECOPY_INFO_REINIT		(1 << 0)
#endif

static void info_is(int data_fd, __u64 initial, __u64 dirty,
		    const char *when)
{
	struct vfio_precopy_info info;

	is(sim_precopy_info(data_fd, &info), 0, "precopy info %s", when);
	is(info.initial_bytes, initial, "initial bytes %s", when);
	is(info.dirty_bytes, dirty, "dirty bytes %s", when);
}

/* A stream saved from @source, loaded by a device of another seed */
static void load_elsewhere(struct sim *source, const struct stream *stream,
			   __u32 size, size_t chunk, const char *what)
{
	__u8 *want, *got;
	char setting[64];
	struct sim sim;
	int data_fd;

	snprintf(setting, sizeof(setting), "size_bytes=%u", size);
	sim_create("target", "initial_bytes=0", setting, "seed=99", NULL);
	sim_open(&sim, "target");
	if (sim_set_state(&sim, VFIO_DEVICE_STATE_RESUMING, &data_fd))
		die("RESUMING");
	is(stream_fill(data_fd, stream, chunk), 0, "%s: writing the stream", what);
	is(sim_set_state(&sim, VFIO_DEVICE_STATE_RUNNING, NULL), 0,
	   "%s: the checksum is right", what);
	want = memory_read(source, size);
	got = memory_read(&sim, size);
	ok(!memcmp(want, got, size), "%s: the memory is the same", what);
	free(want);
	free(got);
	close(data_fd);
	sim_close(&sim);
	sim_delete("target");
}

void test_precopy(void)
{
	struct stream stream = {};
	struct vfio_precopy_info info;
	struct sim sim;
	__u64 rest;
	size_t before;
	int data_fd, same_fd;
	char byte;

	sim_create("pre", "size_bytes=200000", "initial_bytes=70000",
		   "dirty_bytes=5000", NULL);
	sim_open(&sim, "pre");
	rest = sim_stop_copy_bytes(&sim);
	is(rest, HEADER_BYTES + 200000 + 4 * FRAME_BYTES + END_BYTES,
	   "data size of a running device");
	if (sim_set_state(&sim, VFIO_DEVICE_STATE_PRE_COPY, &data_fd))
		die("PRE_COPY");
	info_is(data_fd, HEADER_BYTES + 2 * FRAME_BYTES + 70000, 0,
		"at first");
	is(read(data_fd, &byte, 0), 0, "reading nothing");
	ok(lseek(data_fd, 0, SEEK_SET) < 0 && errno == ESPIPE, "no seeking");
	ok(pread(data_fd, &byte, 1, 0) < 0 && errno == ESPIPE, "no pread");
	ok(write(data_fd, &byte, 1) < 0 && errno == EBADF, "no writing");
	ok(ioctl(data_fd, VFIO_DEVICE_RESET) < 0 && errno == ENOTTY,
	   "no other ioctl");
	info.argsz = 8;
	ok(ioctl(data_fd, VFIO_MIG_GET_PRECOPY_INFO, &info) < 0 &&
	   errno == EINVAL, "argsz too small");
	stream.data = malloc(100);
	if (!stream.data || read(data_fd, stream.data, 100) != 100)
		die("reading 100 bytes");
	stream.bytes = 100;
	info_is(data_fd, HEADER_BYTES + 2 * FRAME_BYTES + 70000 - 100, 0,
		"in the middle");
	is(stream_drain(data_fd, &stream, 100000), -ENOMSG, "temporary end");
	is(stream.bytes, HEADER_BYTES + 2 * FRAME_BYTES + 70000,
	   "all initial data came");
	info_is(data_fd, 0, FRAME_BYTES + 5000, "when drained");
	before = stream.bytes;
	is(stream_drain(data_fd, &stream, 1000), -ENOMSG, "second temporary end");
	is(stream.bytes - before, FRAME_BYTES + 5000, "the dirty data came");

	/* Sent, dirty again; sent and clean; not sent: all must arrive */
	memory_write(&sim, 3000, "changed", 7);
	memory_write(&sim, 20000, "since", 5);
	memory_write(&sim, 199999, "z", 1);
	is(sim_set_state(&sim, VFIO_DEVICE_STATE_PRE_COPY_P2P, &same_fd), 0,
	   "PRE_COPY_P2P");
	is(same_fd, -1, "the session goes on");
	/* The first one is dirty anyway; of the last block 3392 bytes exist */
	info_is(data_fd, 0, 3 * FRAME_BYTES + 5000 + 4096 + 3392,
		"in PRE_COPY_P2P");
	is(sim_set_state(&sim, VFIO_DEVICE_STATE_STOP_COPY, &same_fd), 0,
	   "STOP_COPY");
	is(sim_precopy_info(data_fd, &info), -EINVAL,
	   "no precopy info in STOP_COPY");
	rest = sim_stop_copy_bytes(&sim);
	before = stream.bytes;
	is(stream_drain(data_fd, &stream, 4096), 0, "the end");
	is(stream.bytes - before, rest, "data size was exact");
	/*
	 * The first 17 blocks of 4096 were sent whole; two of them are dirty
	 * again and a third was written to.
	 */
	is(rest, 3 * 4096 + 200000 - 17 * 4096 + 4 * FRAME_BYTES + END_BYTES,
	   "what precopy sent is not sent again");
	is(sim_stop_copy_bytes(&sim), 0, "nothing left");
	is(read(data_fd, &byte, 1), 0, "still the end");
	is(sim_set_state(&sim, VFIO_DEVICE_STATE_RUNNING, NULL), 0,
	   "RUNNING again");
	ok(read(data_fd, &byte, 1) < 0 && errno == ENODEV, "session over");
	is(sim_precopy_info(data_fd, &info), -EINVAL, "its ioctl as well");
	close(data_fd);
	load_elsewhere(&sim, &stream, 200000, 999, "precopy");
	free(stream.data);
	sim_close(&sim);
	sim_delete("pre");
}

/* Does poll() say exactly @events, and that at once? */
static void poll_is(int data_fd, short events, const char *when)
{
	struct pollfd fd = {
		.fd = data_fd,
		.events = POLLIN | POLLRDHUP,
	};
	int n = poll(&fd, 1, 0);

	if (!ok(n == !!events && fd.revents == events, "poll %s", when))
		printf("# got %#x, want %#x\n", fd.revents, events);
}

static void *poll_patiently(void *arg)
{
	struct pollfd fd = { .fd = *(int *)arg, .events = POLLIN };

	return (void *)(long)poll(&fd, 1, 10000);
}

/* Does @state bring something to read to who waits for it? */
static void poll_wakes(struct sim *sim, int data_fd, __u32 state)
{
	pthread_t thread;
	void *events;
	__u64 took;

	took = now_ns(CLOCK_MONOTONIC);
	pthread_create(&thread, NULL, poll_patiently, &data_fd);
	usleep(20000);
	is(sim_set_state(sim, state, NULL), 0, "%s", state_names[state]);
	pthread_join(thread, &events);
	took = now_ns(CLOCK_MONOTONIC) - took;
	ok(events == (void *)1 && took >= 20000000 && took < 5000000000ull,
	   "poll waits for %s", state_names[state]);
}

void test_poll(void)
{
	struct stream stream = {};
	struct sim sim;
	int data_fd;

	sim_create("poll", "dirty_bytes=3000", NULL);
	sim_open(&sim, "poll");
	if (sim_set_state(&sim, VFIO_DEVICE_STATE_PRE_COPY, &data_fd))
		die("PRE_COPY");
	poll_is(data_fd, POLLIN, "at first");
	is(stream_drain(data_fd, &stream, 999), -ENOMSG, "initial data");
	poll_is(data_fd, POLLIN, "with dirty data");
	stream.data = realloc(stream.data,
			      stream.bytes + FRAME_BYTES + 3000);
	is(read(data_fd, stream.data + stream.bytes, FRAME_BYTES + 3000),
	   FRAME_BYTES + 3000, "all of it");
	poll_is(data_fd, 0, "when nothing is left in precopy");
	poll_wakes(&sim, data_fd, VFIO_DEVICE_STATE_STOP_COPY);
	poll_is(data_fd, POLLIN, "in STOP_COPY");
	is(stream_drain(data_fd, &stream, 70000), 0, "the end");
	poll_is(data_fd, POLLIN, "at the end, which is read as well");
	sim_set_state(&sim, VFIO_DEVICE_STATE_RUNNING, NULL);
	poll_is(data_fd, POLLIN | POLLRDHUP, "when the session is over");
	close(data_fd);
	free(stream.data);

	stream = (struct stream) {};
	if (sim_set_state(&sim, VFIO_DEVICE_STATE_PRE_COPY, &data_fd))
		die("PRE_COPY");
	is(stream_drain(data_fd, &stream, 999), -ENOMSG, "initial data");
	free(stream.data);
	stream.data = malloc(FRAME_BYTES + 3000);
	if (read(data_fd, stream.data, FRAME_BYTES + 3000) < 0)
		die("dirty data");
	free(stream.data);
	poll_wakes(&sim, data_fd, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);

	if (sim_set_state(&sim, VFIO_DEVICE_STATE_RESUMING, &data_fd))
		die("RESUMING");
	poll_is(data_fd, POLLIN, "by default for a loading fd");
	close(data_fd);
	sim_close(&sim);
	sim_delete("poll");
}

/* The BAR is written to while precopy goes on, and so are the data */
void test_touched(void)
{
	const __u64 block = FRAME_BYTES + 4096;
	struct stream stream = {};
	struct sim sim;
	size_t before;
	int data_fd;

	sim_create("touched", "size_bytes=200000", "initial_bytes=8192", NULL);
	sim_open(&sim, "touched");
	if (sim_set_state(&sim, VFIO_DEVICE_STATE_PRE_COPY, &data_fd))
		die("PRE_COPY");
	memory_write(&sim, 100, "a", 1);
	info_is(data_fd, HEADER_BYTES + FRAME_BYTES + 8192, 0,
		"when what is still to come has changed");
	memory_write(&sim, 50000, "b", 1);
	info_is(data_fd, HEADER_BYTES + FRAME_BYTES + 8192, block,
		"when something else has");
	is(stream_drain(data_fd, &stream, 1000), -ENOMSG, "all of it");
	is(stream.bytes, HEADER_BYTES + FRAME_BYTES + 8192 + block,
	   "has come");
	info_is(data_fd, 0, 0, "and is not dirty any more");
	poll_is(data_fd, 0, "and there is nothing to read");
	memory_write(&sim, 4000, "c", 1);
	memory_write(&sim, 4001, "d", 1);
	memory_write(&sim, 5000, "e", 1);
	info_is(data_fd, 0, block + 4096, "with two blocks in a row");
	poll_is(data_fd, POLLIN, "and there is something to read");
	before = stream.bytes;
	is(stream_drain(data_fd, &stream, 1000), -ENOMSG, "once");
	is(stream.bytes - before, block + 4096, "in one frame");

	/* In a frame that was not read to its end */
	memory_write(&sim, 150000, "g", 1);
	stream.data = realloc(stream.data, stream.bytes + 100);
	is(read(data_fd, stream.data + stream.bytes, 100), 100, "a part");
	stream.bytes += 100;
	memory_write(&sim, 150001, "h", 1);
	info_is(data_fd, 0, 2 * block - 100, "of a frame that is dirty again");
	sim_set_state(&sim, VFIO_DEVICE_STATE_STOP_COPY, NULL);
	is(stream_drain(data_fd, &stream, 1000), 0, "the rest");
	sim_set_state(&sim, VFIO_DEVICE_STATE_RUNNING, NULL);
	close(data_fd);
	load_elsewhere(&sim, &stream, 200000, 999, "written in precopy");
	free(stream.data);
	sim_close(&sim);
	sim_delete("touched");
}

static void reinit_is(int data_fd, bool reinit, __u64 initial, __u64 dirty,
		      const char *when)
{
	struct vfio_precopy_info info;

	is(sim_precopy_info(data_fd, &info), 0, "precopy info %s", when);
	is(info.flags, reinit ? VFIO_PRECOPY_INFO_REINIT : 0, "flags %s", when);
	is(info.initial_bytes, initial, "initial bytes %s", when);
	is(info.dirty_bytes, dirty, "dirty bytes %s", when);
}

/* Saved, with new initial data, by a user who has opted in or has not */
static void test_renewed(const char *setting, bool opted_in)
{
	const __u64 initial = FRAME_BYTES + 5000, dirty = FRAME_BYTES + 3000;
	bool drains = !strncmp(setting, "reinit_drain", 12);
	struct stream stream = {};
	struct sim sim;
	int data_fd;

	sim_create("pre", "size_bytes=20000", "initial_bytes=5000",
		   "dirty_bytes=3000", "precopy_info_v2=1", setting, NULL);
	sim_open(&sim, "pre");
	if (opted_in)
		is(sim_feature_set(&sim,
				   VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2), 0,
		   "opting in to flags");
	if (sim_set_state(&sim, VFIO_DEVICE_STATE_PRE_COPY, &data_fd))
		die("PRE_COPY");
	reinit_is(data_fd, false, HEADER_BYTES + initial, 0, "at first");
	is(stream_drain(data_fd, &stream, 1000), -ENOMSG, "initial data");
	if (!drains)
		reinit_is(data_fd, false, 0, dirty, "when asked once");
	reinit_is(data_fd, opted_in, opted_in ? initial : 0,
		  opted_in ? 0 : initial, "with new initial data");
	reinit_is(data_fd, false, opted_in ? initial : 0,
		  opted_in ? 0 : initial, "when that was said");
	is(stream_drain(data_fd, &stream, 1000), -ENOMSG, "new initial data");
	reinit_is(data_fd, false, 0, dirty, "afterwards");
	reinit_is(data_fd, false, 0, dirty, "only once in a session");
	is(sim_set_state(&sim, VFIO_DEVICE_STATE_STOP_COPY, NULL), 0,
	   "STOP_COPY");
	is(stream_drain(data_fd, &stream, 1000), 0, "the end");
	is(sim_logged("pre", opted_in ? "reinit initial_bytes=5000 announced=1" :
					"reinit initial_bytes=5000 announced=0"),
	   1, "it is in the log");
	is(sim_set_state(&sim, VFIO_DEVICE_STATE_RUNNING, NULL), 0,
	   "RUNNING again");
	close(data_fd);
	load_elsewhere(&sim, &stream, 20000, 999, setting);
	free(stream.data);
	sim_close(&sim);
	sim_delete("pre");
}

void test_reinit(void)
{
	struct sim sim;

	sim_create("plain", NULL);
	sim_open(&sim, "plain");
	is(sim_feature_set(&sim, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2),
	   -ENOTTY, "no flags of precopy info by default");
	sim_close(&sim);
	sim_delete("plain");

	sim_create("stop", "flags=stop_copy p2p", "precopy_info_v2=1", NULL);
	sim_open(&sim, "stop");
	is(sim_feature_set(&sim, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2),
	   -EINVAL, "no flags of precopy info without precopy");
	sim_close(&sim);
	sim_delete("stop");

	sim_create("pre", "precopy_info_v2=1", NULL);
	sim_open(&sim, "pre");
	is(sim_feature_probe(&sim, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2), 0,
	   "probing for flags of precopy info");
	ok(sim_feature_get(&sim, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, NULL,
			   0) < 0, "nothing to get there");
	sim_close(&sim);
	sim_delete("pre");

	test_renewed("reinit_drain=1", true);
	test_renewed("reinit_drain=1", false);
	test_renewed("reinit_query=2", true);
	test_renewed("reinit_query=2", false);
}

void test_transfer(void)
{
	static const struct {
		__u32 size, initial, dirty;
		size_t chunk;
	} cases[] = {
		{ 4096, 4096, 0, 1 },
		{ 4097, 0, 0, 7 },
		{ 65536, 4096, 0, 1 << 20 },
		{ 65535, 65535, 65535, 4096 },
		{ 131073, 131073, 1, 65552 },
		{ 4 << 20, 1 << 20, 65537, 1 << 20 },
	};
	struct stream stream;
	char what[64];
	struct sim sim;
	size_t i;
	int pre;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		if (sim_mkdir("origin") ||
		    sim_set_number("origin", "size_bytes", cases[i].size) ||
		    sim_set_number("origin", "initial_bytes",
				   cases[i].initial) ||
		    sim_set_number("origin", "dirty_bytes", cases[i].dirty) ||
		    sim_set("origin", "live", "1"))
			die("origin");
		sim_open(&sim, "origin");
		for (pre = 0; pre < 2; pre++) {
			memory_write(&sim, 2047, "y", 1);
			stream = stream_save(&sim, pre, cases[i].chunk);
			snprintf(what, sizeof(what), "%u bytes, precopy %d",
				 cases[i].size, pre);
			load_elsewhere(&sim, &stream, cases[i].size,
				       cases[i].chunk, what);
			free(stream.data);
		}
		sim_close(&sim);
		sim_delete("origin");
	}
}

void test_bad_streams(void)
{
	struct stream stream, cut;
	__u8 *fresh, *memory;
	struct sim sim;
	char what[64], *log;
	int data_fd;
	size_t i;

	sim_create("bad", NULL);
	sim_open(&sim, "bad");
	fresh = memory_read(&sim, 65536);
	stream = stream_save(&sim, false, 65536);
	cut = stream;
	for (i = 0; i < stream.bytes; i += i < 64 ? 1 : 4801) {
		snprintf(what, sizeof(what), "byte %zu changed", i);
		stream.data[i] ^= 0x10;
		stream_refuse(&sim, &stream, what);
		stream.data[i] ^= 0x10;
	}
	for (i = stream.bytes - END_BYTES; i < stream.bytes; i++) {
		snprintf(what, sizeof(what), "byte %zu changed", i);
		stream.data[i] ^= 1;
		stream_refuse(&sim, &stream, what);
		stream.data[i] ^= 1;
	}
	cut.bytes = 0;
	stream_refuse(&sim, &cut, "nothing");
	cut.bytes = HEADER_BYTES;
	stream_refuse(&sim, &cut, "header only");
	cut.bytes = stream.bytes - 1;
	stream_refuse(&sim, &cut, "one byte short");

	/* The device has this memory anyway, but it was not sent */
	cut.data = malloc(HEADER_BYTES + END_BYTES);
	if (!cut.data)
		die("malloc");
	memcpy(cut.data, stream.data, HEADER_BYTES);
	memcpy(cut.data + HEADER_BYTES, stream.data + stream.bytes - END_BYTES,
	       END_BYTES);
	cut.bytes = HEADER_BYTES + END_BYTES;
	stream_refuse(&sim, &cut, "no data frames");
	free(cut.data);
	stream.data = realloc(stream.data, stream.bytes + 1);
	if (!stream.data)
		die("realloc");
	stream.data[stream.bytes] = 0;
	cut.data = stream.data;
	cut.bytes = stream.bytes + 1;
	stream_refuse(&sim, &cut, "one byte in excess");

	memory = memory_read(&sim, 65536);
	ok(!memcmp(memory, fresh, 65536), "memory is fresh after ERROR");
	log = sim_log("bad");
	ok(strstr(log, " checksum bad reason=short\n") &&
	   strstr(log, " checksum bad reason=broken\n") &&
	   strstr(log, " checksum bad reason=mismatch sent="),
	   "the log tells why");
	free(log);
	if (sim_set_state(&sim, VFIO_DEVICE_STATE_RESUMING, &data_fd))
		die("RESUMING");
	is(stream_fill(data_fd, &stream, 1), 0, "the right stream, byte by byte");
	ok(read(data_fd, what, 1) < 0 && errno == EBADF, "no reading");
	is(sim_set_state(&sim, VFIO_DEVICE_STATE_STOP, NULL), 0, "and loaded");
	ok(write(data_fd, what, 1) < 0 && errno == ENODEV, "session over");
	close(data_fd);
	free(memory);
	free(fresh);
	free(stream.data);
	sim_close(&sim);
	sim_delete("bad");
}
