// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The part of a peer that migrates: its counters, and whether it sends
 */
#include <linux/bitops.h>
#include <linux/string.h>

#include "peer.h"
#include "stream.h"

/* Those that it sends to or has heard of */
static u32 met(const struct p2psim_peer *peer)
{
	return peer->config->peers | peer->known;
}

void p2psim_peer_log(struct p2psim_peer *peer, const char *when)
{
	unsigned long ids = met(peer);
	u32 id;

	lockdep_assert_held(&peer->group->lock);
	for_each_set_bit(id, &ids, P2PSIM_PEERS) {
		const struct traffic *traffic = peer->traffic + id;

		p2psim_log(peer->log,
			   "peer id=%u when=%s sent=%llu received=%llu lost=%llu doubled=%llu missed=%llu",
			   id, when, traffic->sent, traffic->received,
			   traffic->lost, traffic->doubled, traffic->missed);
	}
}

int p2psim_peer_set_traffic(struct p2psim_device *sim, bool on)
{
	struct p2psim_peer *peer = sim->peer;

	if (!peer)
		return -EINVAL;
	guard(mutex)(&sim->data_lock);
	if (!sim->memory)
		return -ENODEV;
	/* As with the BAR: what is being saved or loaded holds still */
	if (sim->state == VFIO_DEVICE_STATE_STOP_COPY ||
	    sim->state == VFIO_DEVICE_STATE_RESUMING)
		return -EBUSY;
	guard(mutex)(&peer->group->lock);
	peer->sends = on;
	p2psim_ticker_kick(&peer->ticker);
	return 0;
}

bool p2psim_peer_traffic(struct p2psim_device *sim)
{
	struct p2psim_peer *peer = sim->peer;

	if (!peer)
		return false;
	guard(mutex)(&peer->group->lock);
	return peer->open && peer->sends;
}

static size_t end_bytes(u32 ids)
{
	return sizeof(struct stream_end) +
	       hweight32(ids) * sizeof(struct stream_peer);
}

/* Payload of the end frame, as long as nothing more is received */
size_t p2psim_peer_end_bytes(struct p2psim_device *sim)
{
	struct p2psim_peer *peer = sim->peer;

	lockdep_assert_held(&sim->data_lock);
	if (!peer)
		return end_bytes(0);
	guard(mutex)(&peer->group->lock);
	return end_bytes(met(peer));
}

/* @end is zeroes, and as long as p2psim_peer_end_bytes() says */
void p2psim_peer_save(struct p2psim_device *sim, struct stream_end *end)
{
	struct stream_peer *saved = end->peer;
	struct p2psim_peer *peer = sim->peer;
	unsigned long ids;
	u32 id;

	lockdep_assert_held(&sim->data_lock);
	if (!peer) {
		end->peer_id = cpu_to_le32(STREAM_NO_PEER);
		return;
	}
	guard(mutex)(&peer->group->lock);
	ids = met(peer);
	end->peer_id = cpu_to_le32(peer->config->peer_id);
	end->peers = cpu_to_le32(peer->config->peers);
	end->sends = cpu_to_le32(peer->sends);
	end->turn = cpu_to_le32(peer->turn);
	end->known = cpu_to_le32(ids);
	for_each_set_bit(id, &ids, P2PSIM_PEERS) {
		const struct traffic *traffic = peer->traffic + id;

		*saved++ = (struct stream_peer) {
			.sent = cpu_to_le64(traffic->sent),
			.received = cpu_to_le64(traffic->received),
			.lost = cpu_to_le64(traffic->lost),
			.doubled = cpu_to_le64(traffic->doubled),
			.missed = cpu_to_le64(traffic->missed),
			.seen = cpu_to_le64(traffic->seen),
		};
	}
	p2psim_peer_log(peer, "saved");
}

/* Is it from a device with the same number and peers? */
bool p2psim_peer_fits(struct p2psim_device *sim, const struct stream_end *end,
		      size_t bytes)
{
	const struct p2psim_peer *peer = sim->peer;
	u32 ids = le32_to_cpu(end->known);

	if (bytes != end_bytes(ids))
		return false;
	if (!peer)
		return le32_to_cpu(end->peer_id) == STREAM_NO_PEER;
	return le32_to_cpu(end->peer_id) == peer->config->peer_id &&
	       le32_to_cpu(end->peers) == peer->config->peers;
}

/* For a stream that fits */
void p2psim_peer_load(struct p2psim_device *sim, const struct stream_end *end)
{
	const struct stream_peer *loaded = end->peer;
	unsigned long ids = le32_to_cpu(end->known);
	struct p2psim_peer *peer = sim->peer;
	u32 id;

	lockdep_assert_held(&sim->data_lock);
	if (!peer)
		return;
	guard(mutex)(&peer->group->lock);
	peer->sends = le32_to_cpu(end->sends);
	peer->turn = le32_to_cpu(end->turn);
	peer->known = ids;
	memset(peer->traffic, 0, sizeof(peer->traffic));
	for_each_set_bit(id, &ids, P2PSIM_PEERS) {
		peer->traffic[id] = (struct traffic) {
			.sent = le64_to_cpu(loaded->sent),
			.received = le64_to_cpu(loaded->received),
			.lost = le64_to_cpu(loaded->lost),
			.doubled = le64_to_cpu(loaded->doubled),
			.missed = le64_to_cpu(loaded->missed),
			.seen = le64_to_cpu(loaded->seen),
		};
		loaded++;
	}
	p2psim_peer_log(peer, "loaded");
}
