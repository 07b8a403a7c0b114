// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device's own log of events: bounded text in debugfs
 *
 * The log keeps the first events and counts what it can no longer hold.
 * Keeping the last ones instead would lose the start of a sequence, which a
 * reader cannot tell from a sequence that started differently.
 */
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "p2psim.h"

#define LOG_BYTES	(256u << 10)
/* Room for the line that tells how many events were dropped */
#define LOG_TAIL_BYTES	64u

/**
 * struct p2psim_log - events of one configured device
 * @lock: protects everything below
 * @used: bytes of whole lines in @text
 * @tail: bytes of the "dropped" line behind them, 0 while nothing is missing
 * @dropped: events that found no room
 * @dir: debugfs directory, or NULL
 * @text: the lines
 */
struct p2psim_log {
	struct mutex lock;		/* see above */
	size_t used;
	size_t tail;
	u64 dropped;
	struct dentry *dir;
	char text[LOG_BYTES + LOG_TAIL_BYTES];
};

static struct dentry *log_root;

void p2psim_log(struct p2psim_log *log, const char *fmt, ...)
{
	size_t room;
	va_list args;
	u64 now;
	int len;

	guard(mutex)(&log->lock);
	now = ktime_get_real_ns();
	room = LOG_BYTES - log->used;
	if (!log->dropped) {
		char *line = log->text + log->used;

		len = scnprintf(line, room, "%llu ", now);
		va_start(args, fmt);
		len += vsnprintf(line + len, room - len, fmt, args);
		va_end(args);
		if (len + 1 < room) {
			line[len] = '\n';
			log->used += len + 1;
			return;
		}
	}
	/* Once one is missing, the rest is too: no holes in the middle */
	log->dropped++;
	log->tail = scnprintf(log->text + log->used, LOG_TAIL_BYTES,
			      "%llu dropped count=%llu\n", now, log->dropped);
}

static ssize_t log_read(struct file *filp, char __user *buf, size_t count,
			loff_t *pos)
{
	struct p2psim_log *log = filp->private_data;

	guard(mutex)(&log->lock);
	return simple_read_from_buffer(buf, count, pos, log->text,
				       log->used + log->tail);
}

static const struct file_operations log_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = log_read,
	.llseek = default_llseek,
};

/* Left out of the kernel, or switched off by "debugfs=off" */
static bool is_off(long error)
{
	return error == -ENODEV || error == -EPERM;
}

static int log_publish(struct p2psim_log *log, const char *name)
{
	struct dentry *dir, *file;

	if (IS_ERR(log_root))
		return 0;
	dir = debugfs_create_dir(name, log_root);
	if (IS_ERR(dir))
		return PTR_ERR(dir);
	log->dir = dir;
	file = debugfs_create_file("log", 0444, dir, log, &log_fops);
	return PTR_ERR_OR_ZERO(file);
}

void p2psim_log_destroy(struct p2psim_log *log)
{
	/* Waits for readers */
	debugfs_remove_recursive(log->dir);
	mutex_destroy(&log->lock);
	kvfree(log);
}

/* A log that nobody can find is an error, unless there is no debugfs at all */
struct p2psim_log *p2psim_log_create(const char *name)
{
	struct p2psim_log *log = kvzalloc(sizeof(*log), GFP_KERNEL);
	int ret;

	if (!log)
		return ERR_PTR(-ENOMEM);
	mutex_init(&log->lock);
	log->used = scnprintf(log->text, LOG_BYTES,
			      "p2psim-log version=6 clock=CLOCK_REALTIME\n");
	ret = log_publish(log, name);
	if (ret) {
		p2psim_log_destroy(log);
		return ERR_PTR(ret);
	}
	return log;
}

int p2psim_log_init(void)
{
	log_root = debugfs_create_dir(KBUILD_MODNAME, NULL);
	if (!IS_ERR(log_root))
		return 0;
	if (!is_off(PTR_ERR(log_root)))
		return PTR_ERR(log_root);
	pr_warn(KBUILD_MODNAME ": debugfs is off, so nobody can read the logs\n");
	return 0;
}

void p2psim_log_exit(void)
{
	debugfs_remove_recursive(log_root);
}
