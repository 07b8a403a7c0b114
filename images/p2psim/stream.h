/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration stream (README.md) and the session that moves it
 */
#ifndef P2PSIM_STREAM_H
#define P2PSIM_STREAM_H

#include <linux/wait.h>

#include "p2psim.h"

#define STREAM_MAGIC	0x4d41455254533250ULL	/* "P2STREAM" */
#define STREAM_VERSION	2
#define STREAM_DATA	1
#define STREAM_END	2

/* Largest data frame sent; a longer one is taken as well */
#define FRAME_BYTES	65536u

struct stream_header {
	__le64 magic;
	__le32 version;
	__le32 reserved;
	__le64 size_bytes;
};

struct stream_frame {
	__le32 type;
	__le32 length;
	__le64 offset;
};

/* What two devices have exchanged, as one of them has it */
struct stream_peer {
	__le64 sent;
	__le64 received;
	__le64 lost;
	__le64 doubled;
	__le64 missed;
	__le64 seen;
};

/* @peer_id of a device without a group */
#define STREAM_NO_PEER	0xffffffffu

struct stream_end {
	__le32 crc32;
	/* From here on it is part of what the checksum is over */
	__le32 window;
	__le32 peer_id;
	__le32 peers;
	__le32 sends;
	__le32 turn;
	__le32 reserved;
	__le32 known;
	/* One for each bit of @known, the lowest first */
	struct stream_peer peer[];
};

#define END_BYTES_MAX	(sizeof(struct stream_end) + \
			 P2PSIM_PEERS * sizeof(struct stream_peer))

enum load_phase {
	LOAD_HEADER,
	LOAD_FRAME,
	LOAD_DATA,
	LOAD_END,
	LOAD_DONE,
};

/**
 * struct p2psim_session - one data fd
 * @sim: holds a reference, so that its data_lock outlives the fd
 * @wait: those who wait for something to read, or for the time that their
 *        bytes take
 * @filp: the file of the fd; referenced while the session has not ended
 * @io_lock: serialises read() or write(), with the time that they take
 * @paid: bytes whose time has passed, and which are still to be moved
 * @unslept: what the division by 1024 has left over, in 1/1024 ns
 * @saving: direction
 * @ended: the device has let go of the session: @sim may only be unlocked
 * @bytes: moved through the fd so far
 * @used: saving: bytes of @buf already read; loading: bytes of a part here
 * @filled: saving: bytes in @buf; loading: bytes the part has
 * @unsent: saving: blocks that stop-copy has to send
 * @touched: saving: blocks that changed in precopy, which sends them once more
 * @initial: saving: precopy is still at its initial data
 * @pos: saving: where precopy goes on; loading: where the data goes
 * @end: saving: where precopy is drained; loading: bytes of the end frame
 * @drains: saving: how often precopy was seen drained
 * @queries: saving: how often precopy info was asked for since the last read
 * @renewed: saving: there was new initial data
 * @reinit: saving: ... which the user does not know yet
 * @complete: saving: the end frame is in @buf, or was
 * @crc: saving: checksum sent
 * @fault: saving: what goes wrong in this session, or NULL
 * @struck: saving: it has
 * @phase: loading: which part comes
 * @broken: loading: the stream made no sense
 * @refused: loading: write() has said so, and takes no more
 * @buf: saving: frame on its way out; loading: header, frame or end
 */
struct p2psim_session {
	struct p2psim_device *sim;
	wait_queue_head_t wait;
	struct file *filp;
	struct mutex io_lock;		/* see above */
	u64 paid;
	u32 unslept;
	bool saving;
	bool ended;
	u64 bytes;
	size_t used;
	size_t filled;

	unsigned long *unsent;
	unsigned long *touched;
	bool initial;
	u32 pos;
	u32 end;
	u32 drains;
	u32 queries;
	bool renewed;
	bool reinit;
	bool complete;
	u32 crc;
	const struct p2psim_fault *fault;
	bool struck;

	enum load_phase phase;
	bool broken;
	bool refused;

	/* Headers are read in place */
	u8 buf[sizeof(struct stream_frame) + FRAME_BYTES] __aligned(8);
};

/* stream.c */
u32 p2psim_checksum(struct p2psim_device *sim, const struct stream_end *end,
		    size_t bytes);
int p2psim_session_pay(struct p2psim_session *s, u64 bytes, u32 ns_per_kib);
int p2psim_session_release(struct inode *inode, struct file *filp);

/* save.c */
extern const struct file_operations p2psim_save_fops;
int p2psim_save_start(struct p2psim_session *s);

/* load.c */
extern const struct file_operations p2psim_load_fops;
void p2psim_load_start(struct p2psim_session *s);

#endif
