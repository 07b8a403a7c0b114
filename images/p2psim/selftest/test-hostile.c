// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bad pointers, many threads at once, memory that is not given back
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests.h"
#include "vfio.h"

#define ROUNDS	2000

static struct sim shared;
static atomic_int last_fd = -1;
static atomic_bool stop;

static void *read_data(void *arg)
{
	static char buf[5000];
	struct vfio_precopy_info info;

	(void)arg;
	while (!stop) {
		if (read(last_fd, buf, sizeof(buf)) < 0)
			sched_yield();
		sim_precopy_info(last_fd, &info);
	}
	return NULL;
}

static void *write_data(void *arg)
{
	static char buf[5000];

	(void)arg;
	while (!stop) {
		if (write(last_fd, buf, sizeof(buf)) < 0)
			sched_yield();
	}
	return NULL;
}

static void *use_bar(void *arg)
{
	char byte;

	(void)arg;
	while (!stop) {
		memory_write(&shared, 5000, "a", 1);
		bar_read(&shared, BAR_WINDOW, &byte, 1);
		sim_stop_copy_bytes(&shared);
		sched_yield();
	}
	return NULL;
}

static void *do_reset(void *arg)
{
	(void)arg;
	while (!stop) {
		sim_reset(&shared);
		usleep(300);
	}
	return NULL;
}

static void test_threads(void)
{
	void *(*const bodies[])(void *) = {
		read_data, read_data, write_data, use_bar, do_reset,
	};
	pthread_t threads[5];
	unsigned int random = 1;
	size_t i;
	int fd;

	sim_create("threads", "size_bytes=20000", "dirty_bytes=10000", NULL);
	sim_open(&shared, "threads");
	for (i = 0; i < 5; i++)
		pthread_create(&threads[i], NULL, bodies[i], NULL);
	for (i = 0; i < ROUNDS; i++) {
		random = random * 1103515245 + 12345;
		sim_set_state(&shared, random >> 16 & 7, &fd);
		if (fd >= 0) {
			fd = atomic_exchange(&last_fd, fd);
			if (fd >= 0)
				close(fd);
		}
	}
	stop = true;
	for (i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	close(last_fd);
	is(sim_reset(&shared), 0, "reset after %d rounds", ROUNDS);
	is(sim_state(&shared), VFIO_DEVICE_STATE_RUNNING, "RUNNING");
	sim_close(&shared);
	sim_delete("threads");
}

static void test_pointers(void)
{
	char *page, *hole;
	struct sim sim;
	int data_fd;

	page = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || munmap(page + 4096, 4096))
		die("mmap");
	hole = page + 4096;
	sim_create("bad", NULL);
	sim_open(&sim, "bad");
	is(bar_read(&sim, 0, hole, 4), -EFAULT, "BAR into a hole");
	is(bar_write(&sim, BAR_WINDOW, hole, 4), -EFAULT, "BAR from a hole");
	ok(ioctl(sim.fd, VFIO_DEVICE_GET_INFO, hole) < 0 && errno == EFAULT,
	   "info into a hole");
	sim_set_state(&sim, VFIO_DEVICE_STATE_STOP_COPY, &data_fd);
	ok(read(data_fd, hole, 10) < 0 && errno == EFAULT,
	   "reading into a hole");
	is(read(data_fd, hole - 24, 4096), 24, "reading up to a hole");
	ok(read(data_fd, hole - 100, 4096) < 0 && errno == EFAULT,
	   "a frame does not fit, and is not lost");
	is(sim_stop_copy_bytes(&sim), 16 + 65536 + 48, "all of it is left");
	close(data_fd);
	sim_set_state(&sim, VFIO_DEVICE_STATE_RUNNING, NULL);
	sim_set_state(&sim, VFIO_DEVICE_STATE_RESUMING, &data_fd);
	ok(write(data_fd, hole, 10) < 0 && errno == EFAULT,
	   "writing from a hole");
	is(write(data_fd, hole, 0), 0, "writing nothing");
	close(data_fd);
	sim_close(&sim);
	sim_delete("bad");
	munmap(page, 4096);
}

/* A process that is killed in a long arc, its device then usable at once */
static void test_kill(void)
{
	struct sim sim;
	pid_t child;
	char *log;
	int status;

	sim_create("killed", "latency_us=RUNNING_P2P STOP 60000000", NULL);
	child = fork();
	if (!child) {
		sim_open(&sim, "killed");
		sim_set_state(&sim, VFIO_DEVICE_STATE_STOP, NULL);
		_exit(0);
	}
	usleep(200000);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	ok(WIFSIGNALED(status), "killed within an arc of a minute");
	log = sim_log("killed");
	ok(strstr(log, "arc from=RUNNING_P2P to=STOP ret=-4 "),
	   "the log has the arc as broken off");
	free(log);
	sim_open(&sim, "killed");
	is(sim_state(&sim), VFIO_DEVICE_STATE_RUNNING, "and can be used");
	sim_close(&sim);
	sim_delete("killed");
}

static long available_kib(void)
{
	char line[128];
	long kib = -1;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "MemAvailable: %ld", &kib) == 1)
			break;
	}
	if (f)
		fclose(f);
	return kib;
}

static void test_leaks(void)
{
	long before = 0;
	struct sim sim;
	int data_fd, i;

	for (i = 0; i < 110; i++) {
		/* The first rounds fill caches */
		if (i == 10)
			before = available_kib();
		sim_create("leak", "size_bytes=1048576", NULL);
		sim_open(&sim, "leak");
		sim_set_state(&sim, VFIO_DEVICE_STATE_STOP_COPY, &data_fd);
		close(data_fd);
		sim_set_state(&sim, VFIO_DEVICE_STATE_RESUMING, &data_fd);
		sim_close(&sim);
		close(data_fd);
		sim_delete("leak");
	}
	before -= available_kib();
	/* A lost session or log each would be 6400 KiB or more by now */
	ok(before < 4096, "nothing lost in 100 lives (%ld KiB)", before);
}

void test_hostile(void)
{
	test_pointers();
	test_kill();
	test_threads();
	test_leaks();
}
