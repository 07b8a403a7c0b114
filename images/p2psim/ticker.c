// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tickers: threads that do something periodically
 *
 * They are threads rather than timers, since what they do may sleep.  They have
 * real-time priority: when something is done does not depend on how busy the
 * machine is.
 */
#include <linux/hrtimer.h>
#include <linux/kthread.h>

#include "ticker.h"

static int ticker_thread(void *data)
{
	struct p2psim_ticker *ticker = data;
	ktime_t next;

	while (!kthread_should_stop()) {
		scoped_guard(mutex, ticker->lock) {
			WRITE_ONCE(ticker->kicked, false);
			next = ticker->step(ticker);
		}
		set_current_state(TASK_IDLE);
		if (!READ_ONCE(ticker->kicked) && !kthread_should_stop())
			schedule_hrtimeout(next == KTIME_MAX ? NULL : &next,
					   HRTIMER_MODE_ABS);
		__set_current_state(TASK_RUNNING);
	}
	return 0;
}

/* The thread is called @prefix/@name, and waits for p2psim_ticker_start() */
int p2psim_ticker_create(struct p2psim_ticker *ticker, struct mutex *lock,
			 ktime_t (*step)(struct p2psim_ticker *ticker),
			 const char *prefix, const char *name)
{
	ticker->lock = lock;
	ticker->step = step;
	ticker->next = KTIME_MAX;
	ticker->task = kthread_create(ticker_thread, ticker, "%s/%s", prefix,
				      name);
	return PTR_ERR_OR_ZERO(ticker->task);
}

void p2psim_ticker_start(struct p2psim_ticker *ticker)
{
	sched_set_fifo_low(ticker->task);
	wake_up_process(ticker->task);
}

/* Also one that was never started */
void p2psim_ticker_stop(struct p2psim_ticker *ticker)
{
	kthread_stop(ticker->task);
}

/* There may be new work, or work that is no longer wanted */
void p2psim_ticker_kick(struct p2psim_ticker *ticker)
{
	lockdep_assert_held(ticker->lock);
	WRITE_ONCE(ticker->kicked, true);
	wake_up_process(ticker->task);
}

/*
 * For steps: whether it is time for a turn.  There is one every @period_us
 * while @on, and the first one is a period after the beginning.
 */
bool p2psim_ticker_turn(struct p2psim_ticker *ticker, bool on, ktime_t now,
			u32 period_us)
{
	bool due = false;

	lockdep_assert_held(ticker->lock);
	if (!on) {
		ticker->next = KTIME_MAX;
	} else if (ticker->next == KTIME_MAX) {
		ticker->next = ktime_add_us(now, period_us);
	} else if (ticker->next <= now) {
		due = true;
		ticker->next = ktime_add_us(ticker->next, period_us);
		/* Being late is not made up for: it would make others late */
		if (ticker->next <= now)
			ticker->next = ktime_add_us(now, period_us);
	}
	return due;
}
