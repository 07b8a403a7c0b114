// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Configuration: /sys/kernel/config/p2psim/NAME
 */
#include <linux/configfs.h>
#include <linux/ctype.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "p2psim.h"

#define NAME_MAX_BYTES	32

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

static const struct {
	const char *name;
	u32 flag;
} flag_words[] = {
	{ "stop_copy", VFIO_MIGRATION_STOP_COPY },
	{ "p2p", VFIO_MIGRATION_P2P },
	{ "pre_copy", VFIO_MIGRATION_PRE_COPY },
};

static struct configfs_subsystem p2psim_subsys;

static struct p2psim_item *to_p2psim(struct config_item *item)
{
	return container_of(item, struct p2psim_item, item);
}

static int parse_flag(const char *word, u32 *flags)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(flag_words); i++) {
		if (!strcmp(word, flag_words[i].name)) {
			*flags |= flag_words[i].flag;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_flags(char *text, u32 *flags)
{
	char *word;

	*flags = 0;
	while ((word = strsep(&text, " \t\n"))) {
		if (*word && parse_flag(word, flags))
			return -EINVAL;
	}
	/* The uAPI defines P2P and PRE_COPY only beside STOP_COPY */
	if (*flags && !(*flags & VFIO_MIGRATION_STOP_COPY))
		return -EINVAL;
	return 0;
}

static int print_flags(char *page, size_t bytes, u32 flags)
{
	const char *space = "";
	int len = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(flag_words); i++) {
		if (!(flags & flag_words[i].flag))
			continue;
		len += scnprintf(page + len, bytes - len, "%s%s", space,
				 flag_words[i].name);
		space = " ";
	}
	return len + scnprintf(page + len, bytes - len, "\n");
}

static ssize_t p2psim_flags_show(struct config_item *item, char *page)
{
	struct p2psim_item *sim = to_p2psim(item);

	guard(mutex)(&sim->lock);
	return print_flags(page, PAGE_SIZE, sim->config.flags);
}

static ssize_t p2psim_flags_store(struct config_item *item, const char *page,
				  size_t count)
{
	struct p2psim_item *sim = to_p2psim(item);
	char text[64];
	u32 flags;

	guard(mutex)(&sim->lock);
	if (sim->dev)
		return -EBUSY;
	if (strscpy(text, page) < 0 || parse_flags(text, &flags))
		return -EINVAL;
	sim->config.flags = flags;
	return count;
}

static bool config_is_sane(const struct p2psim_config *config)
{
	return config->size_bytes >= P2PSIM_SIZE_MIN &&
	       config->size_bytes <= P2PSIM_SIZE_MAX &&
	       config->initial_bytes <= config->size_bytes &&
	       config->dirty_bytes <= config->size_bytes;
}

static ssize_t show_bytes(struct p2psim_item *sim, char *page,
			  const u32 *bytes)
{
	guard(mutex)(&sim->lock);
	return sysfs_emit(page, "%u\n", *bytes);
}

/* @bytes is a member of @sim->config */
static ssize_t store_bytes(struct p2psim_item *sim, const char *page,
			   size_t count, u32 *bytes)
{
	u32 value, old;

	guard(mutex)(&sim->lock);
	if (sim->dev)
		return -EBUSY;
	if (kstrtou32(page, 0, &value))
		return -EINVAL;
	old = *bytes;
	*bytes = value;
	if (config_is_sane(&sim->config))
		return count;
	*bytes = old;
	return -EINVAL;
}

static ssize_t p2psim_size_bytes_show(struct config_item *item, char *page)
{
	struct p2psim_item *sim = to_p2psim(item);

	return show_bytes(sim, page, &sim->config.size_bytes);
}

static ssize_t p2psim_size_bytes_store(struct config_item *item,
				       const char *page, size_t count)
{
	struct p2psim_item *sim = to_p2psim(item);

	return store_bytes(sim, page, count, &sim->config.size_bytes);
}

static ssize_t p2psim_initial_bytes_show(struct config_item *item, char *page)
{
	struct p2psim_item *sim = to_p2psim(item);

	return show_bytes(sim, page, &sim->config.initial_bytes);
}

static ssize_t p2psim_initial_bytes_store(struct config_item *item,
					  const char *page, size_t count)
{
	struct p2psim_item *sim = to_p2psim(item);

	return store_bytes(sim, page, count, &sim->config.initial_bytes);
}

static ssize_t p2psim_dirty_bytes_show(struct config_item *item, char *page)
{
	struct p2psim_item *sim = to_p2psim(item);

	return show_bytes(sim, page, &sim->config.dirty_bytes);
}

static ssize_t p2psim_dirty_bytes_store(struct config_item *item,
					const char *page, size_t count)
{
	struct p2psim_item *sim = to_p2psim(item);

	return store_bytes(sim, page, count, &sim->config.dirty_bytes);
}

static ssize_t p2psim_seed_show(struct config_item *item, char *page)
{
	struct p2psim_item *sim = to_p2psim(item);

	guard(mutex)(&sim->lock);
	return sysfs_emit(page, "%llu\n", sim->config.seed);
}

static ssize_t p2psim_seed_store(struct config_item *item, const char *page,
				 size_t count)
{
	struct p2psim_item *sim = to_p2psim(item);
	u64 seed;

	guard(mutex)(&sim->lock);
	if (sim->dev)
		return -EBUSY;
	if (kstrtou64(page, 0, &seed))
		return -EINVAL;
	sim->config.seed = seed;
	return count;
}

static ssize_t p2psim_dma_logging_show(struct config_item *item, char *page)
{
	struct p2psim_item *sim = to_p2psim(item);

	guard(mutex)(&sim->lock);
	return sysfs_emit(page, "%d\n", sim->config.dma_logging);
}

static ssize_t p2psim_dma_logging_store(struct config_item *item,
					const char *page, size_t count)
{
	struct p2psim_item *sim = to_p2psim(item);
	bool value;

	guard(mutex)(&sim->lock);
	if (sim->dev)
		return -EBUSY;
	if (kstrtobool(page, &value))
		return -EINVAL;
	sim->config.dma_logging = value;
	return count;
}

static ssize_t p2psim_latency_us_show(struct config_item *item, char *page)
{
	struct p2psim_item *sim = to_p2psim(item);
	int from, to, len = 0;
	u32 us;

	guard(mutex)(&sim->lock);
	for (from = 0; from < P2PSIM_STATES; from++) {
		for (to = 0; to < P2PSIM_STATES; to++) {
			us = sim->config.latency_us[from][to];
			if (us)
				len += sysfs_emit_at(page, len, "%s %s %u\n",
						     p2psim_state_name(from),
						     p2psim_state_name(to),
						     us);
		}
	}
	return len;
}

/* "FROM TO MICROSECONDS" */
static int parse_latency(char *line, struct p2psim_config *config)
{
	char *words[3];
	int from, to;
	size_t i;
	u32 us;

	for (i = 0; i < ARRAY_SIZE(words); i++) {
		line = skip_spaces(line);
		words[i] = strsep(&line, " \t");
		if (!line && i < ARRAY_SIZE(words) - 1)
			return -EINVAL;
	}
	if (line && *skip_spaces(line))
		return -EINVAL;
	from = p2psim_state_parse(words[0]);
	to = p2psim_state_parse(words[1]);
	if (from < 0 || to < 0 || !p2psim_is_arc(from, to) ||
	    kstrtou32(words[2], 0, &us) || us > P2PSIM_LATENCY_MAX_US)
		return -EINVAL;
	config->latency_us[from][to] = us;
	return 0;
}

static ssize_t p2psim_latency_us_store(struct config_item *item,
				       const char *page, size_t count)
{
	struct p2psim_item *sim = to_p2psim(item);
	struct p2psim_config config;
	ssize_t ret = count;
	char *text, *next, *line;

	text = kstrndup(page, count, GFP_KERNEL);
	if (!text)
		return -ENOMEM;
	guard(mutex)(&sim->lock);
	/* All lines or none */
	config = sim->config;
	next = text;
	while ((line = strsep(&next, "\n"))) {
		if (*skip_spaces(line) && parse_latency(line, &config))
			ret = -EINVAL;
	}
	kfree(text);
	if (sim->dev)
		return -EBUSY;
	if (ret > 0)
		sim->config = config;
	return ret;
}

static int go_live(struct p2psim_item *sim)
{
	const struct p2psim_config *config = &sim->config;
	char flags[64];
	struct device *dev;
	int ret;

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
	print_flags(flags, sizeof(flags), config->flags);
	p2psim_log(sim->log,
		   "live size_bytes=%u initial_bytes=%u dirty_bytes=%u seed=%llu flags=%s",
		   config->size_bytes, config->initial_bytes,
		   config->dirty_bytes, config->seed,
		   strreplace(strim(flags), ' ', ','));
	return 0;
}

static int go_away(struct p2psim_item *sim)
{
	int ret = p2psim_bus_remove(sim->dev);

	if (ret)
		return ret;
	sim->dev = NULL;
	p2psim_log(sim->log, "gone");
	configfs_undepend_item_unlocked(&sim->item);
	return 0;
}

static ssize_t p2psim_live_show(struct config_item *item, char *page)
{
	struct p2psim_item *sim = to_p2psim(item);

	guard(mutex)(&sim->lock);
	return sysfs_emit(page, "%d\n", !!sim->dev);
}

static ssize_t p2psim_live_store(struct config_item *item, const char *page,
				 size_t count)
{
	struct p2psim_item *sim = to_p2psim(item);
	bool live;
	int ret = 0;

	if (kstrtobool(page, &live))
		return -EINVAL;
	guard(mutex)(&sim->lock);
	if (live && !sim->dev)
		ret = go_live(sim);
	else if (!live && sim->dev)
		ret = go_away(sim);
	return ret ?: count;
}

static ssize_t p2psim_sysfs_path_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "/sys/devices/p2psim/%s\n",
			  config_item_name(item));
}

