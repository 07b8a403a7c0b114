// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "stream.h"

/* Reads until nothing comes: 0 at the end, -errno else */
int stream_drain(int data_fd, struct stream *stream, size_t chunk)
{
	ssize_t n;

	for (;;) {
		stream->data = realloc(stream->data, stream->bytes + chunk);
		if (!stream->data)
			die("realloc");
		n = read(data_fd, stream->data + stream->bytes, chunk);
		if (n <= 0)
			return n ? -errno : 0;
		stream->bytes += n;
	}
}

/* Returns 0, or -errno of the write that failed */
int stream_fill(int data_fd, const struct stream *stream, size_t chunk)
{
	size_t done = 0, n;
	ssize_t ret;

	while (done < stream->bytes) {
		n = stream->bytes - done < chunk ? stream->bytes - done : chunk;
		ret = write(data_fd, stream->data + done, n);
		if (ret < 0)
			return -errno;
		done += ret;
	}
	return 0;
}

/* In STOP_COPY from the start, or after @precopy bytes of precopy */
struct stream stream_save(struct sim *sim, bool precopy, size_t chunk)
{
	struct stream stream = {};
	int data_fd;

	if (sim_set_state(sim, precopy ? VFIO_DEVICE_STATE_PRE_COPY :
			  VFIO_DEVICE_STATE_STOP_COPY, &data_fd))
		die("saving");
	if (precopy && (stream_drain(data_fd, &stream, chunk) != -ENOMSG ||
			sim_set_state(sim, VFIO_DEVICE_STATE_STOP_COPY, NULL)))
		die("precopy");
	if (stream_drain(data_fd, &stream, chunk))
		die("stop-copy");
	close(data_fd);
	if (sim_set_state(sim, VFIO_DEVICE_STATE_RUNNING, NULL))
		die("RUNNING");
	return stream;
}

/* Loads what must be refused, sooner or later, with EINVAL */
void stream_refuse(struct sim *sim, const struct stream *stream,
		   const char *what)
{
	int data_fd, wrote, ended;

	if (sim_set_state(sim, VFIO_DEVICE_STATE_RESUMING, &data_fd))
		die("RESUMING");
	wrote = stream_fill(data_fd, stream, 4096);
	ended = sim_set_state(sim, VFIO_DEVICE_STATE_STOP, NULL);
	ok((!wrote || wrote == -EINVAL) && ended == -EINVAL &&
	   sim_state(sim) == VFIO_DEVICE_STATE_ERROR,
	   "refused: %s (write %d)", what, wrote);
	close(data_fd);
	if (sim_reset(sim) || sim_state(sim) != VFIO_DEVICE_STATE_RUNNING)
		die("reset from ERROR");
}
