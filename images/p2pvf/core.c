// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What p2psim's files ask of the rest of a device
 */
#include <linux/errno.h>

#include "configfs.h"
#include "p2pvf.h"

/* The function has a configuration space of its own */
void p2psim_pci_reset(struct p2psim_device *sim)
{
}

/* For attributes that have no file here */
bool p2psim_name_is_sane(const char *name)
{
	return false;
}

int p2psim_go_live(struct p2psim_item *item)
{
	return -EOPNOTSUPP;
}

int p2psim_go_away(struct p2psim_item *item)
{
	return -EOPNOTSUPP;
}
