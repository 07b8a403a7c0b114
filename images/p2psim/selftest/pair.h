/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two devices that are each other's peers
 */
#ifndef SELFTEST_PAIR_H
#define SELFTEST_PAIR_H

struct counters {
	unsigned long long sent, received, lost, doubled, missed;
};

/* The last ones of traffic with @id that @name has logged @when */
struct counters counters(const char *name, int id, const char *when);

/* Devices "GROUP0" and "GROUP1" of a group; times in microseconds */
void pair_create(const char *group, const char *flags, const char *period,
		 const char *completion);
void pair_delete(const char *group);

#endif