CONFIGFS_ATTR(p2psim_, flags);
CONFIGFS_ATTR(p2psim_, size_bytes);
CONFIGFS_ATTR(p2psim_, initial_bytes);
CONFIGFS_ATTR(p2psim_, dirty_bytes);
CONFIGFS_ATTR(p2psim_, seed);
CONFIGFS_ATTR(p2psim_, dma_logging);
CONFIGFS_ATTR(p2psim_, latency_us);
CONFIGFS_ATTR(p2psim_, live);
CONFIGFS_ATTR_RO(p2psim_, sysfs_path);

static struct configfs_attribute *p2psim_attrs[] = {
	&p2psim_attr_flags,
	&p2psim_attr_size_bytes,
	&p2psim_attr_initial_bytes,
	&p2psim_attr_dirty_bytes,
	&p2psim_attr_seed,
	&p2psim_attr_dma_logging,
	&p2psim_attr_latency_us,
	&p2psim_attr_live,
	&p2psim_attr_sysfs_path,
	NULL
};

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

/* What /sys/devices/p2psim has of its own */
static const char *const taken_names[] = { "module", "power", "uevent" };

/* Names end up in logs of others, QEMU's among them, that are parsed */
static bool name_is_sane(const char *name)
{
	const char *c;

	if (match_string(taken_names, ARRAY_SIZE(taken_names), name) >= 0)
		return false;
	for (c = name; *c; c++) {
		if (!isascii(*c) || (!isalnum(*c) && !strchr("._-", *c)))
			return false;
	}
	return isalnum(name[0]) && c - name <= NAME_MAX_BYTES;
}

static struct config_item *p2psim_make_item(struct config_group *group,
					    const char *name)
{
	struct p2psim_item *sim;

	if (!name_is_sane(name))
		return ERR_PTR(-EINVAL);
	sim = kzalloc(sizeof(*sim), GFP_KERNEL);
	if (!sim)
		return ERR_PTR(-ENOMEM);
	sim->log = p2psim_log_create(name);
	if (!sim->log) {
		kfree(sim);
		return ERR_PTR(-ENOMEM);
	}
	mutex_init(&sim->lock);
	sim->config.flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P |
			    VFIO_MIGRATION_PRE_COPY;
	sim->config.size_bytes = 65536;
	sim->config.initial_bytes = 4096;
	sim->config.seed = 1;
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
