// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Faults: each strikes when it should, does what it should, and is logged
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stream.h"
#include "tests.h"
#include "vfio.h"

#define S(name)	VFIO_DEVICE_STATE_##name

static void test_fault_config(void)
{
	static const char *const nonsense[] = {
		"arc", "arc RUNNING STOP 1 fail", "arc RUNNING STOP fail EIO",
		"arc RUNNING STOP 1 fail EIO x", "arc RUNNING STOP 1 fail 5",
		"arc RUNNING STOP 1 fail ENOTHING",
		"arc RUNNING STOP x fail EIO", "arc RUNNING STOP -1 fail EIO",
		"arc RUNNING RUNNING 1 fail EIO",
		"arc STOP_COPY PRE_COPY 1 fail EIO",
		"arc RUNNING NOWHERE 1 fail EIO",
		"arc RUNNING STOP 1 break EIO", "arc RUNNING STOP 1 hang",
		"arc RUNNING STOP 1 hang x",
		"arc RUNNING STOP 1 hang 3600000001",
		"arc RUNNING STOP 1 corrupt 1", "save 1 fail EIO",
		"save 1 corrupt 65536", "save 1 corrupt x",
		"save RUNNING STOP 1 corrupt 1", "save 1 short", "save short 1",
		"reset 1 hang 1", "reset 1 fail", "reset 1 fail EIO x",
		"open 1 fail EIO",
		"report 1 fail EIO", "report 1 short", "report 1 late x",
		"reset 1 fail EIO\nreset 1 fail",
	};
	static const char good[] =
		"arc RUNNING STOP 1 fail EPERM\n"
		"arc PRE_COPY PRE_COPY_P2P 0 error ETIMEDOUT\n"
		"arc STOP RUNNING 4294967295 hang 3600000000\n"
		"arc STOP RUNNING 3 late 0\n"
		"save 1 corrupt 65535\n"
		"save 2 short 100\n"
		"reset 2 fail EINVAL\n"
		"report 0 short 1\n"
		"report 3 late 4294967295\n";
	char many[17 * 20];
	size_t i;

	sim_mkdir("a");
	for (i = 0; i < ARRAY_SIZE(nonsense); i++)
		is(sim_set("a", "faults", nonsense[i]), -EINVAL,
		   "nonsense for faults, %zu", i);
	attribute_is("a", "faults", "");
	is(sim_set("a", "faults", good), 0, "one of each");
	attribute_is("a", "faults", good);
	is(sim_set("a", "size_bytes", "4096"), -EINVAL,
	   "a size below what is to be corrupt");
	is(sim_set("a", "faults", "\n  reset 1\tfail  EIO\n\n"), 0,
	   "others instead");
	attribute_is("a", "faults", "reset 1 fail EIO\n");
	is(sim_set("a", "faults", "\n"), 0, "none any more");
	attribute_is("a", "faults", "");
	many[0] = '\0';
	for (i = 0; i < 16; i++)
		strcat(many, "reset 1 fail EIO\n");
	is(sim_set("a", "faults", many), 0, "as many as there can be");
	strcat(many, "reset 1 fail EIO\n");
	is(sim_set("a", "faults", many), -EINVAL, "one more");
	sim_rmdir("a");
}

static void test_fail(void)
{
	struct sim sim;

	sim_create("a", "faults=arc RUNNING_P2P STOP 2 fail ENOSPC\n"
		   "arc STOP RESUMING 0 fail EIO", NULL);
	sim_open(&sim, "a");
	is(sim_set_state(&sim, S(STOP), NULL), 0, "the first try");
	is(sim_set_state(&sim, S(RUNNING), NULL), 0, "and back");
	is(sim_logged("a", " fault "), 0, "no fault so far");
	is(sim_set_state(&sim, S(STOP), NULL), -ENOSPC, "the second try");
	is(sim_state(&sim), S(RUNNING_P2P), "the state is left as it was");
	is(sim_logged("a", " fault arc RUNNING_P2P STOP 2 fail ENOSPC\n"), 1,
	   "the fault is logged");
	is(sim_logged("a", " arc from=RUNNING_P2P to=STOP ret=-28 "), 1,
	   "the arc as well");
	is(sim_set_state(&sim, S(STOP), NULL), 0, "the third try");
	is(sim_set_state(&sim, S(RESUMING), NULL), -EIO, "every try");
	is(sim_set_state(&sim, S(RESUMING), NULL), -EIO, "every try again");
	sim_close(&sim);
	sim_open(&sim, "a");
	is(sim_set_state(&sim, S(STOP), NULL), 0, "counts outlive a close");
	sim_close(&sim);
	sim_set("a", "live", "0");
	sim_set("a", "live", "1");
	sim_open(&sim, "a");
	sim_set_state(&sim, S(STOP), NULL);
	sim_set_state(&sim, S(RUNNING), NULL);
	is(sim_set_state(&sim, S(STOP), NULL), -ENOSPC,
	   "but not that the device was gone");
	sim_close(&sim);
	sim_delete("a");
}

