/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef P2PSIM_CONFIGFS_H
#define P2PSIM_CONFIGFS_H

#include <linux/configfs.h>

#include "p2psim.h"

/**
 * struct p2psim_item - one directory in configfs
 * @item: the directory
 * @lock: protects @config and @dev
 * @config: for the next time the device goes live
 * @log: lives as long as the directory
 * @dev: the device on the bus while live, else NULL
 */
struct p2psim_item {
	struct config_item item;
	struct mutex lock;		/* see above */
	struct p2psim_config config;
	struct p2psim_log *log;
	struct device *dev;
};

static inline struct p2psim_item *to_p2psim(struct config_item *item)
{
	return container_of(item, struct p2psim_item, item);
}

/* What p2psim_print_ways() prints fits */
#define P2PSIM_WAYS_BYTES	64

/* configfs.c */
bool p2psim_name_is_sane(const char *name);
int p2psim_go_live(struct p2psim_item *sim);
int p2psim_go_away(struct p2psim_item *sim);

/* attributes.c */
extern struct configfs_attribute *p2psim_attrs[];
int p2psim_print_flags(char *page, size_t bytes, u32 flags);
int p2psim_print_peers(char *page, size_t bytes, u32 peers);
void p2psim_print_ways(char *buf, size_t bytes,
		       const struct p2psim_config *config);

#endif
