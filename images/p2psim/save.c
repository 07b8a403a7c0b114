// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Saving: the stream that is read from the device
 */
#include <linux/bitmap.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>

#include "stream.h"

/* Granule of "not sent yet" */
#define BLOCK_BYTES	4096u

static u32 blocks(struct p2psim_device *sim)
{
	return DIV_ROUND_UP(sim->config.size_bytes, BLOCK_BYTES);
}

/* Stream bytes that @length bytes of memory in a row take */
static u64 framed_bytes(u32 length)
{
	return length + (u64)DIV_ROUND_UP(length, FRAME_BYTES) *
			sizeof(struct stream_frame);
}

/*
 * Next memory for a frame, of blocks that are @due and begin at or behind
 * @offset: its length, 0 if there is none
 */
static u32 next_due(struct p2psim_session *s, const unsigned long *due,
		    u32 *offset)
{
	u32 nblocks = blocks(s->sim);
	u32 first, last;

	first = find_next_bit(due, nblocks,
			      DIV_ROUND_UP(*offset, BLOCK_BYTES));
	if (first >= nblocks)
		return 0;
	last = find_next_zero_bit(due,
				  min(nblocks,
				      first + FRAME_BYTES / BLOCK_BYTES),
				  first);
	*offset = first * BLOCK_BYTES;
	return min(last * BLOCK_BYTES, s->sim->config.size_bytes) - *offset;
}

static u64 end_frame_bytes(struct p2psim_device *sim)
{
	return sizeof(struct stream_frame) + p2psim_peer_end_bytes(sim);
}

static u64 unread_bytes(struct p2psim_session *s)
{
	return s->filled - s->used;
}

/* Stream bytes of all blocks that are @due */
static u64 due_bytes(struct p2psim_session *s, const unsigned long *due)
{
	u32 length, offset = 0;
	u64 bytes = 0;

	while ((length = next_due(s, due, &offset))) {
		bytes += framed_bytes(length);
		offset += length;
	}
	return bytes;
}

/* What stop-copy would send, were it to begin now */
u64 p2psim_stop_copy_bytes(struct p2psim_device *sim)
{
	struct p2psim_session *s = sim->session;
	u64 bytes;

	lockdep_assert_held(&sim->data_lock);
	if (!s || !s->saving)
		return sizeof(struct stream_header) +
		       framed_bytes(sim->config.size_bytes) +
		       end_frame_bytes(sim);
	bytes = unread_bytes(s) + due_bytes(s, s->unsent);
	return s->complete ? bytes : bytes + end_frame_bytes(sim);
}

/* For what is to be sent next; returns where its payload goes */
static void *put_frame(struct p2psim_session *s, u32 type, u32 offset,
		       u32 length)
{
	struct stream_frame frame = {
		.type = cpu_to_le32(type),
		.length = cpu_to_le32(length),
		.offset = cpu_to_le64(offset),
	};

	memcpy(s->buf, &frame, sizeof(frame));
	s->used = 0;
	s->filled = sizeof(frame) + length;
	return s->buf + sizeof(frame);
}

static bool has_fault(struct p2psim_session *s, enum p2psim_fault_kind kind)
{
	return s->fault && s->fault->kind == kind;
}

static void strike(struct p2psim_session *s)
{
	if (!s->struck)
		p2psim_fault_log(s->sim->log, s->fault);
	s->struck = true;
}

/* @offset is that of a block; a block sent in part stays unsent */
static void put_data(struct p2psim_session *s, u32 offset, u32 length)
{
	u32 first = offset / BLOCK_BYTES;
	u32 last = (offset + length) / BLOCK_BYTES;
	u8 *payload = put_frame(s, STREAM_DATA, offset, length);

	if (offset + length == s->sim->config.size_bytes)
		last = blocks(s->sim);
	memcpy(payload, s->sim->memory + offset, length);
	bitmap_clear(s->unsent, first, last - first);
	bitmap_clear(s->touched, first, last - first);
	if (has_fault(s, P2PSIM_SAVE_CORRUPT) && s->fault->value >= offset &&
	    s->fault->value - offset < length) {
		payload[s->fault->value - offset] ^= 0xff;
		strike(s);
	}
}

static void put_end(struct p2psim_session *s)
{
	u32 bytes = p2psim_peer_end_bytes(s->sim);
	struct stream_end *end = put_frame(s, STREAM_END, 0, bytes);

	memset(end, 0, bytes);
	end->window = cpu_to_le32(s->sim->window);
	p2psim_peer_save(s->sim, end);
	s->crc = p2psim_checksum(s->sim, end, bytes);
	end->crc32 = cpu_to_le32(s->crc);
	s->complete = true;
}

