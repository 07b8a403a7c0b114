// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory that cannot be had: a call then succeeds, or fails and leaves nothing
 * behind
 *
 * Only kernels with fault injection have these cases.  Each slab allocation of
 * a call is refused once, the first one first; those of kmemleak are among
 * them.  What comes from vmalloc() or from whole pages is never refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "stream.h"
#include "tests.h"
#include "vfio.h"

#define S(name)		VFIO_DEVICE_STATE_##name
#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define FAILSLAB	"/sys/kernel/debug/failslab/"
#define NAME		"scarce"

/**
 * struct call - something that is asked of a device
 * @name: what it is
 * @make: asks; returns 0 or -errno
 * @undone: whether nothing is left of one that failed
 * @undo: after one that worked
 */
struct call {
	const char *name;
	int (*make)(void);
	bool (*undone)(void);
	void (*undo)(void);
};

static struct sim sim;
static struct stream stream;
static int data_fd, nth_fd;

static void set(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("%s", path);
	close(fd);
}

/* The @n-th allocation from now on is refused; 0: none */
static void refuse(int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", n);
	if (pwrite(nth_fd, text, strlen(text), 0) < 0)
		die(FAIL_NTH);
}

static bool was_refused(void)
{
	char text[16] = "";

	if (pread(nth_fd, text, sizeof(text) - 1, 0) <= 0)
		die(FAIL_NTH);
	return !atoi(text);
}

static void try(const struct call *call)
{
	int n, ret, failed = 0, left = 0;
	bool refused;

	for (n = 1;; n++) {
		refuse(n);
		ret = call->make();
		refused = was_refused();
		refuse(0);
		if (!refused)
			break;
		if (!ret) {
			call->undo();
			continue;
		}
		failed++;
		if (!call->undone()) {
			printf("# %s, allocation %d, error %d\n", call->name,
			       n, -ret);
			left++;
		}
	}
	ok(!ret && !left && failed, "%s: each of %d allocations refused once, %d errors",
	   call->name, n - 1, failed);
	if (ret)
		die("%s", call->name);
	call->undo();
}

static int make_item(void)
{
	return sim_mkdir(NAME);
}

static bool has_no_item(void)
{
	return sim_rmdir(NAME) == -ENOENT;
}

static void remove_item(void)
{
	if (sim_rmdir(NAME))
		die("rmdir");
}

static bool is_live(void)
{
	char text[8];

	sim_get(NAME, "live", text, sizeof(text));
	return !strcmp(text, "1\n");
}

static bool is_not_live(void)
{
	return !is_live();
}

static int go_live(void)
{
	return sim_set(NAME, "live", "1");
}

static int go_away(void)
{
	return sim_set(NAME, "live", "0");
}

static void must_live(void)
{
	if (go_live())
		die("live");
}

static void must_go(void)
{
	if (go_away())
		die("not live");
}

static int open_device(void)
{
	sim.fd = ioctl(sim.group, VFIO_GROUP_GET_DEVICE_FD, NAME);
	return sim.fd < 0 ? -errno : 0;
}

static bool can_open(void)
{
	return !open_device() && !close(sim.fd);
}

static void close_device(void)
{
	close(sim.fd);
}

static int to_precopy(void)
{
	return sim_set_state(&sim, S(PRE_COPY), &data_fd);
}

static int to_stop_copy(void)
{
	return sim_set_state(&sim, S(STOP_COPY), &data_fd);
}

static int to_resuming(void)
{
	return sim_set_state(&sim, S(RESUMING), &data_fd);
}

/* It may be half way, and must still be able to run */
static bool can_run(void)
{
	return sim_state(&sim) != S(ERROR) &&
	       !sim_set_state(&sim, S(RUNNING), NULL);
}

static void run(void)
{
	close(data_fd);
	if (sim_set_state(&sim, S(RUNNING), NULL))
		die("RUNNING");
}

static int load(void)
{
	int ret, end;

	ret = to_resuming();
	if (ret)
		return ret;
	ret = stream_fill(data_fd, &stream, 4096);
	end = sim_set_state(&sim, S(STOP), NULL);
	close(data_fd);
	data_fd = -1;
	return ret ?: end;
}

static bool can_reset(void)
{
	return !sim_reset(&sim) && sim_state(&sim) == S(RUNNING);
}

/* Nothing was loaded, so only a reset makes it run */
static void forget(void)
{
	close(data_fd);
	if (!can_reset())
		die("reset");
}

static int start_logging(void)
{
	return sim_logging_start(&sim, 0x1000000, 8 * 4096);
}

static int stop_logging(void)
{
	return sim_feature_set(&sim, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP);
}

/* Logging can be started only if it is off */
static bool logs_nothing(void)
{
	return !start_logging() && !stop_logging();
}

static void must_stop_logging(void)
{
	if (stop_logging())
		die("DMA logging");
}

/* In the order in which a device is made, opened and used */
static const struct call making = {
	"mkdir", make_item, has_no_item, remove_item
};

static const struct call going_live = {
	"going live", go_live, is_not_live, must_go
};

static const struct call opening = {
	"opening", open_device, can_open, close_device
};

static const struct call uses[] = {
	{ "PRE_COPY", to_precopy, can_run, run },
	{ "STOP_COPY", to_stop_copy, can_run, run },
	{ "RESUMING", to_resuming, can_reset, forget },
	{ "loading", load, can_reset, run },
	{ "DMA logging", start_logging, logs_nothing, must_stop_logging },
};

static const struct call going_away = {
	"going away", go_away, is_live, must_live
};

void test_memory(void)
{
	size_t i;

	if (access(FAIL_NTH, F_OK))
		return;
	/* Also refuse allocations that may wait, and do not report each one */
	set(FAILSLAB "ignore-gfp-wait", "N");
	set(FAILSLAB "verbose", "0");
	nth_fd = open(FAIL_NTH, O_RDWR);
	if (nth_fd < 0)
		die(FAIL_NTH);

	try(&making);
	if (sim_mkdir(NAME) || sim_set(NAME, "peer_group", NAME) ||
	    sim_set(NAME, "dma_bytes", "32768") ||
	    sim_set(NAME, "dma_logging", "1"))
		die("making %s", NAME);
	try(&going_live);
	must_live();
	sim_open(&sim, NAME);
	close_device();
	try(&opening);
	if (open_device())
		die("opening");
	stream = stream_save(&sim, true, 4096);
	for (i = 0; i < ARRAY_SIZE(uses); i++)
		try(&uses[i]);
	free(stream.data);
	sim_close(&sim);
	try(&going_away);
	sim_delete(NAME);
	close(nth_fd);
}
