// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Traffic between peers: who sends, who answers, what is lost, what migrates
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pair.h"
#include "stream.h"
#include "tests.h"
#include "vfio.h"

#define S(name)	VFIO_DEVICE_STATE_##name
/* Beside the states: nobody has it open */
#define CLOSED	STATES
/* For a hundred transactions; on a busy host there are fewer */
#define TRAFFIC_US	50000
/* For thousands */
#define LONG_US		500000

static void test_peer_config(void)
{
	struct sim sim;
	char *log;

	sim_mkdir("a");
	is(sim_set("a", "peers", "1"), 0, "peers");
	is(sim_set("a", "peer_id", "1"), -EINVAL, "a device is not its peer");
	is(sim_set("a", "live", "1"), -EINVAL, "peers in no group");
	is(sim_set("a", "traffic", "1"), -ENODEV, "traffic of what is gone");
	is(sim_set("a", "peer_group", "g"), 0, "group");
	is(sim_set("a", "peers", " 3\t1 31\n"), 0, "three peers");
	attribute_is("a", "peers", "1 3 31\n");
	is(sim_set("a", "live", "1"), 0, "live");
	log = sim_log("a");
	ok(strstr(log, ",pre_copy peer_group=g peer_id=0 peers=1,3,31\n"),
	   "the log has the peers");
	free(log);
	is(sim_set("a", "traffic", "1"), -ENODEV, "traffic while not open");

	sim_mkdir("b");
	sim_set("b", "peer_group", "g");
	is(sim_set("b", "live", "1"), -EEXIST, "number taken");
	sim_set("b", "peer_group", "h");
	is(sim_set("b", "live", "1"), 0, "number free in another group");
	sim_set("b", "live", "0");
	sim_set("b", "peer_group", "\n");
	is(sim_set("b", "live", "1"), 0, "no group");
	sim_open(&sim, "b");
	is(sim_set("b", "traffic", "1"), -EINVAL, "traffic without a group");
	ok(!sim_logged("b", " peer "), "nothing about peers in the log");
	sim_close(&sim);
	sim_delete("b");

	sim_open(&sim, "a");
	is(sim_set("a", "traffic", "1"), 0, "traffic");
	attribute_is("a", "traffic", "1\n");
	sim_reset(&sim);
	attribute_is("a", "traffic", "0\n");
	sim_set("a", "traffic", "1");
	sim_close(&sim);
	attribute_is("a", "traffic", "0\n");
	sim_open(&sim, "a");
	attribute_is("a", "traffic", "0\n");
	sim_set_state(&sim, S(STOP), NULL);
	is(sim_set("a", "traffic", "1"), 0, "traffic while stopped");
	sim_set_state(&sim, S(STOP_COPY), NULL);
	is(sim_set("a", "traffic", "0"), -EBUSY, "not while it is saved");
	sim_set_state(&sim, S(RESUMING), NULL);
	is(sim_set("a", "traffic", "0"), -EBUSY, "not while it is loaded");
	sim_close(&sim);
	sim_delete("a");
}

/* From RUNNING or PRE_COPY to a peer in @state */
static void test_receiver(unsigned int from, unsigned int state)
{
	bool answers = state == S(RUNNING) || state == S(RUNNING_P2P) ||
		       state == S(PRE_COPY) || state == S(PRE_COPY_P2P);
	const char *name = state == CLOSED ? "CLOSED" : state_names[state];
	struct sim sender, receiver;
	struct counters s, r = {};
	char line[128];

	pair_create("g", "stop_copy p2p pre_copy", "500", "10");
	sim_open(&sender, "g0");
	if (state != CLOSED)
		sim_open(&receiver, "g1");
	if (state == S(ERROR)) {
		sim_set_state(&receiver, S(RESUMING), NULL);
		sim_set_state(&receiver, S(STOP), NULL);
	} else if (state != CLOSED) {
		sim_set_state(&receiver, state, NULL);
	}
	sim_set_state(&sender, from, NULL);
	sim_set("g0", "traffic", "1");
	usleep(TRAFFIC_US);
	sim_set_state(&sender, S(STOP), NULL);
	sim_close(&sender);
	s = counters("g0", 1, "close");
	if (state != CLOSED) {
		sim_close(&receiver);
		r = counters("g1", 0, "close");
	}
	ok(s.sent && s.sent == r.received + s.lost &&
	   (answers ? !s.lost : !r.received) && !r.sent && !r.missed &&
	   !r.doubled,
	   "%s to %s: sent %llu, received %llu", state_names[from], name,
	   s.sent, r.received);
	snprintf(line, sizeof(line),
		 " lost from=0 to=1 seq=1 from_state=%s to_state=%s\n",
		 state_names[from], name);
	ok(sim_logged("g0", answers ? " lost from" : line) == !answers,
	   "%s to %s: the log", state_names[from], name);
	pair_delete("g");
}

