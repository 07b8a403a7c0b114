// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Configuration: /sys/kernel/config/p2pvf/ADDRESS, with p2psim's attributes
 */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "configfs.h"
#include "p2pvf.h"

/**
 * struct p2pvf_directory - one directory
 * @item: what p2psim's attributes work on
 * @slot: that of the address; until the directory is removed
 */
struct p2pvf_directory {
	struct p2psim_item item;
	struct p2pvf_slot *slot;
};

/* The rest is about going live, which binding does, and about traffic */
static const char *const attributes[] = {
	"flags", "size_bytes", "initial_bytes", "dirty_bytes", "seed",
	"latency_us", "faults", "precopy_info_v2", "reinit_drain",
	"reinit_query", "read_ns_per_kib", "write_ns_per_kib",
	"load_in", "on_bad_stream",
};

static struct p2pvf_directory *to_directory(struct config_item *item)
{
	return container_of(item, struct p2pvf_directory, item.item);
}

static void p2pvf_item_release(struct config_item *item)
{
	struct p2pvf_directory *directory = to_directory(item);

	mutex_destroy(&directory->item.lock);
	kfree(directory);
}

static struct configfs_item_operations p2pvf_item_ops = {
	.release = p2pvf_item_release,
};

static bool p2pvf_is_visible(struct config_item *item,
			     struct configfs_attribute *attr, int n)
{
	return match_string(attributes, ARRAY_SIZE(attributes),
			    attr->ca_name) >= 0;
}

static struct configfs_group_operations p2pvf_visible_ops = {
	.is_visible = p2pvf_is_visible,
};

static const struct config_item_type p2pvf_item_type = {
	.ct_item_ops = &p2pvf_item_ops,
	.ct_group_ops = &p2pvf_visible_ops,
	.ct_attrs = p2psim_attrs,
	.ct_owner = THIS_MODULE,
};

/* Another spelling of an address would never be found */
static bool is_address(const char *name)
{
	char address[P2PVF_ADDRESS_BYTES];
	u32 domain, bus, device, function;

	if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &device,
		   &function) != 4)
		return false;
	scnprintf(address, sizeof(address), "%04x:%02x:%02x.%x", domain, bus,
		  device, function);
	return !strcmp(name, address) && bus < 256 && device < 32 &&
	       function < 8;
}

static struct config_item *p2pvf_make_item(struct config_group *group,
					   const char *name)
{
	struct p2pvf_directory *directory;

	if (!is_address(name))
		return ERR_PTR(-EINVAL);
	directory = kzalloc(sizeof(*directory), GFP_KERNEL);
	if (!directory)
		return ERR_PTR(-ENOMEM);
	directory->slot = p2pvf_slot_get(name);
	if (!directory->slot) {
		kfree(directory);
		return ERR_PTR(-ENOMEM);
	}
	mutex_init(&directory->item.lock);
	p2pvf_default_config(&directory->item.config);
	config_item_init_type_name(&directory->item.item, name,
				   &p2pvf_item_type);
	p2pvf_slot_attach(directory->slot, &directory->item);
	return &directory->item.item;
}

/* Files that are still open keep the item for longer, but not the slot */
static void p2pvf_drop_item(struct config_group *group,
			    struct config_item *item)
{
	struct p2pvf_directory *directory = to_directory(item);

	p2pvf_slot_detach(directory->slot);
	p2pvf_slot_put(directory->slot);
	config_item_put(item);
}

static struct configfs_group_operations p2pvf_group_ops = {
	.make_item = p2pvf_make_item,
	.drop_item = p2pvf_drop_item,
};

static const struct config_item_type p2pvf_group_type = {
	.ct_group_ops = &p2pvf_group_ops,
	.ct_owner = THIS_MODULE,
};

static struct configfs_subsystem p2pvf_subsys = {
	.su_group = {
		.cg_item = {
			.ci_namebuf = KBUILD_MODNAME,
			.ci_type = &p2pvf_group_type,
		},
	},
	.su_mutex = __MUTEX_INITIALIZER(p2pvf_subsys.su_mutex),
};

int p2pvf_configfs_init(void)
{
	config_group_init(&p2pvf_subsys.su_group);
	return configfs_register_subsystem(&p2pvf_subsys);
}

void p2pvf_configfs_exit(void)
{
	configfs_unregister_subsystem(&p2pvf_subsys);
}
