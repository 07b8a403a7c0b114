// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Data sessions: what is read from a saving device and written to a resuming
 *
 * A stream is a header, data frames in any order and number, and an end
 * frame with a checksum over the whole memory as it is after all of them.
 * Precopy sends frames early and may send the same memory again; what it has
 * sent and nobody has changed since is not sent by stop-copy.  So the
 * checksum proves the precopy data as well.
 */
#include <linux/anon_inodes.h>
#include <linux/bitmap.h>
#include <linux/crc32.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "p2psim.h"

#define STREAM_MAGIC	0x4d41455254533250ULL	/* "P2STREAM" */
#define STREAM_VERSION	1
#define STREAM_DATA	1
#define STREAM_END	2

/* Granule of "not sent yet", and the largest data frame */
#define BLOCK_BYTES	4096u
#define FRAME_BYTES	(16u * BLOCK_BYTES)

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

struct stream_end {
	__le32 window;
	__le32 crc32;
};

#define END_BYTES	(sizeof(struct stream_frame) + \
			 sizeof(struct stream_end))

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
 * @filp: the file of the fd; referenced while the session has not ended
 * @saving: direction
 * @ended: the device has let go of the session: @sim may only be unlocked
 * @bytes: moved through the fd so far
 * @used: saving: bytes of @buf already read; loading: bytes of a part here
 * @filled: saving: bytes in @buf; loading: bytes the part has
 * @unsent: saving: blocks that stop-copy has to send
 * @initial: saving: precopy is still at its initial data
 * @pos: saving: where precopy goes on; loading: where the data goes
 * @end: saving: where precopy is drained
 * @complete: saving: the end frame is in @buf, or was
 * @crc: saving: checksum sent
 * @phase: loading: which part comes
 * @broken: loading: the stream made no sense
 * @buf: saving: frame on its way out; loading: header, frame or end
 */
struct p2psim_session {
	struct p2psim_device *sim;
	struct file *filp;
	bool saving;
	bool ended;
	u64 bytes;
	size_t used;
	size_t filled;

	unsigned long *unsent;
	bool initial;
	u32 pos;
	u32 end;
	bool complete;
	u32 crc;

	enum load_phase phase;
	bool broken;

	u8 buf[sizeof(struct stream_frame) + FRAME_BYTES];
};

static u32 blocks(struct p2psim_device *sim)
{
	return DIV_ROUND_UP(sim->config.size_bytes, BLOCK_BYTES);
}

static u32 checksum(struct p2psim_device *sim, __le32 window)
{
	u32 crc = crc32_le(~0, sim->memory, sim->config.size_bytes);

	return ~crc32_le(crc, (u8 *)&window, sizeof(window));
}

/* Stream bytes that @length bytes of memory in a row take */
static u64 framed_bytes(u32 length)
{
	return length + (u64)DIV_ROUND_UP(length, FRAME_BYTES) *
			sizeof(struct stream_frame);
}

/* Next memory for stop-copy at or behind @offset: its length, 0 if none */
static u32 next_unsent(struct p2psim_session *s, u32 *offset)
{
	u32 nblocks = blocks(s->sim);
	u32 first, last;

	first = find_next_bit(s->unsent, nblocks, *offset / BLOCK_BYTES);
	if (first >= nblocks)
		return 0;
	last = find_next_zero_bit(s->unsent,
				  min(nblocks,
				      first + FRAME_BYTES / BLOCK_BYTES),
				  first);
	*offset = first * BLOCK_BYTES;
	return min(last * BLOCK_BYTES, s->sim->config.size_bytes) - *offset;
}

static u64 unread_bytes(struct p2psim_session *s)
{
	return s->filled - s->used;
}

/* What stop-copy would send, were it to begin now */
u64 p2psim_stop_copy_bytes(struct p2psim_device *sim)
{
	struct p2psim_session *s = sim->session;
	u32 length, offset = 0;
	u64 bytes;

	lockdep_assert_held(&sim->data_lock);
	if (!s || !s->saving)
		return sizeof(struct stream_header) +
		       framed_bytes(sim->config.size_bytes) + END_BYTES;
	bytes = unread_bytes(s);
	while ((length = next_unsent(s, &offset))) {
		bytes += framed_bytes(length);
		offset += length;
	}
	return s->complete ? bytes : bytes + END_BYTES;
}

static void put_frame(struct p2psim_session *s, u32 type, u32 offset,
		      const void *payload, u32 length)
{
	struct stream_frame frame = {
		.type = cpu_to_le32(type),
		.length = cpu_to_le32(length),
		.offset = cpu_to_le64(offset),
	};

	memcpy(s->buf, &frame, sizeof(frame));
	memcpy(s->buf + sizeof(frame), payload, length);
	s->used = 0;
	s->filled = sizeof(frame) + length;
}