/* Nothing is sent in @state */
static void test_sender(unsigned int state)
{
	struct counters s, r;
	struct sim sim[2];

	pair_create("g", "stop_copy p2p pre_copy", "500", "10");
	sim_open(&sim[0], "g0");
	sim_open(&sim[1], "g1");
	sim_set("g0", "traffic", "1");
	usleep(TRAFFIC_US);
	sim_set_state(&sim[0], state, NULL);
	/* All that was sent up to here has come: see what else does */
	sim_reset(&sim[1]);
	r = counters("g1", 0, "reset");
	usleep(TRAFFIC_US);
	sim_close(&sim[0]);
	s = counters("g0", 1, "close");
	ok(r.received && s.sent == r.received && !s.lost,
	   "%s sends nothing (%llu, %llu)", state_names[state], s.sent,
	   r.received);
	sim_close(&sim[1]);
	pair_delete("g");
}

static void test_states(void)
{
	unsigned int state;

	for (state = 0; state <= CLOSED; state++) {
		test_receiver(S(RUNNING), state);
		test_receiver(S(PRE_COPY), state);
		if (state != S(ERROR) && state != S(RESUMING) &&
		    state != S(RUNNING) && state != S(PRE_COPY) &&
		    state != CLOSED)
			test_sender(state);
	}
}

/* What has arrived has, also when it is looked at only later */
static void test_arrived(void)
{
	struct counters s, r;
	struct sim sim[2];

	/* With P2P there would be a state between, that answers as well */
	pair_create("g", "stop_copy", "400000", "10");
	sim_open(&sim[0], "g0");
	sim_open(&sim[1], "g1");
	sim_set("g0", "traffic", "1");
	usleep(600000);
	sim_set_state(&sim[1], S(STOP), NULL);
	sim_close(&sim[0]);
	sim_close(&sim[1]);
	s = counters("g0", 1, "close");
	r = counters("g1", 0, "close");
	ok(s.sent == 1 && r.received == 1 && !s.lost,
	   "one sent, and received by a device that then stopped");
	pair_delete("g");
}

/* An arc that ends sending waits for what is on its way */
static void test_quiet(const char *flags, unsigned int from, unsigned int to)
{
	unsigned long long waited_ns, outstanding;
	struct counters s, r;
	struct sim sim[2];
	char *log, *line;
	__u64 took;

	pair_create("g", flags, "1000", "30000");
	sim_open(&sim[0], "g0");
	sim_open(&sim[1], "g1");
	sim_set_state(&sim[0], from, NULL);
	sim_set("g0", "traffic", "1");
	usleep(TRAFFIC_US);
	took = now_ns(CLOCK_MONOTONIC);
	is(sim_set_state(&sim[0], to, NULL), 0, "%s to %s", state_names[from],
	   state_names[to]);
	took = now_ns(CLOCK_MONOTONIC) - took;
	log = sim_log("g0");
	line = strstr(log, " quiet ");
	if (!line || sscanf(line, " quiet waited_ns=%llu outstanding=%llu",
			    &waited_ns, &outstanding) != 2)
		die("no such line in the log");
	ok(outstanding && waited_ns > 1000000 && took > waited_ns,
	   "waited %llu ns for %llu", waited_ns, outstanding);
	free(log);
	sim_close(&sim[0]);
	sim_close(&sim[1]);
	s = counters("g0", 1, "close");
	r = counters("g1", 0, "close");
	is(s.sent, r.received, "and all arrived");
	pair_delete("g");
}

static void test_kill_while_quiet(void)
{
	struct sim sim;
	pid_t child;
	int status;

	pair_create("g", "stop_copy p2p", "1000", "60000000");
	child = fork();
	if (!child) {
		sim_open(&sim, "g0");
		sim_set("g0", "traffic", "1");
		usleep(TRAFFIC_US);
		sim_set_state(&sim, S(RUNNING_P2P), NULL);
		_exit(0);
	}
	usleep(200000);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	ok(WIFSIGNALED(status), "killed while its device waits for a minute");
	ok(sim_logged("g0", "arc from=RUNNING to=RUNNING_P2P ret=-4 "),
	   "the log has the arc as broken off");
	ok(counters("g0", 1, "close").lost, "what was on its way is lost");
	pair_delete("g");
}

