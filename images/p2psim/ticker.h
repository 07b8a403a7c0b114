/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef P2PSIM_TICKER_H
#define P2PSIM_TICKER_H

#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/sched.h>

/**
 * struct p2psim_ticker - a thread that does something periodically
 * @task: the thread
 * @lock: protects @next, and whatever @step looks at
 * @step: called with @lock; returns when to come again, KTIME_MAX for never
 * @next: when the next turn is due; KTIME_MAX: there is none
 * @kicked: @step has to be called again at once
 */
struct p2psim_ticker {
	struct task_struct *task;
	struct mutex *lock;		/* see above */
	ktime_t (*step)(struct p2psim_ticker *ticker);
	ktime_t next;
	bool kicked;
};

int p2psim_ticker_create(struct p2psim_ticker *ticker, struct mutex *lock,
			 ktime_t (*step)(struct p2psim_ticker *ticker),
			 const char *prefix, const char *name);
void p2psim_ticker_start(struct p2psim_ticker *ticker);
void p2psim_ticker_stop(struct p2psim_ticker *ticker);
void p2psim_ticker_kick(struct p2psim_ticker *ticker);
bool p2psim_ticker_turn(struct p2psim_ticker *ticker, bool on, ktime_t now,
			u32 period_us);

#endif