/* @offset is that of a block; a block sent in part stays unsent */
static void put_data(struct p2psim_session *s, u32 offset, u32 length)
{
	u32 first = offset / BLOCK_BYTES;
	u32 last = (offset + length) / BLOCK_BYTES;

	if (offset + length == s->sim->config.size_bytes)
		last = blocks(s->sim);
	put_frame(s, STREAM_DATA, offset, s->sim->memory + offset, length);
	bitmap_clear(s->unsent, first, last - first);
}

static void put_end(struct p2psim_session *s)
{
	struct stream_end end = { .window = cpu_to_le32(s->sim->window) };

	s->crc = checksum(s->sim, end.window);
	end.crc32 = cpu_to_le32(s->crc);
	put_frame(s, STREAM_END, 0, &end, sizeof(end));
	s->complete = true;
}

/* The next frame: 1, none for now: -ENOMSG, none any more: 0 */
static int save_next(struct p2psim_session *s)
{
	u32 length, offset = 0;

	if (s->sim->state != VFIO_DEVICE_STATE_STOP_COPY) {
		if (s->pos == s->end)
			return -ENOMSG;
		length = min(s->end - s->pos, FRAME_BYTES);
		put_data(s, s->pos, length);
		s->pos += length;
		return 1;
	}
	length = next_unsent(s, &offset);
	if (length)
		put_data(s, offset, length);
	else if (!s->complete)
		put_end(s);
	else
		return 0;
	return 1;
}

/* A reader has seen precopy drained: time for new dirt */
static void save_drained(struct p2psim_session *s)
{
	u32 dirty = s->sim->config.dirty_bytes;

	s->initial = false;
	s->pos = 0;
	s->end = dirty;
	bitmap_set(s->unsent, 0, DIV_ROUND_UP(dirty, BLOCK_BYTES));
}

