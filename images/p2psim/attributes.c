// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The attributes in /sys/kernel/config/p2psim/NAME
 *
 * What is written goes into a copy of the configuration, which replaces it if
 * it makes sense: so it counts as a whole or not at all.
 */
#include <linux/bitops.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "configfs.h"
#include "dma.h"

static const struct {
	const char *name;
	u32 flag;
} flag_words[] = {
	{ "stop_copy", VFIO_MIGRATION_STOP_COPY },
	{ "p2p", VFIO_MIGRATION_P2P },
	{ "pre_copy", VFIO_MIGRATION_PRE_COPY },
};

static bool faults_are_sane(const struct p2psim_config *config)
{
	u32 i;

	for (i = 0; i < config->nfaults; i++) {
		if (config->faults[i].kind == P2PSIM_SAVE_CORRUPT &&
		    config->faults[i].value >= config->size_bytes)
			return false;
	}
	return true;
}

static bool config_is_sane(const struct p2psim_config *config)
{
	return config->size_bytes >= P2PSIM_SIZE_MIN &&
	       config->size_bytes <= P2PSIM_SIZE_MAX &&
	       config->initial_bytes <= config->size_bytes &&
	       config->dirty_bytes <= config->size_bytes &&
	       config->read_ns_per_kib <= P2PSIM_NS_PER_KIB_MAX &&
	       config->write_ns_per_kib <= P2PSIM_NS_PER_KIB_MAX &&
	       config->peer_id < P2PSIM_PEERS &&
	       !(config->peers & BIT(config->peer_id)) &&
	       config->peer_period_us >= P2PSIM_PERIOD_MIN_US &&
	       config->peer_period_us <= P2PSIM_PERIOD_MAX_US &&
	       config->peer_completion_us <= P2PSIM_LATENCY_MAX_US &&
	       PAGE_ALIGNED(config->dma_iova) &&
	       PAGE_ALIGNED(config->dma_bytes) &&
	       config->dma_bytes <= P2PSIM_DMA_MAX &&
	       config->dma_period_us >= P2PSIM_PERIOD_MIN_US &&
	       config->dma_period_us <= P2PSIM_PERIOD_MAX_US &&
	       faults_are_sane(config);
}

static ssize_t store(struct config_item *item, const char *page, size_t count,
		     int (*parse)(char *text, struct p2psim_config *config))
{
	struct p2psim_item *sim = to_p2psim(item);
	struct p2psim_config config;
	char *text;
	int ret;

	guard(mutex)(&sim->lock);
	if (sim->dev)
		return -EBUSY;
	text = kstrndup(page, count, GFP_KERNEL);
	if (!text)
		return -ENOMEM;
	config = sim->config;
	ret = parse(text, &config);
	kfree(text);
	if (ret || !config_is_sane(&config))
		return -EINVAL;
	sim->config = config;
	return count;
}