/* 64 and no more are on their way; the log has 100 lost ones */
static void test_bounds(void)
{
	struct counters s;
	struct sim sim;
	char *log, *line;
	int lines = 0;

	pair_create("g", "stop_copy p2p", "100", "60000000");
	sim_open(&sim, "g0");
	sim_set("g0", "traffic", "1");
	usleep(LONG_US);
	sim_close(&sim);
	s = counters("g0", 1, "close");
	is(s.sent, 64, "as many on their way as there can be");
	is(s.lost, 64, "and lost at the end");
	pair_delete("g");

	pair_create("g", "stop_copy p2p", "100", "0");
	sim_open(&sim, "g0");
	sim_set("g0", "traffic", "1");
	usleep(LONG_US);
	sim_close(&sim);
	s = counters("g0", 1, "close");
	log = sim_log("g0");
	for (line = log; (line = strstr(line, " lost from=")); line++)
		lines++;
	free(log);
	ok(s.lost > 100 && lines == 100, "lost %llu, logged %d", s.lost,
	   lines);
	pair_delete("g");
}

static struct stream save(struct sim *sim)
{
	struct stream stream = {};
	int data_fd;

	if (sim_set_state(sim, S(STOP_COPY), &data_fd))
		die("STOP_COPY");
	is(sim_stop_copy_bytes(sim), HEADER_BYTES + FRAME_BYTES + 4096 +
	   END_BYTES + PEER_BYTES, "data size with a peer");
	if (stream_drain(data_fd, &stream, 1000))
		die("saving");
	close(data_fd);
	return stream;
}

static void load(struct sim *sim, const struct stream *stream)
{
	int data_fd;

	if (sim_set_state(sim, S(RESUMING), &data_fd))
		die("RESUMING");
	is(stream_fill(data_fd, stream, 999), 0, "writing the stream");
	close(data_fd);
	is(sim_set_state(sim, S(RUNNING_P2P), NULL), 0, "loaded");
}

static void is_refused(const struct stream *stream, const char *setting,
		       const char *other, const char *group)
{
	struct sim sim;

	sim_create("other", "size_bytes=4096", group, setting, other, NULL);
	sim_open(&sim, "other");
	stream_refuse(&sim, stream, setting);
	ok(sim_logged("other", " checksum bad reason=peers\n"), "for its peers");
	sim_close(&sim);
	sim_delete("other");
}

static void test_migrate(void)
{
	static const char flags[] = "stop_copy p2p pre_copy";
	struct sim source[2], target[2];
	struct counters saved, loaded, end[2];
	struct stream stream[2];
	char from[] = "src0", to[] = "dst0";
	size_t at;
	int i;

	pair_create("src", flags, "500", "100");
	/* Nobody sends before it is told to: here by what is loaded */
	pair_create("dst", flags, "500", "100");
	for (i = 0; i < 2; i++) {
		from[3] = '0' + i;
		to[3] = '0' + i;
		sim_open(&source[i], from);
	}
	/* What is sent to one that is not open is lost */
	for (i = 0; i < 2; i++) {
		from[3] = '0' + i;
		sim_set(from, "traffic", "1");
	}
	sim_set_state(&source[0], S(PRE_COPY), NULL);
	usleep(TRAFFIC_US);
	for (i = 0; i < 2; i++)
		sim_set_state(&source[i], S(RUNNING_P2P), NULL);
	for (i = 0; i < 2; i++)
		stream[i] = save(&source[i]);

	is_refused(&stream[0], "peers=1 2", "seed=1", "peer_group=x");
	is_refused(&stream[0], "peer_id=2", "peers=1", "peer_group=x");
	is_refused(&stream[0], "seed=2", "seed=3", "peer_group=\n");
	sim_create("other", "size_bytes=4096", "peer_group=x", "peers=1",
		   NULL);
	sim_open(&target[0], "other");
	for (at = stream[0].bytes - END_BYTES - PEER_BYTES;
	     at < stream[0].bytes; at += 5) {
		stream[0].data[at] ^= 1;
		stream_refuse(&target[0], &stream[0], "a byte changed");
		stream[0].data[at] ^= 1;
	}
	sim_close(&target[0]);
	sim_delete("other");

	for (i = 0; i < 2; i++) {
		to[3] = '0' + i;
		sim_open(&target[i], to);
	}
	for (i = 0; i < 2; i++)
		load(&target[i], &stream[i]);
	for (i = 0; i < 2; i++)
		sim_set_state(&target[i], S(RUNNING), NULL);
	usleep(TRAFFIC_US);
	for (i = 0; i < 2; i++)
		sim_set_state(&target[i], S(RUNNING_P2P), NULL);
	for (i = 0; i < 2; i++) {
		from[3] = '0' + i;
		to[3] = '0' + i;
		sim_close(&target[i]);
		sim_close(&source[i]);
		saved = counters(from, !i, "saved");
		loaded = counters(to, !i, "loaded");
		end[i] = counters(to, !i, "close");
		ok(!memcmp(&saved, &loaded, sizeof(saved)) &&
		   saved.sent, "loaded is what was saved");
		ok(end[i].sent > saved.sent && !end[i].lost &&
		   !end[i].doubled && !end[i].missed,
		   "traffic went on, from %llu to %llu", saved.sent,
		   end[i].sent);
		free(stream[i].data);
	}
	ok(end[0].sent == end[1].received && end[1].sent == end[0].received,
	   "all that was sent was received");
	pair_delete("src");
	pair_delete("dst");
}