static ssize_t save_read(struct file *filp, char __user *buf, size_t count,
			 loff_t *pos)
{
	struct p2psim_session *s = filp->private_data;
	size_t n, done = 0;
	int ret;

	if (pos)
		return -ESPIPE;
	guard(mutex)(&s->sim->data_lock);
	if (s->ended)
		return -ENODEV;
	while (done < count) {
		if (s->used == s->filled) {
			ret = save_next(s);
			if (ret <= 0 && done)
				break;
			if (ret == -ENOMSG)
				save_drained(s);
			if (ret <= 0)
				return ret;
		}
		n = min(count - done, s->filled - s->used);
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

static long save_precopy_info(struct p2psim_session *s, void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_precopy_info, dirty_bytes);
	struct vfio_precopy_info info = {};
	u64 bytes;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	scoped_guard(mutex, &s->sim->data_lock) {
		if (s->ended)
			return -ENODEV;
		if (s->sim->state == VFIO_DEVICE_STATE_STOP_COPY)
			return -EINVAL;
		bytes = unread_bytes(s) + framed_bytes(s->end - s->pos);
		info.flags = 0;
		info.initial_bytes = s->initial ? bytes : 0;
		info.dirty_bytes = s->initial ? 0 : bytes;
	}
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long save_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	if (cmd != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	return save_precopy_info(filp->private_data, (void __user *)arg);
}

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
		if (length != sizeof(struct stream_end) || offset)
			return -EINVAL;
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

static ssize_t load_write(struct file *filp, const char __user *buf,
			  size_t count, loff_t *pos)
{
	struct p2psim_session *s = filp->private_data;
	size_t n, done = 0;
	u8 *to;

	if (pos)
		return -ESPIPE;
	guard(mutex)(&s->sim->data_lock);
	if (s->ended)
		return -ENODEV;
	while (done < count) {
		if (s->phase == LOAD_DONE)
			s->broken = true;
		if (s->broken)
			return -EINVAL;
		to = s->phase == LOAD_DATA ? s->sim->memory + s->pos : s->buf;
		n = min(count - done, s->filled - s->used);
		if (copy_from_user(to + s->used, buf + done, n))
			return done ?: -EFAULT;
		s->used += n;
		s->bytes += n;
		done += n;
		if (s->used == s->filled && load_next(s))
			s->broken = true;
	}
	return s->broken ? -EINVAL : done;
}

/* The resuming device has got it all: is it what was sent? */
int p2psim_session_verify(struct p2psim_device *sim)
{
	struct p2psim_session *s = sim->session;
	struct stream_end *end = (struct stream_end *)s->buf;
	u32 crc;

	lockdep_assert_held(&sim->data_lock);
	if (s->broken || s->phase != LOAD_DONE) {
		p2psim_log(sim->log, "checksum bad reason=%s",
			   s->broken ? "broken" : "short");
		return -EINVAL;
	}
	crc = checksum(sim, end->window);
	if (crc != le32_to_cpu(end->crc32) ||
	    le32_to_cpu(end->window) >= sim->config.size_bytes) {
		p2psim_log(sim->log,
			   "checksum bad reason=mismatch sent=%08x found=%08x",
			   le32_to_cpu(end->crc32), crc);
		return -EINVAL;
	}
	sim->window = le32_to_cpu(end->window);
	p2psim_log(sim->log, "checksum ok crc32=%08x", crc);
	return 0;
}

/* Memory has changed: stop-copy has to send it, again if need be */
void p2psim_session_touch(struct p2psim_device *sim, u32 offset, u32 length)
{
	struct p2psim_session *s = sim->session;

	lockdep_assert_held(&sim->data_lock);
	if (!s || !s->saving || !length)
		return;
	bitmap_set(s->unsent, offset / BLOCK_BYTES,
		   (offset + length - 1) / BLOCK_BYTES - offset / BLOCK_BYTES +
		   1);
}

static int session_release(struct inode *inode, struct file *filp)
{
	struct p2psim_session *s = filp->private_data;

	vfio_put_device(&s->sim->vdev);
	bitmap_free(s->unsent);
	kvfree(s);
	return 0;
}

static const struct file_operations save_fops = {
	.owner = THIS_MODULE,
	.read = save_read,
	.unlocked_ioctl = save_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = session_release,
};

static const struct file_operations load_fops = {
	.owner = THIS_MODULE,
	.write = load_write,
	.release = session_release,
};

static int save_start(struct p2psim_session *s)
{
	struct stream_header header = {
		.magic = cpu_to_le64(STREAM_MAGIC),
		.version = cpu_to_le32(STREAM_VERSION),
		.size_bytes = cpu_to_le64(s->sim->config.size_bytes),
	};

	s->unsent = bitmap_alloc(blocks(s->sim), GFP_KERNEL_ACCOUNT);
	if (!s->unsent)
		return -ENOMEM;
	bitmap_fill(s->unsent, blocks(s->sim));
	memcpy(s->buf, &header, sizeof(header));
	s->filled = sizeof(header);
	s->initial = true;
	s->end = s->sim->config.initial_bytes;
	return 0;
}

static void load_start(struct p2psim_session *s)
{
	load_expect(s, LOAD_HEADER, sizeof(struct stream_header));
	/* Nothing that was here before may pass for loaded */
	memset(s->sim->memory, 0, s->sim->config.size_bytes);
}

/* Returns the file for the user; the session has a reference of its own */
struct file *p2psim_session_start(struct p2psim_device *sim, bool saving)
{
	struct p2psim_session *s;
	struct file *filp;
	int ret = 0;

	lockdep_assert_held(&sim->data_lock);
	s = kvzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	if (!s)
		return ERR_PTR(-ENOMEM);
	s->sim = sim;
	s->saving = saving;
	if (saving)
		ret = save_start(s);
	if (ret)
		goto err_free;
	filp = anon_inode_getfile("p2psim-migration",
				  saving ? &save_fops : &load_fops, s,
				  saving ? O_RDONLY : O_WRONLY);
	if (IS_ERR(filp)) {
		ret = PTR_ERR(filp);
		goto err_free;
	}
	stream_open(file_inode(filp), filp);
	if (!saving)
		load_start(s);
	get_device(&sim->vdev.device);
	s->filp = get_file(filp);
	sim->session = s;
	return filp;

err_free:
	bitmap_free(s->unsent);
	kvfree(s);
	return ERR_PTR(ret);
}

void p2psim_session_end(struct p2psim_device *sim)
{
	struct p2psim_session *s = sim->session;

	lockdep_assert_held(&sim->data_lock);
	if (!s)
		return;
	if (s->saving)
		p2psim_log(sim->log, "saved bytes=%llu complete=%d crc32=%08x",
			   s->bytes, s->complete && s->used == s->filled,
			   s->crc);
	else
		p2psim_log(sim->log, "loaded bytes=%llu complete=%d",
			   s->bytes, s->phase == LOAD_DONE && !s->broken);
	sim->session = NULL;
	s->ended = true;
	fput(s->filp);
}
