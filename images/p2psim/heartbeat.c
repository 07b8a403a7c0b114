// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the guest's heartbeats tell: when it ran, and for how long it did not
 *
 * Beats are kept as figures, not one by one: an hour of them fits as well.
 */
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "p2psim.h"

void p2psim_heartbeat(struct p2psim_device *sim, u32 beat)
{
	struct p2psim_heartbeat *heart = &sim->heart;
	u64 now = ktime_get_real_ns();

	lockdep_assert_held(&sim->data_lock);
	if (!p2psim_is_sending(sim->state))
		heart->untimely++;
	if (!heart->count++) {
		heart->first = beat;
		heart->first_ns = now;
		heart->gap_start_ns = now;
		heart->gap_end_ns = now;
	} else {
		/* The counter may wrap */
		s32 step = beat - heart->last;
		/* Negative, if the clock was set back meanwhile: then it is none */
		s64 gap_ns = now - heart->last_ns;

		if (step <= 0)
			heart->repeated++;
		else
			heart->missed += step - 1;
		if (gap_ns > (s64)(heart->gap_end_ns - heart->gap_start_ns)) {
			heart->gap_start_ns = heart->last_ns;
			heart->gap_end_ns = now;
		}
	}
	heart->last = beat;
	heart->last_ns = now;
}

/* One that the BAR did not take */
void p2psim_heartbeat_refused(struct p2psim_device *sim)
{
	lockdep_assert_held(&sim->data_lock);
	sim->heart.untimely++;
}

/* Logs what was heard, if anything was, and forgets it */
void p2psim_heartbeat_end(struct p2psim_device *sim, const char *when)
{
	struct p2psim_heartbeat *heart = &sim->heart;

	lockdep_assert_held(&sim->data_lock);
	if (heart->count || heart->untimely)
		p2psim_log(sim->log,
			   "heartbeat when=%s count=%llu first=%u first_ns=%llu last=%u last_ns=%llu gap_start_ns=%llu gap_end_ns=%llu missed=%llu repeated=%llu untimely=%llu",
			   when, heart->count, heart->first, heart->first_ns,
			   heart->last, heart->last_ns, heart->gap_start_ns,
			   heart->gap_end_ns, heart->missed, heart->repeated,
			   heart->untimely);
	memset(heart, 0, sizeof(*heart));
}
