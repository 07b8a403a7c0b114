// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Slots: what is known of a PCI address
 *
 * The directory in configfs and the VF itself come and go on their own, and
 * either may be there first.  A slot is there while one of them is; so the
 * log of a VF that has a directory stays when the VF is unbound.
 */
#include <linux/err.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "configfs.h"
#include "p2pvf.h"

static DEFINE_MUTEX(slots);
static LIST_HEAD(slot_list);

static struct p2pvf_slot *find_slot(const char *address)
{
	struct p2pvf_slot *slot;

	list_for_each_entry(slot, &slot_list, node) {
		if (!strcmp(slot->address, address))
			return slot;
	}
	return NULL;
}

static struct p2pvf_slot *add_slot(const char *address)
{
	struct p2pvf_slot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);

	if (!slot)
		return NULL;
	slot->log = p2psim_log_create(address);
	if (IS_ERR(slot->log)) {
		kfree(slot);
		return NULL;
	}
	strscpy(slot->address, address);
	list_add(&slot->node, &slot_list);
	return slot;
}

/* NULL: no memory */
struct p2pvf_slot *p2pvf_slot_get(const char *address)
{
	struct p2pvf_slot *slot;

	guard(mutex)(&slots);
	slot = find_slot(address) ?: add_slot(address);
	if (slot)
		slot->users++;
	return slot;
}

void p2pvf_slot_put(struct p2pvf_slot *slot)
{
	guard(mutex)(&slots);
	if (--slot->users)
		return;
	list_del(&slot->node);
	if (slot->log)
		p2psim_log_destroy(slot->log);
	kfree(slot);
}

static void renew_log(struct p2pvf_slot *slot)
{
	lockdep_assert_held(&slots);
	/* First, as both have the same name in debugfs */
	if (slot->log)
		p2psim_log_destroy(slot->log);
	slot->log = p2psim_log_create(slot->address);
	if (IS_ERR(slot->log))
		slot->log = NULL;
}

static void set_opened(struct p2pvf_slot *slot, struct device *dev)
{
	lockdep_assert_held(&slots);
	slot->opened = dev;
	if (!slot->item)
		return;
	/* With a device there, the attributes refuse to be written */
	guard(mutex)(&slot->item->lock);
	slot->item->dev = dev;
}

/*
 * The directory is there: it counts when the VF is opened next.  So does a new
 * log, since the old one has no room for an endless series of users.
 */
void p2pvf_slot_attach(struct p2pvf_slot *slot, struct p2psim_item *item)
{
	guard(mutex)(&slots);
	slot->item = item;
	if (!slot->opened)
		renew_log(slot);
	set_opened(slot, slot->opened);
}

void p2pvf_slot_detach(struct p2pvf_slot *slot)
{
	guard(mutex)(&slots);
	slot->item = NULL;
}

void p2pvf_default_config(struct p2psim_config *config)
{
	*config = (struct p2psim_config) {
		.flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P |
			 VFIO_MIGRATION_PRE_COPY,
		.size_bytes = 65536,
		.initial_bytes = 4096,
		.seed = 1,
		/* No peers and no writes, but the attributes look at these */
		.peer_period_us = P2PSIM_PERIOD_MAX_US,
		.dma_period_us = P2PSIM_PERIOD_MAX_US,
	};
}

static void get_config(struct p2pvf_slot *slot, struct p2psim_config *config)
{
	lockdep_assert_held(&slots);
	if (!slot->item) {
		p2pvf_default_config(config);
		return;
	}
	guard(mutex)(&slot->item->lock);
	*config = slot->item->config;
}

void p2pvf_slot_config(struct p2pvf_slot *slot, struct p2psim_config *config)
{
	guard(mutex)(&slots);
	get_config(slot, config);
}

/*
 * From here on, until p2pvf_slot_close(), the configuration and the log are
 * fixed.  Returns the log; NULL: no memory, and nothing is to be closed.
 */
struct p2psim_log *p2pvf_slot_open(struct p2pvf_slot *slot,
				   struct device *dev,
				   struct p2psim_config *config)
{
	guard(mutex)(&slots);
	if (!slot->log)
		renew_log(slot);
	if (!slot->log)
		return NULL;
	set_opened(slot, dev);
	get_config(slot, config);
	return slot->log;
}

void p2pvf_slot_close(struct p2pvf_slot *slot)
{
	guard(mutex)(&slots);
	set_opened(slot, NULL);
}
