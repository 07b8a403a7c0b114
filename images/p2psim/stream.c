// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Data sessions: begin, end, and what both directions share
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
#include <linux/hrtimer.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "stream.h"

/* That of zlib, over the memory and then the end frame behind its checksum */
u32 p2psim_checksum(struct p2psim_device *sim, const struct stream_end *end,
		    size_t bytes)
{
	size_t skipped = offsetofend(struct stream_end, crc32);
	u32 crc = crc32_le(~0, sim->memory, sim->config.size_bytes);

	return ~crc32_le(crc, (const u8 *)end + skipped, bytes - skipped);
}

/*
 * Killable and no more, as an arc.  The end of the session ends it, too: then
 * nothing will be moved any more.
 */
static int sleep_ns(struct p2psim_session *s, u64 ns)
{
	ktime_t end = ktime_add_ns(ktime_get(), ns);
	DEFINE_WAIT(wait);
	int ret = 0;

	for (;;) {
		prepare_to_wait(&s->wait, &wait, TASK_KILLABLE);
		if (READ_ONCE(s->ended) || !ktime_before(ktime_get(), end))
			break;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		schedule_hrtimeout(&end, HRTIMER_MODE_ABS);
	}
	finish_wait(&s->wait, &wait);
	return ret;
}

/* Takes the time of as many of @bytes as have not been paid for before */
int p2psim_session_pay(struct p2psim_session *s, u64 bytes, u32 ns_per_kib)
{
	u64 scaled;
	int ret;

	lockdep_assert_held(&s->io_lock);
	if (bytes <= s->paid)
		return 0;
	scaled = (bytes - s->paid) * ns_per_kib + s->unslept;
	if (scaled >> 10) {
		ret = sleep_ns(s, scaled >> 10);
		if (ret)
			return ret;
	}
	s->unslept = scaled & 1023;
	s->paid = bytes;
	return 0;
}

static void session_free(struct p2psim_session *s)
{
	bitmap_free(s->unsent);
	bitmap_free(s->touched);
	mutex_destroy(&s->io_lock);
	kvfree(s);
}

int p2psim_session_release(struct inode *inode, struct file *filp)
{
	struct p2psim_session *s = filp->private_data;

	vfio_put_device(&s->sim->vdev);
	session_free(s);
	return 0;
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
	init_waitqueue_head(&s->wait);
	mutex_init(&s->io_lock);
	if (saving)
		ret = p2psim_save_start(s);
	if (ret)
		goto err_free;
	filp = anon_inode_getfile("p2psim-migration",
				  saving ? &p2psim_save_fops :
					   &p2psim_load_fops, s,
				  saving ? O_RDONLY : O_WRONLY);
	if (IS_ERR(filp)) {
		ret = PTR_ERR(filp);
		goto err_free;
	}
	stream_open(file_inode(filp), filp);
	if (!saving)
		p2psim_load_start(s);
	get_device(&sim->vdev.device);
	s->filp = get_file(filp);
	sim->session = s;
	return filp;

err_free:
	session_free(s);
	return ERR_PTR(ret);
}

/* There may be more to read than before */
void p2psim_session_wake(struct p2psim_device *sim)
{
	lockdep_assert_held(&sim->data_lock);
	if (sim->session)
		wake_up_all(&sim->session->wait);
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
			   s->bytes, s->phase == LOAD_DONE && !s->broken &&
			   !s->refused);
	sim->session = NULL;
	WRITE_ONCE(s->ended, true);
	wake_up_all(&s->wait);
	fput(s->filp);
}