/* How much of @count may be read before the stream ends too early */
static size_t cut_short(struct p2psim_session *s, size_t count)
{
	u64 left;

	if (!has_fault(s, P2PSIM_SAVE_SHORT) ||
	    s->sim->state != VFIO_DEVICE_STATE_STOP_COPY)
		return count;
	left = p2psim_stop_copy_bytes(s->sim);
	if (left > s->fault->value)
		return min_t(u64, count, left - s->fault->value);
	strike(s);
	return 0;
}

/* The next frame: 1, none for now: -ENOMSG, none any more: 0 */
static int save_next(struct p2psim_session *s)
{
	u32 length, offset = 0;

	if (s->sim->state != VFIO_DEVICE_STATE_STOP_COPY) {
		length = min(s->end - s->pos, FRAME_BYTES);
		if (length) {
			put_data(s, s->pos, length);
			s->pos += length;
			return 1;
		}
		length = next_due(s, s->touched, &offset);
		if (!length)
			return -ENOMSG;
		/* All that was initial has been read */
		s->initial = false;
		put_data(s, offset, length);
		return 1;
	}
	length = next_due(s, s->unsent, &offset);
	if (length)
		put_data(s, offset, length);
	else if (!s->complete)
		put_end(s);
	else
		return 0;
	return 1;
}

/* The first @bytes of memory come next in precopy, sent before or not */
static void again(struct p2psim_session *s, u32 bytes)
{
	s->pos = 0;
	s->end = bytes;
	bitmap_set(s->unsent, 0, DIV_ROUND_UP(bytes, BLOCK_BYTES));
	bitmap_clear(s->touched, 0, bytes / BLOCK_BYTES);
	wake_up_all(&s->wait);
}

/* As when the device was given something new that its peer must prepare for */
static void renew_initial(struct p2psim_session *s)
{
	u32 bytes = s->sim->config.initial_bytes;

	s->renewed = true;
	again(s, bytes);
	/* For a user who has not opted in, it is dirt like any other */
	s->initial = s->sim->info_v2;
	s->reinit = s->sim->info_v2;
	p2psim_log(s->sim->log, "reinit initial_bytes=%u announced=%d", bytes,
		   s->reinit);
}

/* A reader has seen precopy drained: time for new dirt */
static void save_drained(struct p2psim_session *s)
{
	s->initial = false;
	again(s, s->sim->config.dirty_bytes);
	s->drains++;
	if (!s->renewed && s->drains == s->sim->config.reinit_drain)
		renew_initial(s);
}

/* What precopy would still send, were nothing to change, but for @touched */
static u64 planned_bytes(struct p2psim_session *s)
{
	return unread_bytes(s) + framed_bytes(s->end - s->pos);
}

/* How much of @count could be read now */
static size_t ready_bytes(struct p2psim_session *s, size_t count)
{
	u64 left;

	lockdep_assert_held(&s->sim->data_lock);
	if (s->sim->state != VFIO_DEVICE_STATE_STOP_COPY)
		return min_t(u64, count, planned_bytes(s) +
					 due_bytes(s, s->touched));
	left = p2psim_stop_copy_bytes(s->sim);
	if (has_fault(s, P2PSIM_SAVE_SHORT))
		left -= min_t(u64, left, s->fault->value);
	return min_t(u64, count, left);
}

/* Takes the time of what can be read now */
static int save_pay(struct p2psim_session *s, size_t count)
{
	size_t ready = 0;

	scoped_guard(mutex, &s->sim->data_lock) {
		if (!s->ended)
			ready = ready_bytes(s, count);
	}
	return p2psim_session_pay(s, ready, s->sim->config.read_ns_per_kib);
}

/* -EAGAIN: nothing was there to be paid for, but now there is something */
static ssize_t save_bytes(struct p2psim_session *s, char __user *buf,
			  size_t count)
{
	size_t n, done = 0;
	int ret;

	guard(mutex)(&s->sim->data_lock);
	if (s->ended)
		return -ENODEV;
	if (s->sim->config.read_ns_per_kib && ready_bytes(s, count)) {
		if (!s->paid)
			return -EAGAIN;
		count = min_t(u64, count, s->paid);
	}
	s->queries = 0;
	while (done < count) {
		n = cut_short(s, count - done);
		if (!n)
			break;
		if (s->used == s->filled) {
			ret = save_next(s);
			if (ret <= 0 && done)
				break;
			if (ret == -ENOMSG)
				save_drained(s);
			if (ret <= 0)
				return ret;
		}
		n = min(n, s->filled - s->used);
		if (copy_to_user(buf + done, s->buf + s->used, n)) {
			if (!done)
				return -EFAULT;
			break;
		}
		s->used += n;
		s->bytes += n;
		done += n;
	}
	return done;
}

