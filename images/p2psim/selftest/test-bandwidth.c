// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The time that data take, and what happens meanwhile
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stream.h"
#include "tests.h"
#include "vfio.h"

#define S(name)	VFIO_DEVICE_STATE_##name

/* 65536 bytes of memory in one frame, saved without precopy */
#define STREAM_BYTES	(HEADER_BYTES + FRAME_BYTES + 65536 + END_BYTES)

/* A read() or write() on another thread */
struct transfer {
	pthread_t thread;
	int data_fd;
	bool saving;
	struct stream *stream;
	int ret;
	__u64 took;
};

static void *move(void *arg)
{
	struct transfer *t = arg;
	__u64 start = now_ns(CLOCK_MONOTONIC);
	ssize_t n;

	if (t->saving)
		n = read(t->data_fd, t->stream->data, t->stream->bytes);
	else
		n = write(t->data_fd, t->stream->data, t->stream->bytes);
	t->ret = n < 0 ? -errno : n;
	t->took = now_ns(CLOCK_MONOTONIC) - start;
	return NULL;
}

static void start_transfer(struct transfer *t, int data_fd, bool saving,
			   struct stream *stream)
{
	*t = (struct transfer) {
		.data_fd = data_fd,
		.saving = saving,
		.stream = stream,
	};
	pthread_create(&t->thread, NULL, move, t);
}

static void took_about(__u64 took, __u64 want, const char *what)
{
	if (!ok(took >= want && took < want + want / 4 + 20000000, "%s", what))
		printf("# took %llu ns, want %llu\n",
		       (unsigned long long)took, (unsigned long long)want);
}

/* However it is cut: 64 KiB at 1 ms each */
static void test_sum(size_t chunk, const char *what)
{
	static const __u64 want = STREAM_BYTES * 1000000ull / 1024;
	struct stream stream = {};
	struct sim source, target;
	int data_fd;
	__u64 took;

	sim_create("a", "read_ns_per_kib=1000000", NULL);
	sim_create("target", "write_ns_per_kib=1000000", NULL);
	sim_open(&source, "a");
	sim_open(&target, "target");
	if (sim_set_state(&source, S(STOP_COPY), &data_fd))
		die("STOP_COPY");
	took = now_ns(CLOCK_MONOTONIC);
	is(stream_drain(data_fd, &stream, chunk), 0, "%s: saved", what);
	took_about(now_ns(CLOCK_MONOTONIC) - took, want, what);
	is(stream.bytes, STREAM_BYTES, "%s: all of it", what);
	close(data_fd);
	if (sim_set_state(&target, S(RESUMING), &data_fd))
		die("RESUMING");
	took = now_ns(CLOCK_MONOTONIC);
	is(stream_fill(data_fd, &stream, chunk), 0, "%s: loaded", what);
	took_about(now_ns(CLOCK_MONOTONIC) - took, want, what);
	is(sim_set_state(&target, S(RUNNING), NULL), 0, "%s: RUNNING", what);
	close(data_fd);
	free(stream.data);
	sim_close(&source);
	sim_close(&target);
	sim_delete("a");
	sim_delete("target");
}

/* 4136 bytes of precopy at 50 ms for each KiB, 202 ms */
#define PRECOPY_BYTES	(HEADER_BYTES + FRAME_BYTES + 4096)
#define PRECOPY_NS	(PRECOPY_BYTES * 50000000ull / 1024)

static void test_reading(void)
{
	struct stream stream = {};
	struct vfio_precopy_info info;
	struct transfer t;
	struct sim sim;
	int data_fd;
	__u64 took;

	sim_create("a", "read_ns_per_kib=50000000", NULL);
	sim_open(&sim, "a");
	stream.bytes = 1 << 20;
	stream.data = malloc(stream.bytes);
	if (!stream.data)
		die("malloc");

	/* Who asks for figures does not wait; the state may change */
	if (sim_set_state(&sim, S(PRE_COPY), &data_fd))
		die("PRE_COPY");
	start_transfer(&t, data_fd, true, &stream);
	usleep(50000);
	took = now_ns(CLOCK_MONOTONIC);
	is(sim_precopy_info(data_fd, &info), 0, "precopy info meanwhile");
	is(info.initial_bytes, PRECOPY_BYTES, "nothing is handed over yet");
	is(sim_stop_copy_bytes(&sim), STREAM_BYTES, "data size meanwhile");
	is(sim_state(&sim), S(PRE_COPY), "state meanwhile");
	is(sim_set_state(&sim, S(STOP_COPY), NULL), 0, "STOP_COPY meanwhile");
	took = now_ns(CLOCK_MONOTONIC) - took;
	ok(took < 100000000, "nothing waits for the data");
	pthread_join(t.thread, NULL);
	took_about(t.took, PRECOPY_NS, "the session goes on, and so does read");
	is(t.ret, PRECOPY_BYTES, "which brings as much as it took the time for");
	is(sim_stop_copy_bytes(&sim), STREAM_BYTES - PRECOPY_BYTES,
	   "of what STOP_COPY sends");

	/* The end of the session ends a read() at once */
	start_transfer(&t, data_fd, true, &stream);
	usleep(50000);
	is(sim_set_state(&sim, S(RUNNING), NULL), 0, "RUNNING meanwhile");
	pthread_join(t.thread, NULL);
	is(t.ret, -ENODEV, "a session that ends has nothing to read");
	ok(t.took < 1000000000, "and says so at once");
	close(data_fd);
	free(stream.data);
	sim_close(&sim);
	sim_delete("a");
}