/* The same device twice, and one that forgot: sequence numbers tell */
static void test_sequence(void)
{
	struct counters r;
	struct sim sim[2];

	pair_create("g", "stop_copy p2p", "500", "10");
	sim_open(&sim[0], "g0");
	sim_open(&sim[1], "g1");
	sim_set("g0", "traffic", "1");
	usleep(TRAFFIC_US);
	sim_reset(&sim[0]);
	sim_set("g0", "traffic", "1");
	usleep(TRAFFIC_US / 2);
	sim_set_state(&sim[0], S(RUNNING_P2P), NULL);
	sim_reset(&sim[1]);
	r = counters("g1", 0, "reset");
	ok(r.doubled && !r.missed && r.received > r.doubled,
	   "a sender that forgot: %llu of %llu doubled", r.doubled,
	   r.received);
	sim_set_state(&sim[0], S(RUNNING), NULL);
	usleep(TRAFFIC_US);
	sim_close(&sim[0]);
	sim_close(&sim[1]);
	r = counters("g1", 0, "close");
	ok(r.missed && !r.doubled && r.received,
	   "a receiver that forgot: %llu missed", r.missed);
	pair_delete("g");
}

static atomic_bool stop;

/* Open and closed, live and gone, through all states: as @arg's device */
static void *live_and_die(void *arg)
{
	const char *name = arg;
	unsigned int random = name[1];
	struct sim sim;
	int i;

	while (!stop) {
		sim_set(name, "live", "1");
		sim_open(&sim, name);
		for (i = 0; i < 20; i++) {
			random = random * 1103515245 + 12345;
			sim_set(name, "traffic", "1");
			sim_set_state(&sim, random >> 16 & 7, NULL);
			if (random >> 20 & 1)
				sim_reset(&sim);
			usleep(500);
		}
		sim_close(&sim);
		sim_set(name, "live", "0");
	}
	return NULL;
}

static void test_hostile_peers(void)
{
	static char names[2][3] = { "g0", "g1" };
	pthread_t threads[2];
	int i;

	pair_create("g", "stop_copy p2p pre_copy", "100", "150");
	for (i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, live_and_die, names[i]);
	usleep(1000000);
	stop = true;
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	ok(true, "two that send to each other, come and go");
	for (i = 0; i < 2; i++)
		sim_rmdir(names[i]);
}

void test_peers(void)
{
	test_peer_config();
	test_states();
	test_arrived();
	test_quiet("stop_copy p2p pre_copy", S(RUNNING), S(RUNNING_P2P));
	test_quiet("stop_copy p2p pre_copy", S(PRE_COPY), S(PRE_COPY_P2P));
	test_quiet("stop_copy pre_copy", S(RUNNING), S(STOP));
	test_quiet("stop_copy pre_copy", S(PRE_COPY), S(STOP_COPY));
	test_kill_while_quiet();
	test_bounds();
	test_sequence();
	test_migrate();
	test_hostile_peers();
}