/* An attribute that parse_NAME() and print_NAME() are there for */
#define P2PSIM_ATTR(_name)						\
static ssize_t p2psim_##_name##_show(struct config_item *item,		\
				     char *page)			\
{									\
	struct p2psim_item *sim = to_p2psim(item);			\
									\
	guard(mutex)(&sim->lock);					\
	return print_##_name(page, &sim->config);			\
}									\
static ssize_t p2psim_##_name##_store(struct config_item *item,		\
				      const char *page, size_t count)	\
{									\
	return store(item, page, count, parse_##_name);			\
}									\
CONFIGFS_ATTR(p2psim_, _name)

/* An attribute that is a number of the configuration */
#define P2PSIM_ATTR_NUMBER(_name, _format, _parse)			\
static int parse_##_name(char *text, struct p2psim_config *config)	\
{									\
	return _parse(text, 0, &config->_name);				\
}									\
static int print_##_name(char *page, const struct p2psim_config *config) \
{									\
	return sysfs_emit(page, _format "\n", config->_name);		\
}									\
P2PSIM_ATTR(_name)

P2PSIM_ATTR_NUMBER(size_bytes, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(initial_bytes, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(dirty_bytes, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(reinit_drain, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(reinit_query, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(read_ns_per_kib, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(write_ns_per_kib, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(seed, "%llu", kstrtou64);
P2PSIM_ATTR_NUMBER(peer_id, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(peer_period_us, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(peer_completion_us, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(dma_iova, "%#llx", kstrtou64);
P2PSIM_ATTR_NUMBER(dma_bytes, "%u", kstrtou32);
P2PSIM_ATTR_NUMBER(dma_period_us, "%u", kstrtou32);

/* Words of @line, of which there may be @most: their number, or -EINVAL */
int p2psim_split(char *line, char **words, int most)
{
	int count = 0;
	char *word;

	while ((word = strsep(&line, " \t\n"))) {
		if (!*word)
			continue;
		if (count == most)
			return -EINVAL;
		words[count++] = word;
	}
	return count;
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

static int parse_flags(char *text, struct p2psim_config *config)
{
	char *word;

	config->flags = 0;
	while ((word = strsep(&text, " \t\n"))) {
		if (*word && parse_flag(word, &config->flags))
			return -EINVAL;
	}
	/* The uAPI defines P2P and PRE_COPY only beside STOP_COPY */
	if (config->flags && !(config->flags & VFIO_MIGRATION_STOP_COPY))
		return -EINVAL;
	return 0;
}

int p2psim_print_flags(char *buf, size_t bytes, u32 flags)
{
	const char *space = "";
	int len = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(flag_words); i++) {
		if (!(flags & flag_words[i].flag))
			continue;
		len += scnprintf(buf + len, bytes - len, "%s%s", space,
				 flag_words[i].name);
		space = " ";
	}
	return len + scnprintf(buf + len, bytes - len, "\n");
}

static int print_flags(char *page, const struct p2psim_config *config)
{
	return p2psim_print_flags(page, PAGE_SIZE, config->flags);
}

P2PSIM_ATTR(flags);

static int parse_dma_logging(char *text, struct p2psim_config *config)
{
	return kstrtobool(text, &config->dma_logging);
}

static int print_dma_logging(char *page, const struct p2psim_config *config)
{
	return sysfs_emit(page, "%d\n", config->dma_logging);
}

P2PSIM_ATTR(dma_logging);

static int parse_precopy_info_v2(char *text, struct p2psim_config *config)
{
	return kstrtobool(text, &config->precopy_info_v2);
}

static int print_precopy_info_v2(char *page,
				 const struct p2psim_config *config)
{
	return sysfs_emit(page, "%d\n", config->precopy_info_v2);
}

P2PSIM_ATTR(precopy_info_v2);

/* Which of two words, the first of which is the default? */
static int parse_choice(char *text, const char *const words[2], bool *second)
{
	int which = match_string(words, 2, strim(text));

	if (which < 0)
		return -EINVAL;
	*second = which;
	return 0;
}

static const char *const load_in_words[] = { "resuming_stop", "write" };

static int parse_load_in(char *text, struct p2psim_config *config)
{
	return parse_choice(text, load_in_words, &config->load_in_write);
}

static int print_load_in(char *page, const struct p2psim_config *config)
{
	return sysfs_emit(page, "%s\n", load_in_words[config->load_in_write]);
}

P2PSIM_ATTR(load_in);

static const char *const on_bad_stream_words[] = { "error", "keep" };

static int parse_on_bad_stream(char *text, struct p2psim_config *config)
{
	return parse_choice(text, on_bad_stream_words,
			    &config->keep_on_bad_stream);
}

static int print_on_bad_stream(char *page, const struct p2psim_config *config)
{
	return sysfs_emit(page, "%s\n",
			  on_bad_stream_words[config->keep_on_bad_stream]);
}

P2PSIM_ATTR(on_bad_stream);

static const char *const reset_words[] = { "wait", "defer" };

static int parse_reset(char *text, struct p2psim_config *config)
{
	return parse_choice(text, reset_words, &config->defer_reset);
}

static int print_reset(char *page, const struct p2psim_config *config)
{
	return sysfs_emit(page, "%s\n", reset_words[config->defer_reset]);
}

P2PSIM_ATTR(reset);

/* " KEY=WORD" for each way of a driver that is not the default one */
void p2psim_print_ways(char *buf, size_t bytes,
		       const struct p2psim_config *config)
{
	int len = 0;

	buf[0] = '\0';
	if (config->load_in_write)
		len += scnprintf(buf + len, bytes - len, " load_in=%s",
				 load_in_words[1]);
	if (config->keep_on_bad_stream)
		len += scnprintf(buf + len, bytes - len, " on_bad_stream=%s",
				 on_bad_stream_words[1]);
	if (config->defer_reset)
		scnprintf(buf + len, bytes - len, " reset=%s", reset_words[1]);
}

/* "FROM TO MICROSECONDS", or nothing */
static int parse_latency(char *line, struct p2psim_config *config)
{
	int from, to, count;
	char *words[3];
	u32 us;

	count = p2psim_split(line, words, ARRAY_SIZE(words));
	if (!count)
		return 0;
	if (count != ARRAY_SIZE(words))
		return -EINVAL;
	from = p2psim_state_parse(words[0]);
	to = p2psim_state_parse(words[1]);
	if (from < 0 || to < 0 || !p2psim_is_arc(from, to) ||
	    kstrtou32(words[2], 0, &us) || us > P2PSIM_LATENCY_MAX_US)
		return -EINVAL;
	config->latency_us[from][to] = us;
	return 0;
}

static int parse_latency_us(char *text, struct p2psim_config *config)
{
	char *line;

	while ((line = strsep(&text, "\n"))) {
		if (parse_latency(line, config))
			return -EINVAL;
	}
	return 0;
}

static int print_latency_us(char *page, const struct p2psim_config *config)
{
	int from, to, len = 0;
	u32 us;

	for (from = 0; from < P2PSIM_STATES; from++) {
		for (to = 0; to < P2PSIM_STATES; to++) {
			us = config->latency_us[from][to];
			if (us)
				len += sysfs_emit_at(page, len, "%s %s %u\n",
						     p2psim_state_name(from),
						     p2psim_state_name(to),
						     us);
		}
	}
	return len;
}

P2PSIM_ATTR(latency_us);

static int parse_peer_group(char *text, struct p2psim_config *config)
{
	const char *name = strim(text);

	if (*name && !p2psim_name_is_sane(name))
		return -EINVAL;
	strscpy(config->peer_group, name);
	return 0;
}

static int print_peer_group(char *page, const struct p2psim_config *config)
{
	return sysfs_emit(page, "%s\n", config->peer_group);
}

P2PSIM_ATTR(peer_group);

static int parse_peers(char *text, struct p2psim_config *config)
{
	char *words[P2PSIM_PEERS];
	int count, i;
	u32 id;

	config->peers = 0;
	count = p2psim_split(text, words, ARRAY_SIZE(words));
	for (i = 0; i < count; i++) {
		if (kstrtou32(words[i], 0, &id) || id >= P2PSIM_PEERS ||
		    config->peers & BIT(id))
			return -EINVAL;
		config->peers |= BIT(id);
	}
	return min(count, 0);
}

int p2psim_print_peers(char *buf, size_t bytes, u32 peers)
{
	unsigned long ids = peers;
	const char *space = "";
	int len = 0;
	u32 id;

	for_each_set_bit(id, &ids, P2PSIM_PEERS) {
		len += scnprintf(buf + len, bytes - len, "%s%u", space, id);
		space = " ";
	}
	return len + scnprintf(buf + len, bytes - len, "\n");
}

static int print_peers(char *page, const struct p2psim_config *config)
{
	return p2psim_print_peers(page, PAGE_SIZE, config->peers);
}

P2PSIM_ATTR(peers);

/* Unlike latencies these are all there are, so that they can be got rid of */
static int parse_faults(char *text, struct p2psim_config *config)
{
	char *line;

	config->nfaults = 0;
	while ((line = strsep(&text, "\n"))) {
		if (!*skip_spaces(line))
			continue;
		if (config->nfaults == P2PSIM_FAULTS ||
		    p2psim_fault_parse(line, config->faults + config->nfaults))
			return -EINVAL;
		config->nfaults++;
	}
	return 0;
}

static int print_faults(char *page, const struct p2psim_config *config)
{
	char line[P2PSIM_FAULT_LINE];
	int len = 0;
	u32 i;

	for (i = 0; i < config->nfaults; i++) {
		p2psim_fault_print(line, sizeof(line), config->faults + i);
		len += sysfs_emit_at(page, len, "%s\n", line);
	}
	return len;
}

P2PSIM_ATTR(faults);

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
		ret = p2psim_go_live(sim);
	else if (!live && sim->dev)
		ret = p2psim_go_away(sim);
	return ret ?: count;
}

CONFIGFS_ATTR(p2psim_, live);

/* A switch of a live device, which is no part of the configuration */
#define P2PSIM_ATTR_SWITCH(_name, _is_on, _set)				\
static ssize_t p2psim_##_name##_show(struct config_item *item,		\
				     char *page)			\
{									\
	struct p2psim_item *sim = to_p2psim(item);			\
	bool on;							\
									\
	guard(mutex)(&sim->lock);					\
	on = sim->dev && _is_on(dev_get_drvdata(sim->dev));		\
	return sysfs_emit(page, "%d\n", on);				\
}									\
static ssize_t p2psim_##_name##_store(struct config_item *item,		\
				      const char *page, size_t count)	\
{									\
	struct p2psim_item *sim = to_p2psim(item);			\
	bool on;							\
	int ret;							\
									\
	if (kstrtobool(page, &on))					\
		return -EINVAL;						\
	guard(mutex)(&sim->lock);					\
	if (!sim->dev)							\
		return -ENODEV;						\
	ret = _set(dev_get_drvdata(sim->dev), on);			\
	return ret ?: count;						\
}									\
CONFIGFS_ATTR(p2psim_, _name)

P2PSIM_ATTR_SWITCH(traffic, p2psim_peer_traffic, p2psim_peer_set_traffic);
P2PSIM_ATTR_SWITCH(dma, p2psim_dma_is_on, p2psim_dma_set);

static ssize_t p2psim_sysfs_path_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "/sys/devices/p2psim/%s\n",
			  config_item_name(item));
}

CONFIGFS_ATTR_RO(p2psim_, sysfs_path);

struct configfs_attribute *p2psim_attrs[] = {
	&p2psim_attr_flags,
	&p2psim_attr_size_bytes,
	&p2psim_attr_initial_bytes,
	&p2psim_attr_dirty_bytes,
	&p2psim_attr_seed,
	&p2psim_attr_dma_logging,
	&p2psim_attr_precopy_info_v2,
	&p2psim_attr_reinit_drain,
	&p2psim_attr_reinit_query,
	&p2psim_attr_read_ns_per_kib,
	&p2psim_attr_write_ns_per_kib,
	&p2psim_attr_load_in,
	&p2psim_attr_on_bad_stream,
	&p2psim_attr_reset,
	&p2psim_attr_latency_us,
	&p2psim_attr_peer_group,
	&p2psim_attr_peer_id,
	&p2psim_attr_peers,
	&p2psim_attr_peer_period_us,
	&p2psim_attr_peer_completion_us,
	&p2psim_attr_dma_iova,
	&p2psim_attr_dma_bytes,
	&p2psim_attr_dma_period_us,
	&p2psim_attr_faults,
	&p2psim_attr_live,
	&p2psim_attr_traffic,
	&p2psim_attr_dma,
	&p2psim_attr_sysfs_path,
	NULL
};
