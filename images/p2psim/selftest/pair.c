// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pair.h"
#include "vfio.h"

struct counters counters(const char *name, int id, const char *when)
{
	static const char format[] =
		" peer %*s %*s sent=%llu received=%llu lost=%llu doubled=%llu missed=%llu";
	char key[64], *log = sim_log(name), *line, *last = NULL;
	struct counters c;

	snprintf(key, sizeof(key), " peer id=%d when=%s ", id, when);
	for (line = log; (line = strstr(line, key)); line++)
		last = line;
	if (!last || sscanf(last, format, &c.sent, &c.received, &c.lost,
			    &c.doubled, &c.missed) != 5)
		die("no%sin the log of %s", key, name);
	free(log);
	return c;
}

void pair_create(const char *group, const char *flags, const char *period,
		 const char *completion)
{
	const char *const peers[] = { "peers=1", "peers=0" };
	char name[16], settings[5][64];
	int i;

	snprintf(settings[0], 64, "peer_group=%s", group);
	snprintf(settings[1], 64, "flags=%s", flags);
	snprintf(settings[2], 64, "peer_period_us=%s", period);
	snprintf(settings[3], 64, "peer_completion_us=%s", completion);
	for (i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%s%d", group, i);
		snprintf(settings[4], 64, "peer_id=%d", i);
		sim_create(name, "size_bytes=4096", settings[4], peers[i],
			   settings[0], settings[1], settings[2], settings[3],
			   NULL);
	}
}

void pair_delete(const char *group)
{
	char name[16];
	int i;

	for (i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%s%d", group, i);
		sim_delete(name);
	}
}
