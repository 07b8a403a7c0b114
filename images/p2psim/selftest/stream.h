/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Streams of migration data, from a device and to one
 */
#ifndef SELFTEST_STREAM_H
#define SELFTEST_STREAM_H

#include "vfio.h"

#define HEADER_BYTES	24
#define FRAME_BYTES	16
/* Without peers; each of them adds PEER_BYTES */
#define END_BYTES	48
#define PEER_BYTES	48

struct stream {
	__u8 *data;
	size_t bytes;
};

/* Reads until nothing comes: 0 at the end, -errno else */
int stream_drain(int data_fd, struct stream *stream, size_t chunk);
/* Returns 0, or -errno of the write that failed */
int stream_fill(int data_fd, const struct stream *stream, size_t chunk);
/* In STOP_COPY from the start, or after precopy; RUNNING again afterwards */
struct stream stream_save(struct sim *sim, bool precopy, size_t chunk);
/* Loads what must be refused, sooner or later, with EINVAL */
void stream_refuse(struct sim *sim, const struct stream *stream,
		   const char *what);

#endif
