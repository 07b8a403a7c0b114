// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where drivers differ: loading in write(), refusal by keeping the state, and
 * resets that are deferred
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stream.h"
#include "tests.h"
#include "vfio.h"

#define S(name)	VFIO_DEVICE_STATE_##name

static int bring_to_resuming(struct sim *sim)
{
	int data_fd;

	if (sim_reset(sim) || sim_set_state(sim, S(RESUMING), &data_fd))
		die("RESUMING");
	return data_fd;
}

static int write_errno(int data_fd, const void *data, size_t bytes)
{
	ssize_t n = write(data_fd, data, bytes);

	return n < 0 ? -errno : n;
}

/* Refused by write(), which takes no more; RESUMING is left all the same */
static void refused_in_write(struct sim *sim, const struct stream *stream,
			     const char *what)
{
	int data_fd = bring_to_resuming(sim);

	is(stream_fill(data_fd, stream, 4096), -EINVAL, "%s: in write", what);
	is(sim_state(sim), S(RESUMING), "%s: the state is kept", what);
	is(write_errno(data_fd, stream->data, 1), -ENODEV,
	   "%s: and no more is taken", what);
	is(sim_set_state(sim, S(STOP), NULL), 0, "%s: STOP", what);
	close(data_fd);
}

static void test_load_in_write(void)
{
	struct stream stream, cut;
	struct sim sim, source;
	__u8 *want, *got;
	int data_fd;

	sim_create("a", "load_in=write", "seed=99", NULL);
	sim_create("source", NULL);
	sim_open(&sim, "a");
	sim_open(&source, "source");
	memory_write(&source, 5000, "all", 3);
	stream = stream_save(&source, true, 65536);

	data_fd = bring_to_resuming(&sim);
	is(sim_logged("a", " flags=stop_copy,p2p,pre_copy load_in=write\n"), 1,
	   "the log says so");
	is(stream_fill(data_fd, &stream, 1), 0, "byte by byte");
	is(sim_logged("a", " checksum ok "), 1, "loaded in write");
	is(write_errno(data_fd, stream.data, 0), 0, "nothing more");
	is(sim_logged("a", " checksum ok "), 1, "loaded once");
	is(sim_set_state(&sim, S(RUNNING), NULL), 0, "RUNNING");
	is(sim_logged("a", " checksum ok "), 1, "and not in RESUMING to STOP");
	want = memory_read(&source, 65536);
	got = memory_read(&sim, 65536);
	ok(!memcmp(want, got, 65536), "the memory is the same");
	free(want);
	free(got);
	close(data_fd);

	stream.data[stream.bytes / 2] ^= 1;
	refused_in_write(&sim, &stream, "a byte is wrong");
	is(sim_logged("a", " checksum bad reason=mismatch "), 1, "logged");
	stream.data[stream.bytes / 2] ^= 1;
	stream.data[0] ^= 1;
	refused_in_write(&sim, &stream, "the header is wrong");
	is(sim_logged("a", " checksum bad reason=broken\n"), 1, "logged");
	stream.data[0] ^= 1;

	data_fd = bring_to_resuming(&sim);
	is(stream_fill(data_fd, &stream, 70000), 0, "all of it");
	is(write_errno(data_fd, stream.data, 1), -EINVAL, "a byte in excess");
	close(data_fd);
	is(sim_logged("a", " checksum bad reason=broken\n"), 2, "logged");

	cut = stream;
	cut.bytes--;
	data_fd = bring_to_resuming(&sim);
	is(stream_fill(data_fd, &cut, 70000), 0, "one byte short");
	is(sim_set_state(&sim, S(STOP), NULL), 0, "nobody looks at that");
	is(sim_logged("a", " checksum bad reason=short\n"), 0, "nor logs it");
	is(sim_logged("a", " checksum ok "), 2, "but it is not loaded");
	close(data_fd);
	is(sim_logged("a", " complete=0\n"), 4, "the log tells");
	free(stream.data);
	sim_close(&sim);
	sim_close(&source);
	sim_delete("a");
	sim_delete("source");
}

