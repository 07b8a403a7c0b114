// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Peers: numbered transactions between the devices of a group
 *
 * A transaction is on its way for the sender's completion time.  Then it is
 * received and answered, both at once, or lost.  So whenever nothing is on
 * its way, what was sent is what was received plus what was lost.
 *
 * All traffic of a group is under the one lock of the group: two devices that
 * send to each other have no second lock to take in another order, and a
 * sender sees whether its peer is there, open and in which state, for as long
 * as it looks.  A device leaves its group when nobody can have it open, and
 * the lock is never held for longer than it takes to write a line of log.
 *
 * Each device sends from a thread of its own, since it writes to its log,
 * which may sleep.
 */
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "peer.h"

/* Of the lost ones; the counters have all */
#define LOST_LINES	100

static DEFINE_MUTEX(groups_lock);
static LIST_HEAD(groups);

static bool is_sending(const struct p2psim_peer *peer)
{
	return peer->open && peer->sends && !peer->quiet &&
	       peer->config->peers && p2psim_is_sending(peer->state);
}

static struct flight *flight_at(struct p2psim_peer *peer, u32 at)
{
	return peer->flights + (peer->first + at) % FLIGHTS;
}

static void send_one(struct p2psim_peer *peer, ktime_t now)
{
	unsigned long peers = peer->config->peers;
	struct flight *flight;

	if (peer->outstanding == FLIGHTS)
		return;
	flight = flight_at(peer, peer->outstanding);
	flight->to = find_next_bit(&peers, P2PSIM_PEERS, peer->turn);
	if (flight->to >= P2PSIM_PEERS)
		flight->to = find_first_bit(&peers, P2PSIM_PEERS);
	flight->seq = ++peer->traffic[flight->to].sent;
	flight->due = ktime_add_us(now, peer->config->peer_completion_us);
	peer->turn = flight->to + 1;
	WRITE_ONCE(peer->outstanding, peer->outstanding + 1);
}

static void receive(struct p2psim_peer *peer, u32 from, u64 seq)
{
	struct traffic *traffic = peer->traffic + from;

	peer->known |= BIT(from);
	traffic->received++;
	if (seq <= traffic->seen) {
		traffic->doubled++;
		return;
	}
	traffic->missed += seq - traffic->seen - 1;
	traffic->seen = seq;
}

static void lose(struct p2psim_peer *peer, const struct flight *flight,
		 const char *to_state)
{
	peer->traffic[flight->to].lost++;
	if (peer->lost_lines == LOST_LINES)
		return;
	peer->lost_lines++;
	p2psim_log(peer->log,
		   "lost from=%u to=%u seq=%llu from_state=%s to_state=%s",
		   peer->config->peer_id, flight->to, flight->seq,
		   p2psim_state_name(peer->state), to_state);
}

static bool is_answered(struct p2psim_peer *peer, const struct flight *flight)
{
	const struct p2psim_peer *to = peer->group->members[flight->to];

	return to && to->open && p2psim_is_answering(to->state);
}

static void land_one(struct p2psim_peer *peer)
{
	struct flight *flight = flight_at(peer, 0);
	struct p2psim_peer *to = peer->group->members[flight->to];

	if (is_answered(peer, flight))
		receive(to, peer->config->peer_id, flight->seq);
	else if (to && to->open)
		lose(peer, flight, p2psim_state_name(to->state));
	else
		lose(peer, flight, "CLOSED");
	peer->first = (peer->first + 1) % FLIGHTS;
	WRITE_ONCE(peer->outstanding, peer->outstanding - 1);
	if (peer->quiet && !peer->outstanding)
		wake_up(&peer->idle);
}

static void land_due(struct p2psim_peer *peer)
{
	ktime_t now = ktime_get();

	while (peer->outstanding && flight_at(peer, 0)->due <= now)
		land_one(peer);
}

/*
 * Before a device is seen in another state: what was due until now found it
 * in the old one
 */
static void settle(struct p2psim_group *group)
{
	u32 id;

	lockdep_assert_held(&group->lock);
	for (id = 0; id < P2PSIM_PEERS; id++) {
		if (group->members[id])
			land_due(group->members[id]);
	}
}

/* After @peer is seen in another state: what is on its way may be to it */
static void kick_senders(struct p2psim_peer *peer)
{
	u32 id;

	for (id = 0; id < P2PSIM_PEERS; id++) {
		struct p2psim_peer *other = peer->group->members[id];

		if (other && (other == peer || other->outstanding))
			p2psim_ticker_kick(&other->ticker);
	}
}

/*
 * When the next transaction is due that has to be looked at in time.  One that
 * will be answered has not: it is counted when the next is sent, or before
 * anything could change its fate, see settle().  That saves half the wake-ups.
 */
static ktime_t next_landing(struct p2psim_peer *peer)
{
	u32 i;

	for (i = 0; i < peer->outstanding; i++) {
		if (peer->quiet || !is_answered(peer, flight_at(peer, i)))
			return flight_at(peer, i)->due;
	}
	return KTIME_MAX;
}

static ktime_t peer_step(struct p2psim_ticker *ticker)
{
	struct p2psim_peer *peer = container_of(ticker, struct p2psim_peer,
						ticker);
	ktime_t now = ktime_get();

	land_due(peer);
	if (p2psim_ticker_turn(ticker, is_sending(peer), now,
			       peer->config->peer_period_us))
		send_one(peer, now);
	return min(ticker->next, next_landing(peer));
}