static ssize_t save_read(struct file *filp, char __user *buf, size_t count,
			 loff_t *pos)
{
	struct p2psim_session *s = filp->private_data;
	ssize_t done;

	if (pos)
		return -ESPIPE;
	done = mutex_lock_killable(&s->io_lock);
	if (done)
		return done;
	do {
		done = save_pay(s, count);
		if (!done)
			done = save_bytes(s, buf, count);
	} while (done == -EAGAIN);
	if (done > 0)
		s->paid -= min_t(u64, s->paid, done);
	mutex_unlock(&s->io_lock);
	return done;
}

/* Would read() bring something: data, the end, or that all is over? */
static bool is_readable(struct p2psim_session *s)
{
	lockdep_assert_held(&s->sim->data_lock);
	return s->ended || s->sim->state == VFIO_DEVICE_STATE_STOP_COPY ||
	       s->used < s->filled || s->pos < s->end ||
	       !bitmap_empty(s->touched, blocks(s->sim));
}

/*
 * As mlx5_vfio_pci: the temporary end of precopy is nothing to read, though
 * read() does not wait there
 */
static __poll_t save_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct p2psim_session *s = filp->private_data;
	__poll_t events = 0;

	poll_wait(filp, &s->wait, wait);
	guard(mutex)(&s->sim->data_lock);
	if (is_readable(s))
		events |= EPOLLIN | EPOLLRDNORM;
	if (s->ended)
		events |= EPOLLRDHUP;
	return events;
}

static long save_precopy_info(struct p2psim_session *s, void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_precopy_info, dirty_bytes);
	struct vfio_precopy_info info = {};
	u64 bytes, touched;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	scoped_guard(mutex, &s->sim->data_lock) {
		if (s->ended || s->sim->state == VFIO_DEVICE_STATE_STOP_COPY)
			return -EINVAL;
		s->queries++;
		if (!s->renewed && s->queries == s->sim->config.reinit_query)
			renew_initial(s);
		bytes = planned_bytes(s);
		touched = due_bytes(s, s->touched);
		info.flags = s->reinit ? VFIO_PRECOPY_INFO_REINIT : 0;
		s->reinit = false;
		info.initial_bytes = s->initial ? bytes : 0;
		info.dirty_bytes = touched + (s->initial ? 0 : bytes);
	}
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long save_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	if (cmd != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	return save_precopy_info(filp->private_data, (void __user *)arg);
}

/* Will precopy still send all of a block, without being told? */
static bool is_ahead(struct p2psim_session *s, u32 block)
{
	return block >= DIV_ROUND_UP(s->pos, BLOCK_BYTES) &&
	       block < s->end / BLOCK_BYTES;
}

/*
 * Memory has changed: it has to be sent, again if need be.  Precopy does that
 * while it lasts, and stop-copy does the rest.
 */
void p2psim_session_touch(struct p2psim_device *sim, u32 offset, u32 length)
{
	struct p2psim_session *s = sim->session;
	u32 block;

	lockdep_assert_held(&sim->data_lock);
	if (!s || !s->saving || !length)
		return;
	for (block = offset / BLOCK_BYTES;
	     block <= (offset + length - 1) / BLOCK_BYTES; block++) {
		set_bit(block, s->unsent);
		if (!is_ahead(s, block))
			set_bit(block, s->touched);
	}
	wake_up_all(&s->wait);
}

const struct file_operations p2psim_save_fops = {
	.owner = THIS_MODULE,
	.read = save_read,
	.poll = save_poll,
	.unlocked_ioctl = save_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = p2psim_session_release,
};

/* Everything is unsent; the header goes first */
int p2psim_save_start(struct p2psim_session *s)
{
	struct stream_header header = {
		.magic = cpu_to_le64(STREAM_MAGIC),
		.version = cpu_to_le32(STREAM_VERSION),
		.size_bytes = cpu_to_le64(s->sim->config.size_bytes),
	};

	s->fault = p2psim_fault_save(s->sim);
	s->unsent = bitmap_alloc(blocks(s->sim), GFP_KERNEL_ACCOUNT);
	s->touched = bitmap_zalloc(blocks(s->sim), GFP_KERNEL_ACCOUNT);
	if (!s->unsent || !s->touched)
		return -ENOMEM;
	bitmap_fill(s->unsent, blocks(s->sim));
	memcpy(s->buf, &header, sizeof(header));
	s->filled = sizeof(header);
	s->initial = true;
	s->end = s->sim->config.initial_bytes;
	return 0;
}