static void test_error(void)
{
	struct sim sim;
	int data_fd;
	char byte;

	sim_create("a", "faults=arc PRE_COPY PRE_COPY_P2P 1 error EIO", NULL);
	sim_open(&sim, "a");
	sim_set_state(&sim, S(PRE_COPY), &data_fd);
	is(sim_set_state(&sim, S(PRE_COPY_P2P), NULL), -EIO, "breaks down");
	is(sim_state(&sim), S(ERROR), "in ERROR");
	ok(read(data_fd, &byte, 1) < 0 && errno == ENODEV, "session over");
	close(data_fd);
	is(sim_set_state(&sim, S(RUNNING), NULL), -EINVAL, "no way out");
	is(sim_reset(&sim), 0, "but a reset");
	is(sim_state(&sim), S(RUNNING), "RUNNING");
	is(sim_logged("a", " fault arc PRE_COPY PRE_COPY_P2P 1 error EIO\n"), 1,
	   "logged");
	sim_close(&sim);
	sim_delete("a");
}

static void *request_stop(void *arg)
{
	sim_set_state(arg, S(STOP), NULL);
	return NULL;
}

/* Both take 100 ms: only of one the effect is there at once */
static void test_slow(const char *effect, int want)
{
	pthread_t thread;
	char setting[64];
	struct sim sim;
	__u64 took;

	snprintf(setting, sizeof(setting),
		 "faults=arc RUNNING_P2P STOP 1 %s 100000", effect);
	sim_create("a", setting, NULL);
	sim_open(&sim, "a");
	took = now_ns(CLOCK_MONOTONIC);
	pthread_create(&thread, NULL, request_stop, &sim);
	usleep(50000);
	is(bar_write(&sim, BAR_WINDOW, "x", 1), want, "%s: in the middle",
	   effect);
	pthread_join(thread, NULL);
	took = now_ns(CLOCK_MONOTONIC) - took;
	ok(took >= 100000000, "%s: took %llu ns", effect,
	   (unsigned long long)took);
	is(sim_state(&sim), S(STOP), "%s: and goes on as usual", effect);
	is(sim_logged("a", setting + strlen("faults=")), 1, "%s: logged", effect);
	sim_close(&sim);
	sim_delete("a");
}

static void test_kill_hung(void)
{
	struct sim sim;
	pid_t child;
	int status;

	sim_create("a", "faults=arc RUNNING RUNNING_P2P 0 hang 3600000000",
		   NULL);
	child = fork();
	if (!child) {
		sim_open(&sim, "a");
		sim_set_state(&sim, S(STOP), NULL);
		_exit(0);
	}
	usleep(200000);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	ok(WIFSIGNALED(status), "killed while its device hangs for an hour");
	is(sim_logged("a", " arc from=RUNNING to=RUNNING_P2P ret=-4 "), 1,
	   "the log has the arc as broken off");
	sim_delete("a");
}

static void test_save(void)
{
	struct stream stream, whole;
	struct sim sim, target;

	sim_create("a", "initial_bytes=8192",
		   "faults=save 1 corrupt 5000\nsave 2 corrupt 65535\n"
		   "save 3 short 1\nsave 4 short 70000\nsave 5 short 40000",
		   NULL);
	sim_create("target", NULL);
	sim_open(&sim, "a");
	sim_open(&target, "target");

	stream = stream_save(&sim, true, 1000);
	stream_refuse(&target, &stream, "corrupt in precopy");
	is(sim_logged("a", " fault save 1 corrupt 5000\n"), 1, "logged");
	is(sim_logged("target", " reason=mismatch "), 1, "the checksum tells");
	free(stream.data);
	stream = stream_save(&sim, false, 70000);
	stream_refuse(&target, &stream, "corrupt in stop-copy");
	is(sim_logged("target", " reason=mismatch "), 2, "the checksum tells");
	free(stream.data);

	stream = stream_save(&sim, false, 1000);
	is(stream.bytes, HEADER_BYTES + FRAME_BYTES + 65536 + END_BYTES - 1,
	   "one byte is missing");
	stream_refuse(&target, &stream, "one byte short");
	is(sim_logged("a", " fault save 3 short 1\n"), 1, "logged");
	is(sim_logged("target", " reason=short"), 1, "too short");
	is(sim_logged("a", " complete=0 "), 1, "not all was read");
	whole = stream;
	stream = stream_save(&sim, false, 1000);
	is(stream.bytes, 0, "short by more than there is");
	stream = stream_save(&sim, true, 1000);
	is(stream.bytes, whole.bytes + 1 + FRAME_BYTES - 40000,
	   "short by half, after precopy");
	stream_refuse(&target, &stream, "short by half");
	free(stream.data);
	free(whole.data);
	stream = stream_save(&sim, false, 1000);
	is(sim_logged("a", " fault "), 5, "nothing wrong the sixth time");
	free(stream.data);
	sim_close(&sim);
	sim_close(&target);
	sim_delete("a");
	sim_delete("target");
}

static void test_reset_fails(void)
{
	struct sim sim;

	sim_create("a", "faults=reset 1 fail EIO", NULL);
	sim_open(&sim, "a");
	sim_set_state(&sim, S(STOP), NULL);
	is(sim_reset(&sim), -EIO, "reset fails");
	is(sim_state(&sim), S(STOP), "the state is left as it was");
	is(sim_logged("a", " fault reset 1 fail EIO\n"), 1, "logged");
	is(sim_logged("a", " reset state="), 0, "not as a reset");
	is(sim_reset(&sim), 0, "the second does not");
	is(sim_state(&sim), S(RUNNING), "RUNNING");
	sim_close(&sim);
	sim_delete("a");
}

void test_faults(void)
{
	test_fault_config();
	test_fail();
	test_error();
	test_slow("hang", 1);
	test_slow("late", -EBUSY);
	test_kill_hung();
	test_save();
	test_reset_fails();
}