static struct p2psim_group *get_group(const char *name)
{
	struct p2psim_group *group;

	guard(mutex)(&groups_lock);
	list_for_each_entry(group, &groups, node) {
		if (!strcmp(group->name, name)) {
			group->users++;
			return group;
		}
	}
	group = kzalloc(sizeof(*group), GFP_KERNEL);
	if (!group)
		return NULL;
	strscpy(group->name, name);
	mutex_init(&group->lock);
	group->users = 1;
	list_add(&group->node, &groups);
	return group;
}

static void put_group(struct p2psim_group *group)
{
	guard(mutex)(&groups_lock);
	if (--group->users)
		return;
	list_del(&group->node);
	mutex_destroy(&group->lock);
	kfree(group);
}

static int join_group(struct p2psim_group *group, struct p2psim_peer *peer)
{
	struct p2psim_peer **member = group->members + peer->config->peer_id;

	guard(mutex)(&group->lock);
	if (*member)
		return -EEXIST;
	*member = peer;
	return 0;
}

static void leave_group(struct p2psim_group *group, struct p2psim_peer *peer)
{
	guard(mutex)(&group->lock);
	group->members[peer->config->peer_id] = NULL;
}

/* -EEXIST: its number is that of another one */
int p2psim_peer_create(struct p2psim_device *sim)
{
	struct p2psim_peer *peer;
	int ret;

	if (!sim->config.peer_group[0])
		return 0;
	peer = kzalloc(sizeof(*peer), GFP_KERNEL);
	if (!peer)
		return -ENOMEM;
	peer->config = &sim->config;
	peer->log = sim->log;
	init_waitqueue_head(&peer->idle);
	peer->group = get_group(sim->config.peer_group);
	if (!peer->group) {
		ret = -ENOMEM;
		goto err_free;
	}
	ret = p2psim_ticker_create(&peer->ticker, &peer->group->lock, peer_step,
				   "p2psim", dev_name(sim->vdev.dev));
	if (ret)
		goto err_group;
	ret = join_group(peer->group, peer);
	if (ret)
		goto err_ticker;
	p2psim_ticker_start(&peer->ticker);
	sim->peer = peer;
	return 0;

err_ticker:
	p2psim_ticker_stop(&peer->ticker);
err_group:
	put_group(peer->group);
err_free:
	kfree(peer);
	return ret;
}

void p2psim_peer_destroy(struct p2psim_device *sim)
{
	struct p2psim_peer *peer = sim->peer;

	if (!peer)
		return;
	leave_group(peer->group, peer);
	p2psim_ticker_stop(&peer->ticker);
	put_group(peer->group);
	kfree(peer);
	sim->peer = NULL;
}

/* RUNNING, and nothing was ever sent or received */
void p2psim_peer_fresh(struct p2psim_device *sim)
{
	struct p2psim_peer *peer = sim->peer;

	if (!peer)
		return;
	guard(mutex)(&peer->group->lock);
	settle(peer->group);
	memset(peer->traffic, 0, sizeof(peer->traffic));
	peer->open = true;
	peer->state = sim->state;
	peer->sends = false;
	peer->turn = 0;
	peer->known = 0;
	peer->lost_lines = 0;
	kick_senders(peer);
}

/*
 * The device is about to forget everything.  What is on its way arrives at
 * once: the sender may not be there when it is due.
 */
void p2psim_peer_end(struct p2psim_device *sim, const char *when)
{
	struct p2psim_peer *peer = sim->peer;

	if (!peer)
		return;
	guard(mutex)(&peer->group->lock);
	settle(peer->group);
	while (peer->outstanding)
		land_one(peer);
	p2psim_peer_log(peer, when);
	peer->open = false;
	kick_senders(peer);
}

/* The device is in its state: from here on the others see it there */
void p2psim_peer_enter(struct p2psim_device *sim)
{
	struct p2psim_peer *peer = sim->peer;

	lockdep_assert_held(&sim->data_lock);
	if (!peer)
		return;
	guard(mutex)(&peer->group->lock);
	settle(peer->group);
	peer->state = sim->state;
	peer->quiet = false;
	kick_senders(peer);
}

/*
 * Sends no more, and waits until nothing is on its way.  p2psim_peer_enter()
 * ends that.
 */
int p2psim_peer_quiesce(struct p2psim_device *sim)
{
	struct p2psim_peer *peer = sim->peer;
	ktime_t start = ktime_get();
	u32 outstanding;
	bool sends;
	int ret;

	if (!peer)
		return 0;
	scoped_guard(mutex, &peer->group->lock) {
		land_due(peer);
		peer->quiet = true;
		sends = peer->sends;
		outstanding = peer->outstanding;
		if (outstanding)
			p2psim_ticker_kick(&peer->ticker);
	}
	ret = wait_event_killable(peer->idle, !READ_ONCE(peer->outstanding));
	if (sends)
		p2psim_log(sim->log, "quiet waited_ns=%lld outstanding=%u",
			   ktime_to_ns(ktime_sub(ktime_get(), start)),
			   outstanding);
	if (!ret)
		return 0;
	guard(mutex)(&peer->group->lock);
	peer->quiet = false;
	p2psim_ticker_kick(&peer->ticker);
	return -EINTR;
}
