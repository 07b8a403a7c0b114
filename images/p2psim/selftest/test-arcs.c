// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every state asked for in every state, under every set of flags
 *
 * What should happen is worked out here from the uAPI's text: the arcs that
 * exist, the shortest path over them, no saving state and no RESUMING inside
 * a path.  The kernel's own table is not consulted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests.h"
#include "vfio.h"

#define S(name) VFIO_DEVICE_STATE_##name
#define FAR 99

static const struct {
	const char *words;
	bool p2p, pre_copy;
} combos[] = {
	{ "stop_copy", false, false },
	{ "stop_copy p2p", true, false },
	{ "stop_copy pre_copy", false, true },
	{ "pre_copy p2p stop_copy", true, true },
};

static const struct {
	unsigned int from, to;
	bool p2p, pre_copy;	/* needs this flag */
	bool no_p2p;		/* exists without P2P only */
} arcs[] = {
	{ S(RUNNING), S(STOP), .no_p2p = true },
	{ S(STOP), S(RUNNING), .no_p2p = true },
	{ S(STOP), S(STOP_COPY) },
	{ S(STOP_COPY), S(STOP) },
	{ S(STOP), S(RESUMING) },
	{ S(RESUMING), S(STOP) },
	{ S(RUNNING), S(RUNNING_P2P), .p2p = true },
	{ S(RUNNING_P2P), S(RUNNING), .p2p = true },
	{ S(RUNNING_P2P), S(STOP), .p2p = true },
	{ S(STOP), S(RUNNING_P2P), .p2p = true },
	{ S(RUNNING), S(PRE_COPY), .pre_copy = true },
	{ S(PRE_COPY), S(RUNNING), .pre_copy = true },
	{ S(PRE_COPY), S(STOP_COPY), .pre_copy = true, .no_p2p = true },
	{ S(PRE_COPY), S(PRE_COPY_P2P), .p2p = true, .pre_copy = true },
	{ S(PRE_COPY_P2P), S(PRE_COPY), .p2p = true, .pre_copy = true },
	{ S(RUNNING_P2P), S(PRE_COPY_P2P), .p2p = true, .pre_copy = true },
	{ S(PRE_COPY_P2P), S(RUNNING_P2P), .p2p = true, .pre_copy = true },
	{ S(PRE_COPY_P2P), S(STOP_COPY), .p2p = true, .pre_copy = true },
};

static bool is_saving(unsigned int state)
{
	return state == S(PRE_COPY) || state == S(PRE_COPY_P2P) ||
	       state == S(STOP_COPY);
}

static bool has_arc(int combo, unsigned int from, unsigned int to)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(arcs); i++) {
		if (arcs[i].from == from && arcs[i].to == to)
			return (combos[combo].p2p || !arcs[i].p2p) &&
			       (combos[combo].pre_copy || !arcs[i].pre_copy) &&
			       (!combos[combo].p2p || !arcs[i].no_p2p);
	}
	return false;
}

static bool has_state(int combo, unsigned int state)
{
	switch (state) {
	case S(ERROR):
		return false;
	case S(RUNNING_P2P):
		return combos[combo].p2p;
	case S(PRE_COPY):
		return combos[combo].pre_copy;
	case S(PRE_COPY_P2P):
		return combos[combo].p2p && combos[combo].pre_copy;
	default:
		return state < STATES;
	}
}

/*
 * Arcs on the shortest path, FAR if there is none.  Within the saving group
 * a path may pass from one of its states to the next.
 */
static int distance(int combo, unsigned int from, unsigned int to, int most)
{
	unsigned int next;
	int best = FAR, d;

	if (from == to)
		return 0;
	if (!most)
		return FAR;
	for (next = 0; next < STATES; next++) {
		if (!has_arc(combo, from, next))
			continue;
		if (next != to && (next == S(RESUMING) ||
				   next == S(STOP_COPY)))
			continue;
		if (next != to && is_saving(next) &&
		    !(is_saving(from) && is_saving(to)))
			continue;
		d = 1 + distance(combo, next, to, most - 1);
		if (d < best)
			best = d;
	}
	return best;
}

static int state_of(const char *name, size_t len)
{
	int i;

	for (i = 0; i < STATES; i++) {
		if (strlen(state_names[i]) == len &&
		    !strncmp(state_names[i], name, len))
			return i;
	}
	return -1;
}

