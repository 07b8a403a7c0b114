// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Configuration: /sys/kernel/config/p2psim/NAME
 */
#include <linux/ctype.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "configfs.h"

/* " peer_group=GROUP peer_id=ID peers=ID,..." */
#define PEER_KEYS_BYTES		(64 + P2PSIM_NAME_BYTES + P2PSIM_PEERS * 3)

static struct configfs_subsystem p2psim_subsys;

/* What /sys/devices/p2psim has of its own */
static const char *const taken_names[] = { "module", "power", "uevent" };

/* Names end up in logs of others, QEMU's among them, that are parsed */
bool p2psim_name_is_sane(const char *name)
{
	const char *c;

	if (match_string(taken_names, ARRAY_SIZE(taken_names), name) >= 0)
		return false;
	for (c = name; *c; c++) {
		if (!isascii(*c) || (!isalnum(*c) && !strchr("._-", *c)))
			return false;
	}
	return isalnum(name[0]) && c - name <= P2PSIM_NAME_BYTES;
}

static void print_peer_keys(char *buf, size_t bytes,
			    const struct p2psim_config *config)
{
	char peers[P2PSIM_PEERS * 3];

	buf[0] = '\0';
	if (!config->peer_group[0])
		return;
	p2psim_print_peers(peers, sizeof(peers), config->peers);
	scnprintf(buf, bytes, " peer_group=%s peer_id=%u peers=%s",
		  config->peer_group, config->peer_id,
		  strreplace(strim(peers), ' ', ','));
}

void p2psim_log_live(struct p2psim_log *log,
		     const struct p2psim_config *config)
{
	char flags[64], peers[PEER_KEYS_BYTES], ways[P2PSIM_WAYS_BYTES];

	p2psim_print_flags(flags, sizeof(flags), config->flags);
	print_peer_keys(peers, sizeof(peers), config);
	p2psim_print_ways(ways, sizeof(ways), config);
	p2psim_log(log,
		   "live size_bytes=%u initial_bytes=%u dirty_bytes=%u seed=%llu flags=%s%s%s",
		   config->size_bytes, config->initial_bytes,
		   config->dirty_bytes, config->seed,
		   strreplace(strim(flags), ' ', ','), peers, ways);
}

int p2psim_go_live(struct p2psim_item *sim)
{
	const struct p2psim_config *config = &sim->config;
	struct device *dev;
	int ret;

	if (config->peers && !config->peer_group[0])
		return -EINVAL;
	/* From here on rmdir is refused */
	ret = configfs_depend_item_unlocked(&p2psim_subsys, &sim->item);
	if (ret)
		return ret;
	dev = p2psim_bus_add(config_item_name(&sim->item), config, sim->log);
	if (IS_ERR(dev)) {
		configfs_undepend_item_unlocked(&sim->item);
		return PTR_ERR(dev);
	}
	sim->dev = dev;
	return 0;
}

int p2psim_go_away(struct p2psim_item *sim)
{
	int ret = p2psim_bus_remove(sim->dev);

	if (ret)
		return ret;
	sim->dev = NULL;
	p2psim_log(sim->log, "gone");
	configfs_undepend_item_unlocked(&sim->item);
	return 0;
}

static void p2psim_item_release(struct config_item *item)
{
	struct p2psim_item *sim = to_p2psim(item);

	p2psim_log_destroy(sim->log);
	mutex_destroy(&sim->lock);
	kfree(sim);
}

static struct configfs_item_operations p2psim_item_ops = {
	.release = p2psim_item_release,
};

static const struct config_item_type p2psim_item_type = {
	.ct_item_ops = &p2psim_item_ops,
	.ct_attrs = p2psim_attrs,
	.ct_owner = THIS_MODULE,
};

static struct config_item *p2psim_make_item(struct config_group *group,
					    const char *name)
{
	struct p2psim_item *sim;
	int ret;

	if (!p2psim_name_is_sane(name))
		return ERR_PTR(-EINVAL);
	sim = kzalloc(sizeof(*sim), GFP_KERNEL);
	if (!sim)
		return ERR_PTR(-ENOMEM);
	sim->log = p2psim_log_create(name);
	if (IS_ERR(sim->log)) {
		ret = PTR_ERR(sim->log);
		kfree(sim);
		return ERR_PTR(ret);
	}
	mutex_init(&sim->lock);
	sim->config.flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P |
			    VFIO_MIGRATION_PRE_COPY;
	sim->config.size_bytes = 65536;
	sim->config.initial_bytes = 4096;
	sim->config.seed = 1;
	sim->config.peer_period_us = 500;
	sim->config.dma_period_us = 1000;
	sim->config.peer_completion_us = 10;
	config_item_init_type_name(&sim->item, name, &p2psim_item_type);
	return &sim->item;
}

static struct configfs_group_operations p2psim_group_ops = {
	.make_item = p2psim_make_item,
};

static const struct config_item_type p2psim_group_type = {
	.ct_group_ops = &p2psim_group_ops,
	.ct_owner = THIS_MODULE,
};

static struct configfs_subsystem p2psim_subsys = {
	.su_group = {
		.cg_item = {
			.ci_namebuf = "p2psim",
			.ci_type = &p2psim_group_type,
		},
	},
	.su_mutex = __MUTEX_INITIALIZER(p2psim_subsys.su_mutex),
};

int p2psim_configfs_init(void)
{
	config_group_init(&p2psim_subsys.su_group);
	return configfs_register_subsystem(&p2psim_subsys);
}

void p2psim_configfs_exit(void)
{
	configfs_unregister_subsystem(&p2psim_subsys);
}
