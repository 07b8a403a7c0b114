/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files about traffic between peers share: see peer.c
 */
#ifndef P2PSIM_PEER_H
#define P2PSIM_PEER_H

#include <linux/ktime.h>
#include <linux/wait.h>

#include "p2psim.h"
#include "ticker.h"

/* One has to be answered before there are more than these */
#define FLIGHTS		64

/**
 * struct p2psim_group - devices that can send to one another
 * @node: in @groups
 * @users: devices that are live
 * @lock: protects all of @members
 * @members: by number; NULL where none is live
 * @name: as in configfs
 */
struct p2psim_group {
	struct list_head node;
	unsigned int users;
	struct mutex lock;		/* see above */
	struct p2psim_peer *members[P2PSIM_PEERS];
	char name[P2PSIM_NAME_BYTES + 1];
};

/* A transaction on its way */
struct flight {
	u32 to;
	u64 seq;
	ktime_t due;
};

/* Counts of what two devices have exchanged, as one of them has it */
struct traffic {
	u64 sent;
	u64 received;
	u64 lost;
	u64 doubled;
	u64 missed;
	u64 seen;
};

/**
 * struct p2psim_peer - a device, as the others of its group see it
 * @group: never changes, as do @config and @log
 * @config: that of the device
 * @log: that of the device
 * @ticker: sends
 * @idle: woken when nothing is on its way, if somebody waits for that
 * @open: a user has the device open
 * @state: that of the device
 * @sends: traffic is on
 * @quiet: an arc waits until nothing is on its way
 * @turn: number of the peer that is next, if it is one
 * @known: bit for each number that has sent to it
 * @lost_lines: in the log since it was opened
 * @first: the oldest of @flights
 * @outstanding: of @flights, from @first on
 * @flights: on their way
 * @traffic: by number
 */
struct p2psim_peer {
	struct p2psim_group *group;
	const struct p2psim_config *config;
	struct p2psim_log *log;
	struct p2psim_ticker ticker;
	wait_queue_head_t idle;

	bool open;
	enum vfio_device_mig_state state;
	bool sends;
	bool quiet;
	u32 turn;
	u32 known;
	u32 lost_lines;
	u32 first;
	u32 outstanding;
	struct flight flights[FLIGHTS];
	struct traffic traffic[P2PSIM_PEERS];
};

/* counters.c */
void p2psim_peer_log(struct p2psim_peer *peer, const char *when);

#endif