static int value_of(const char *line, const char *key)
{
	const char *value = strstr(line, key) + strlen(key);

	return state_of(value, strcspn(value, "\n "));
}

/* Walks the arcs logged behind @log: their number, -1 if they do not join */
static int logged_arcs(int combo, const char *log, unsigned int from)
{
	int n = 0;

	while ((log = strstr(log, " arc "))) {
		log++;
		if (value_of(log, "from=") != (int)from)
			return -1;
		from = value_of(log, "to=");
		if (!has_arc(combo, value_of(log, "from="), from))
			return -1;
		n++;
	}
	return n;
}

static void bring_to(struct sim *sim, unsigned int state, int *data_fd)
{
	if (sim_reset(sim) || sim_set_state(sim, state, data_fd))
		die("cannot reach %s", state_names[state]);
}

static void test_request(int combo, struct sim *sim, unsigned int from,
			 unsigned int to)
{
	const char *to_name = to < STATES ? state_names[to] : "8";
	int data_fd, new_fd, d, ret, want = 0, n;
	unsigned int end = to;
	char *before, *log;

	bring_to(sim, from, &data_fd);
	before = sim_log(sim->name);
	d = distance(combo, from, to, 4);
	/* There would be a path, but the uAPI forbids these by name */
	if (from == S(STOP_COPY) && (to == S(PRE_COPY) ||
				     to == S(PRE_COPY_P2P)))
		d = FAR;
	if (!has_state(combo, to) || d == FAR) {
		want = -EINVAL;
		end = from;
	} else if (from == S(RESUMING) && to != from) {
		/* Nothing was loaded */
		want = -EINVAL;
		end = S(ERROR);
	}
	ret = sim_set_state(sim, to, &new_fd);
	log = sim_log(sim->name);
	n = logged_arcs(combo, log + strlen(before), from);
	if (end == from)
		d = 0;
	else if (end == S(ERROR))
		d = 1;
	ok(ret == want && sim_state(sim) == end && n == d &&
	   (new_fd >= 0) == (!ret && from != to &&
			     (to == S(RESUMING) ||
			      (is_saving(to) && !is_saving(from)))),
	   "[%s] %s to %s: ret %d, %d arcs", combos[combo].words,
	   state_names[from], to_name, ret, n);
	if (end == S(ERROR)) {
		ret = sim_set_state(sim, S(RUNNING), NULL);
		is(ret, -EINVAL, "ERROR is left by reset only");
	}
	if (new_fd >= 0)
		close(new_fd);
	if (data_fd >= 0)
		close(data_fd);
	free(before);
	free(log);
}

static void test_combo(int combo)
{
	struct vfio_device_feature_migration mig = {};
	struct sim sim;
	__u64 want = VFIO_MIGRATION_STOP_COPY;
	unsigned int from, to;

	for (from = 0; from < STATES; from++) {
		char flags[64];

		/* A log of its own for each: the log is bounded */
		snprintf(flags, sizeof(flags), "flags=%s",
			 combos[combo].words);
		sim_create("arcs", flags, "size_bytes=4096", NULL);
		sim_open(&sim, "arcs");
		if (has_state(combo, from)) {
			for (to = 0; to <= STATES; to++)
				test_request(combo, &sim, from, to);
		}
		if (sim_feature_get(&sim, VFIO_DEVICE_FEATURE_MIGRATION, &mig,
				    sizeof(mig)))
			die("migration flags");
		sim_close(&sim);
		sim_delete("arcs");
	}
	if (combos[combo].p2p)
		want |= VFIO_MIGRATION_P2P;
	if (combos[combo].pre_copy)
		want |= VFIO_MIGRATION_PRE_COPY;
	is(mig.flags, want, "[%s] flags reported", combos[combo].words);
}

void test_arcs(void)
{
	struct vfio_device_feature_migration mig = {};
	struct sim sim;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(combos); i++)
		test_combo(i);

	sim_create("none", "flags=\n", NULL);
	sim_open(&sim, "none");
	is(sim_feature_get(&sim, VFIO_DEVICE_FEATURE_MIGRATION, &mig,
			   sizeof(mig)), -ENOTTY, "[] no migration at all");
	is(sim_set_state(&sim, S(STOP), NULL), -ENOTTY, "[] no states");
	sim_close(&sim);
	sim_delete("none");
}