static void test_keep(void)
{
	struct stream stream, cut;
	struct sim sim;
	int data_fd;

	sim_create("a", "on_bad_stream=keep", NULL);
	sim_open(&sim, "a");
	stream = stream_save(&sim, false, 65536);
	cut = stream;
	cut.bytes -= 10;
	data_fd = bring_to_resuming(&sim);
	is(stream_fill(data_fd, &cut, 70000), 0, "ten bytes short");
	is(sim_set_state(&sim, S(STOP), NULL), -EINVAL, "refused");
	is(sim_state(&sim), S(RESUMING), "in its last state");
	is(sim_logged("a", " loaded bytes="), 0, "the session goes on");
	is(write_errno(data_fd, stream.data + cut.bytes, 10), 10, "the rest");
	is(sim_set_state(&sim, S(STOP), NULL), 0, "and all is well");
	close(data_fd);

	stream.data[70] ^= 1;
	data_fd = bring_to_resuming(&sim);
	stream_fill(data_fd, &stream, 70000);
	is(sim_set_state(&sim, S(RUNNING), NULL), -EINVAL, "refused");
	is(sim_set_state(&sim, S(RUNNING), NULL), -EINVAL, "refused again");
	is(sim_state(&sim), S(RESUMING), "in its last state");
	is(sim_reset(&sim), 0, "reset");
	is(sim_state(&sim), S(RUNNING), "RUNNING");
	close(data_fd);
	free(stream.data);
	sim_close(&sim);
	sim_delete("a");
}

static void *request_stop(void *arg)
{
	sim_set_state(arg, S(STOP), NULL);
	return NULL;
}

/* A reset 50 ms after the beginning of an arc of 200 ms */
static void reset_in_arc(struct sim *sim, const char *reset, __u64 *took)
{
	char setting[16];
	pthread_t thread;

	snprintf(setting, sizeof(setting), "reset=%s", reset);
	sim_create("a", setting, "latency_us=RUNNING_P2P STOP 200000\n",
		   "faults=reset 2 fail EIO", NULL);
	sim_open(sim, "a");
	pthread_create(&thread, NULL, request_stop, sim);
	usleep(50000);
	*took = now_ns(CLOCK_MONOTONIC);
	is(sim_reset(sim), 0, "reset=%s: reset within an arc", reset);
	*took = now_ns(CLOCK_MONOTONIC) - *took;
	pthread_join(thread, NULL);
	is(sim_state(sim), S(RUNNING), "reset=%s: RUNNING", reset);
	is(sim_logged("a", " reset state=STOP\n"), 1,
	   "reset=%s: when the request is over", reset);
}

static void test_reset(void)
{
	pthread_t thread;
	struct sim sim;
	__u64 took;

	reset_in_arc(&sim, "wait", &took);
	ok(took > 100000000, "which it waits for");
	is(sim_logged("a", " deferred\n"), 0, "not deferred");
	sim_close(&sim);
	sim_delete("a");

	reset_in_arc(&sim, "defer", &took);
	is(sim_logged("a", " flags=stop_copy,p2p,pre_copy reset=defer\n"), 1,
	   "the log says so");
	ok(took < 50000000, "which it does not wait for");
	is(sim_logged("a", " deferred\n"), 1, "logged");
	/* The second one has a fault, and nobody is told */
	pthread_create(&thread, NULL, request_stop, &sim);
	usleep(50000);
	is(sim_reset(&sim), 0, "reset that will fail");
	pthread_join(thread, NULL);
	is(sim_state(&sim), S(STOP), "nothing is reset");
	is(sim_logged("a", " fault reset 2 fail EIO\n"), 1, "logged");
	is(sim_reset(&sim), 0, "reset without an arc");
	is(sim_state(&sim), S(RUNNING), "takes effect at once");
	is(sim_logged("a", " deferred\n"), 2, "not deferred");
	sim_close(&sim);
	sim_delete("a");
}

void test_drivers(void)
{
	test_load_in_write();
	test_keep();
	test_reset();
}