static void test_writing(void)
{
	struct stream stream;
	struct transfer t;
	struct sim sim;
	int data_fd;

	sim_create("a", NULL);
	sim_open(&sim, "a");
	stream = stream_save(&sim, false, 65536);
	sim_close(&sim);
	sim_delete("a");

	sim_create("a", "write_ns_per_kib=50000000", NULL);
	sim_open(&sim, "a");
	if (sim_set_state(&sim, S(RESUMING), &data_fd))
		die("RESUMING");
	start_transfer(&t, data_fd, false, &stream);
	usleep(50000);
	is(sim_set_state(&sim, S(STOP), NULL), -EINVAL, "STOP meanwhile");
	pthread_join(t.thread, NULL);
	is(t.ret, -ENODEV, "a session that ends takes nothing");
	ok(t.took < 1000000000, "and says so at once");
	is(sim_logged("a", " loaded bytes=0 complete=0"), 1, "and had nothing");
	close(data_fd);
	sim_reset(&sim);
	free(stream.data);
	sim_close(&sim);
	sim_delete("a");
}

/* Two calls of one fd come one after another; those of two fds do not */
static void test_parallel(void)
{
	struct stream stream[2] = {
		{ .data = malloc(2048), .bytes = 2048 },
		{ .data = malloc(2048), .bytes = 2048 },
	};
	struct sim one, other;
	struct transfer t[2];
	int fd[2];
	__u64 took;

	sim_create("a", "read_ns_per_kib=50000000", NULL);
	sim_create("b", "read_ns_per_kib=50000000", NULL);
	sim_open(&one, "a");
	sim_open(&other, "b");
	if (sim_set_state(&one, S(STOP_COPY), &fd[0]) ||
	    sim_set_state(&other, S(STOP_COPY), &fd[1]))
		die("STOP_COPY");
	took = now_ns(CLOCK_MONOTONIC);
	start_transfer(&t[0], fd[0], true, &stream[0]);
	start_transfer(&t[1], fd[1], true, &stream[1]);
	pthread_join(t[0].thread, NULL);
	pthread_join(t[1].thread, NULL);
	took_about(now_ns(CLOCK_MONOTONIC) - took, 100000000,
		   "two devices take their time at once");
	took = now_ns(CLOCK_MONOTONIC);
	start_transfer(&t[0], fd[0], true, &stream[0]);
	start_transfer(&t[1], fd[0], true, &stream[1]);
	pthread_join(t[0].thread, NULL);
	pthread_join(t[1].thread, NULL);
	took_about(now_ns(CLOCK_MONOTONIC) - took, 200000000,
		   "one device takes it twice");
	is(t[0].ret + t[1].ret, 4096, "and all is read");
	close(fd[0]);
	close(fd[1]);
	free(stream[0].data);
	free(stream[1].data);
	sim_close(&one);
	sim_close(&other);
	sim_delete("a");
	sim_delete("b");
}

static void test_kill(void)
{
	struct sim sim;
	int data_fd, status;
	char byte[1024];
	pid_t child;
	__u64 took;

	sim_create("a", "read_ns_per_kib=1000000000", NULL);
	child = fork();
	if (!child) {
		sim_open(&sim, "a");
		sim_set_state(&sim, S(STOP_COPY), &data_fd);
		for (;;) {
			if (read(data_fd, byte, sizeof(byte)) <= 0)
				_exit(1);
		}
	}
	usleep(200000);
	took = now_ns(CLOCK_MONOTONIC);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	took = now_ns(CLOCK_MONOTONIC) - took;
	ok(WIFSIGNALED(status) && took < 500000000,
	   "killed while its data take their time");
	sim_delete("a");
}

void test_bandwidth(void)
{
	test_sum(65536, "in large parts");
	test_sum(1000, "in parts below a KiB");
	test_reading();
	test_writing();
	test_parallel();
	test_kill();
}
