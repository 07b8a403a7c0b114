// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loading: the stream that is written to the device
 */
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "stream.h"

static void load_expect(struct p2psim_session *s, enum load_phase phase,
			size_t bytes)
{
	s->phase = phase;
	s->used = 0;
	s->filled = bytes;
}

static int load_header(struct p2psim_session *s)
{
	struct stream_header *header = (struct stream_header *)s->buf;

	if (le64_to_cpu(header->magic) != STREAM_MAGIC ||
	    le32_to_cpu(header->version) != STREAM_VERSION ||
	    header->reserved ||
	    le64_to_cpu(header->size_bytes) != s->sim->config.size_bytes)
		return -EINVAL;
	load_expect(s, LOAD_FRAME, sizeof(struct stream_frame));
	return 0;
}

static int load_frame(struct p2psim_session *s)
{
	struct stream_frame *frame = (struct stream_frame *)s->buf;
	u64 offset = le64_to_cpu(frame->offset);
	u32 length = le32_to_cpu(frame->length);
	u32 size = s->sim->config.size_bytes;

	switch (le32_to_cpu(frame->type)) {
	case STREAM_DATA:
		if (!length || offset >= size || length > size - offset)
			return -EINVAL;
		s->pos = offset;
		load_expect(s, LOAD_DATA, length);
		return 0;
	case STREAM_END:
		if (length < sizeof(struct stream_end) ||
		    length > END_BYTES_MAX || offset)
			return -EINVAL;
		s->end = length;
		load_expect(s, LOAD_END, length);
		return 0;
	default:
		return -EINVAL;
	}
}

/* A part is whole: what comes next? */
static int load_next(struct p2psim_session *s)
{
	switch (s->phase) {
	case LOAD_HEADER:
		return load_header(s);
	case LOAD_FRAME:
		return load_frame(s);
	case LOAD_DATA:
		load_expect(s, LOAD_FRAME, sizeof(struct stream_frame));
		return 0;
	default:
		load_expect(s, LOAD_DONE, 0);
		return 0;
	}
}

/* Is it what was sent?  Then the device is what it was. */
static int load_verify(struct p2psim_session *s)
{
	struct p2psim_device *sim = s->sim;
	struct stream_end *end = (struct stream_end *)s->buf;
	u32 crc;

	lockdep_assert_held(&sim->data_lock);
	if (s->broken || s->phase != LOAD_DONE) {
		p2psim_log(sim->log, "checksum bad reason=%s",
			   s->broken ? "broken" : "short");
		return -EINVAL;
	}
	crc = p2psim_checksum(sim, end, s->end);
	if (crc != le32_to_cpu(end->crc32) ||
	    le32_to_cpu(end->window) >= sim->config.size_bytes) {
		p2psim_log(sim->log,
			   "checksum bad reason=mismatch sent=%08x found=%08x",
			   le32_to_cpu(end->crc32), crc);
		return -EINVAL;
	}
	if (!p2psim_peer_fits(sim, end, s->end)) {
		p2psim_log(sim->log, "checksum bad reason=peers");
		return -EINVAL;
	}
	sim->window = le32_to_cpu(end->window);
	p2psim_log(sim->log, "checksum ok crc32=%08x", crc);
	p2psim_peer_load(sim, end);
	return 0;
}

/* All of the stream is here: where write() loads, it does it now */
static int load_in_write(struct p2psim_session *s)
{
	if (!s->sim->config.load_in_write || !load_verify(s))
		return 0;
	s->refused = true;
	return -EINVAL;
}

/* A stream that makes no sense, or does not end where it says */
static int load_refuse(struct p2psim_session *s)
{
	if (s->sim->config.load_in_write) {
		p2psim_log(s->sim->log, "checksum bad reason=broken");
		s->refused = true;
	}
	return -EINVAL;
}

static ssize_t load_bytes(struct p2psim_session *s, const char __user *buf,
			  size_t count)
{
	size_t n, done = 0;
	u8 *to;

	guard(mutex)(&s->sim->data_lock);
	/* As mlx5_vfio_pci answers, when it has refused something */
	if (s->ended || s->refused)
		return -ENODEV;
	while (done < count) {
		if (s->phase == LOAD_DONE)
			s->broken = true;
		if (s->broken)
			return load_refuse(s);
		to = s->phase == LOAD_DATA ? s->sim->memory + s->pos : s->buf;
		n = min(count - done, s->filled - s->used);
		if (copy_from_user(to + s->used, buf + done, n))
			return done ?: -EFAULT;
		s->used += n;
		s->bytes += n;
		done += n;
		if (s->used < s->filled)
			continue;
		if (load_next(s))
			s->broken = true;
		else if (s->phase == LOAD_DONE && load_in_write(s))
			return -EINVAL;
	}
	return s->broken ? load_refuse(s) : done;
}

static ssize_t load_write(struct file *filp, const char __user *buf,
			  size_t count, loff_t *pos)
{
	struct p2psim_session *s = filp->private_data;
	ssize_t done;
	int ret;

	if (pos)
		return -ESPIPE;
	ret = mutex_lock_killable(&s->io_lock);
	if (ret)
		return ret;
	done = p2psim_session_pay(s, count, s->sim->config.write_ns_per_kib);
	if (!done)
		done = load_bytes(s, buf, count);
	if (done > 0)
		s->paid -= done;
	mutex_unlock(&s->io_lock);
	return done;
}

/*
 * The resuming device has got all that it will get.  Where write() loads, that
 * is well, as with mlx5_vfio_pci: neither a stream that was refused nor one
 * that is not complete is looked at again.
 */
int p2psim_session_verify(struct p2psim_device *sim)
{
	lockdep_assert_held(&sim->data_lock);
	if (sim->config.load_in_write)
		return 0;
	return load_verify(sim->session);
}

const struct file_operations p2psim_load_fops = {
	.owner = THIS_MODULE,
	.write = load_write,
	.release = p2psim_session_release,
};

void p2psim_load_start(struct p2psim_session *s)
{
	load_expect(s, LOAD_HEADER, sizeof(struct stream_header));
	/* Nothing that was here before may pass for loaded */
	memset(s->sim->memory, 0, s->sim->config.size_bytes);
}
