// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Faults: what they look like in configfs, and when one strikes
 *
 * A fault strikes at one try of something, counted since the device went
 * live, and not at a time: so it strikes at the same place in every run.
 */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>

#include "p2psim.h"

enum fault_unit {
	UNIT_ERRNO,
	UNIT_MICROSECONDS,
	UNIT_BYTES,
	UNIT_PAGES,
};

static const struct {
	const char *event;
	const char *effect;
	enum fault_unit unit;
} kinds[] = {
	[P2PSIM_ARC_FAIL] = { "arc", "fail", UNIT_ERRNO },
	[P2PSIM_ARC_ERROR] = { "arc", "error", UNIT_ERRNO },
	[P2PSIM_ARC_HANG] = { "arc", "hang", UNIT_MICROSECONDS },
	[P2PSIM_ARC_LATE] = { "arc", "late", UNIT_MICROSECONDS },
	[P2PSIM_SAVE_CORRUPT] = { "save", "corrupt", UNIT_BYTES },
	[P2PSIM_SAVE_SHORT] = { "save", "short", UNIT_BYTES },
	[P2PSIM_RESET_FAIL] = { "reset", "fail", UNIT_ERRNO },
	[P2PSIM_REPORT_SHORT] = { "report", "short", UNIT_PAGES },
	[P2PSIM_REPORT_LATE] = { "report", "late", UNIT_PAGES },
};

#define NAMED(name) { #name, name }

static const struct {
	const char *name;
	int number;
} errnos[] = {
	NAMED(EPERM), NAMED(EIO), NAMED(EAGAIN), NAMED(ENOMEM), NAMED(EFAULT),
	NAMED(EBUSY), NAMED(ENODEV), NAMED(EINVAL), NAMED(ENOTTY),
	NAMED(ENOSPC), NAMED(EOPNOTSUPP), NAMED(ETIMEDOUT),
};

static int parse_kind(const char *event, const char *effect)
{
	int kind;

	for (kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		if (!strcmp(event, kinds[kind].event) &&
		    !strcmp(effect, kinds[kind].effect))
			return kind;
	}
	return -EINVAL;
}

static int parse_errno(const char *word, u32 *value)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(errnos); i++) {
		if (!strcmp(word, errnos[i].name)) {
			*value = errnos[i].number;
			return 0;
		}
	}
	return -EINVAL;
}

static const char *errno_name(u32 value)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(errnos) - 1; i++) {
		if (value == errnos[i].number)
			break;
	}
	return errnos[i].name;
}

static int parse_value(const char *word, enum fault_unit unit, u32 *value)
{
	if (unit == UNIT_ERRNO)
		return parse_errno(word, value);
	if (kstrtou32(word, 10, value))
		return -EINVAL;
	if (unit == UNIT_MICROSECONDS && *value > P2PSIM_HANG_MAX_US)
		return -EINVAL;
	return 0;
}

/* "arc FROM TO N EFFECT VALUE" or "save|reset|report N EFFECT VALUE" */
int p2psim_fault_parse(char *line, struct p2psim_fault *fault)
{
	int count, kind, from, to;
	char *words[6], **tail;

	count = p2psim_split(line, words, ARRAY_SIZE(words));
	if (count < 4)
		return -EINVAL;
	tail = words + count - 3;
	kind = parse_kind(words[0], tail[1]);
	if (kind < 0)
		return -EINVAL;
	*fault = (struct p2psim_fault) { .kind = kind };
	if (!strcmp(words[0], "arc")) {
		if (count != 6)
			return -EINVAL;
		from = p2psim_state_parse(words[1]);
		to = p2psim_state_parse(words[2]);
		if (from < 0 || to < 0 || !p2psim_is_arc(from, to))
			return -EINVAL;
		fault->from = from;
		fault->to = to;
	} else if (count != 4) {
		return -EINVAL;
	}
	if (kstrtou32(tail[0], 10, &fault->nth))
		return -EINVAL;
	return parse_value(tail[2], kinds[kind].unit, &fault->value);
}

int p2psim_fault_print(char *buf, size_t bytes,
		       const struct p2psim_fault *fault)
{
	const char *event = kinds[fault->kind].event;
	int len = scnprintf(buf, bytes, "%s ", event);

	if (!strcmp(event, "arc"))
		len += scnprintf(buf + len, bytes - len, "%s %s ",
				 p2psim_state_name(fault->from),
				 p2psim_state_name(fault->to));
	len += scnprintf(buf + len, bytes - len, "%u %s ", fault->nth,
			 kinds[fault->kind].effect);
	if (kinds[fault->kind].unit == UNIT_ERRNO)
		return len + scnprintf(buf + len, bytes - len, "%s",
				       errno_name(fault->value));
	return len + scnprintf(buf + len, bytes - len, "%u", fault->value);
}

void p2psim_fault_log(struct p2psim_log *log,
		      const struct p2psim_fault *fault)
{
	char line[P2PSIM_FAULT_LINE];

	p2psim_fault_print(line, sizeof(line), fault);
	p2psim_log(log, "fault %s", line);
}

/* The first line that fits the @nth try of @event; states for arcs only */
static const struct p2psim_fault *
find_fault(const struct p2psim_config *config, const char *event, u8 from,
	   u8 to, u32 nth)
{
	const struct p2psim_fault *fault;

	for (fault = config->faults;
	     fault < config->faults + config->nfaults; fault++) {
		if (!strcmp(event, kinds[fault->kind].event) &&
		    fault->from == from && fault->to == to &&
		    (!fault->nth || fault->nth == nth))
			return fault;
	}
	return NULL;
}

/* The arc to @to is tried: does a fault strike? */
const struct p2psim_fault *p2psim_fault_arc(struct p2psim_device *sim,
					    enum vfio_device_mig_state to)
{
	const struct p2psim_fault *fault;
	u32 nth;

	lockdep_assert_held(&sim->state_lock);
	nth = ++sim->tries[sim->state][to];
	fault = find_fault(&sim->config, "arc", sim->state, to, nth);
	if (fault)
		p2psim_fault_log(sim->log, fault);
	return fault;
}

/* A saving session starts; the fault strikes when its place is read */
const struct p2psim_fault *p2psim_fault_save(struct p2psim_device *sim)
{
	lockdep_assert_held(&sim->state_lock);
	return find_fault(&sim->config, "save", 0, 0, ++sim->saves);
}

const struct p2psim_fault *p2psim_fault_reset(struct p2psim_device *sim)
{
	const struct p2psim_fault *fault;

	lockdep_assert_held(&sim->state_lock);
	fault = find_fault(&sim->config, "reset", 0, 0, ++sim->resets);
	if (fault)
		p2psim_fault_log(sim->log, fault);
	return fault;
}

/* The @nth report of DMA logging; who counts them has a lock for it */
const struct p2psim_fault *
p2psim_fault_report(const struct p2psim_config *config, struct p2psim_log *log,
		    u32 nth)
{
	const struct p2psim_fault *fault;

	fault = find_fault(config, "report", 0, 0, nth);
	if (fault)
		p2psim_fault_log(log, fault);
	return fault;
}
