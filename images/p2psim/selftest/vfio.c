// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vfio.h"

#define CONFIGFS	"/sys/kernel/config/p2psim"
#define DEBUGFS		"/sys/kernel/debug/p2psim"

const char *const state_names[STATES] = {
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P",
	"PRE_COPY", "PRE_COPY_P2P",
};

static int tests, failed;

void die(const char *fmt, ...)
{
	va_list args;

	printf("Bail out! ");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf(" (%s)\n", strerror(errno));
	exit(2);
}

static bool report(bool good, const char *fmt, va_list args)
{
	printf("%s %d - ", good ? "ok" : "not ok", ++tests);
	vprintf(fmt, args);
	putchar('\n');
	failed += !good;
	return good;
}

bool ok(bool good, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report(good, fmt, args);
	va_end(args);
	return good;
}

bool is(long long got, long long want, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report(got == want, fmt, args);
	va_end(args);
	if (got != want)
		printf("# got %lld, want %lld\n", got, want);
	return got == want;
}

__u64 now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

int done_testing(void)
{
	printf("1..%d\n# %d failed\n", tests, failed);
	return !!failed;
}

int sim_mkdir(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CONFIGFS "/%s", name);
	return mkdir(path, 0755) ? -errno : 0;
}

int sim_rmdir(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CONFIGFS "/%s", name);
	return rmdir(path) ? -errno : 0;
}

int sim_set(const char *name, const char *attribute, const char *value)
{
	char path[PATH_MAX];
	int fd, ret = 0;

	snprintf(path, sizeof(path), CONFIGFS "/%s/%s", name, attribute);
	fd = open(path, O_WRONLY);
	if (fd < 0 && errno == ENOMEM)
		return -ENOMEM;
	if (fd < 0)
		die("%s", path);
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

int sim_set_number(const char *name, const char *attribute, __u64 value)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return sim_set(name, attribute, text);
}

static size_t read_file(const char *path, char *buf, size_t bytes)
{
	size_t done = 0;
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		die("%s", path);
	while ((n = read(fd, buf + done, bytes - 1 - done)) > 0)
		done += n;
	if (n < 0)
		die("%s", path);
	close(fd);
	buf[done] = '\0';
	return done;
}

void sim_get(const char *name, const char *attribute, char *buf, size_t bytes)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CONFIGFS "/%s/%s", name, attribute);
	read_file(path, buf, bytes);
}

char *sim_log(const char *name)
{
	const size_t bytes = 1 << 20;
	char path[PATH_MAX];
	char *log = malloc(bytes);

	if (!log)
		die("malloc");
	snprintf(path, sizeof(path), DEBUGFS "/%s/log", name);
	read_file(path, log, bytes);
	return log;
}

int sim_logged(const char *name, const char *text)
{
	char *log = sim_log(name), *line;
	int n = 0;

	for (line = log; (line = strstr(line, text)); line++)
		n++;
	free(log);
	return n;
}

void attribute_is(const char *name, const char *attribute,
			 const char *want)
{
	char got[4096];

	sim_get(name, attribute, got, sizeof(got));
	if (!ok(!strcmp(got, want), "%s of %s", attribute, name))
		printf("# got %s# want %s", got, want);
}

void sim_create(const char *name, ...)
{
	const char *setting;
	char attribute[32];
	va_list args;

	if (sim_mkdir(name))
		die("mkdir %s", name);
	va_start(args, name);
	while ((setting = va_arg(args, const char *))) {
		const char *value = strchr(setting, '=') + 1;

		snprintf(attribute, sizeof(attribute), "%.*s",
			 (int)(value - setting - 1), setting);
		if (sim_set(name, attribute, value))
			die("%s: %s", name, setting);
	}
	va_end(args);
	if (sim_set(name, "live", "1"))
		die("%s: live", name);
}

void sim_delete(const char *name)
{
	if (sim_set(name, "live", "0") || sim_rmdir(name))
		die("removing %s", name);
}

void sim_open(struct sim *sim, const char *name)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[PATH_MAX], link[PATH_MAX + 16], group[PATH_MAX];
	ssize_t n;

	sim->name = name;
	sim_get(name, "sysfs_path", path, sizeof(path));
	path[strcspn(path, "\n")] = '\0';
	snprintf(link, sizeof(link), "%s/iommu_group", path);
	n = readlink(link, group, sizeof(group) - 1);
	if (n < 0)
		die("%s", link);
	group[n] = '\0';
	snprintf(path, sizeof(path), "/dev/vfio%s", strrchr(group, '/'));
	sim->container = open("/dev/vfio/vfio", O_RDWR);
	sim->group = open(path, O_RDWR);
	if (sim->container < 0 || sim->group < 0)
		die("%s", path);
	if (ioctl(sim->group, VFIO_GROUP_GET_STATUS, &status) ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		die("group of %s is not viable", name);
	if (ioctl(sim->group, VFIO_GROUP_SET_CONTAINER, &sim->container) ||
	    ioctl(sim->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		die("container of %s", name);
	sim->fd = ioctl(sim->group, VFIO_GROUP_GET_DEVICE_FD, name);
	if (sim->fd < 0)
		die("device fd of %s", name);
}

void sim_close(struct sim *sim)
{
	close(sim->fd);
	close(sim->group);
	close(sim->container);
}

static int feature(struct sim *sim, __u32 flags, void *data, size_t bytes)
{
	__u64 buf[8] = {};
	struct vfio_device_feature *arg = (void *)buf;

	arg->argsz = sizeof(*arg) + bytes;
	arg->flags = flags;
	if (bytes)
		memcpy(arg->data, data, bytes);
	if (ioctl(sim->fd, VFIO_DEVICE_FEATURE, arg) < 0)
		return -errno;
	if (bytes)
		memcpy(data, arg->data, bytes);
	return 0;
}

int sim_feature_get(struct sim *sim, __u32 number, void *data, size_t bytes)
{
	return feature(sim, VFIO_DEVICE_FEATURE_GET | number, data, bytes);
}

int sim_feature_probe(struct sim *sim, __u32 number)
{
	return feature(sim, VFIO_DEVICE_FEATURE_PROBE | number, NULL, 0);
}

/* A feature without data */
int sim_feature_set(struct sim *sim, __u32 number)
{
	return feature(sim, VFIO_DEVICE_FEATURE_SET | number, NULL, 0);
}

int sim_feature_give(struct sim *sim, __u32 number, void *data, size_t bytes)
{
	return feature(sim, VFIO_DEVICE_FEATURE_SET | number, data, bytes);
}

int sim_logging_start(struct sim *sim, __u64 iova, __u64 bytes)
{
	struct vfio_device_feature_dma_logging_range range = {
		.iova = iova,
		.length = bytes,
	};
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = 4096,
		.num_ranges = 1,
		.ranges = (unsigned long)&range,
	};

	return sim_feature_give(sim, VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
				&control, sizeof(control));
}

int sim_set_state(struct sim *sim, __u32 state, int *data_fd)
{
	struct vfio_device_feature_mig_state mig = {
		.device_state = state,
		.data_fd = -1,
	};
	int ret;

	ret = feature(sim, VFIO_DEVICE_FEATURE_SET |
		      VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &mig, sizeof(mig));
	if (data_fd)
		*data_fd = ret ? -1 : mig.data_fd;
	else if (!ret && mig.data_fd >= 0)
		close(mig.data_fd);
	return ret;
}

__u32 sim_state(struct sim *sim)
{
	struct vfio_device_feature_mig_state mig = {};

	if (sim_feature_get(sim, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &mig,
			    sizeof(mig)))
		die("state of %s", sim->name);
	return mig.device_state;
}

__u64 sim_stop_copy_bytes(struct sim *sim)
{
	struct vfio_device_feature_mig_data_size size = {};

	if (sim_feature_get(sim, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, &size,
			    sizeof(size)))
		die("data size of %s", sim->name);
	return size.stop_copy_length;
}

int sim_precopy_info(int data_fd, struct vfio_precopy_info *info)
{
	*info = (struct vfio_precopy_info) { .argsz = sizeof(*info) };
	return ioctl(data_fd, VFIO_MIG_GET_PRECOPY_INFO, info) ? -errno : 0;
}

int sim_reset(struct sim *sim)
{
	return ioctl(sim->fd, VFIO_DEVICE_RESET) ? -errno : 0;
}

int bar_read(struct sim *sim, __u32 offset, void *buf, size_t bytes)
{
	ssize_t n = pread(sim->fd, buf, bytes, offset);

	return n < 0 ? -errno : n;
}

int bar_write(struct sim *sim, __u32 offset, const void *buf, size_t bytes)
{
	ssize_t n = pwrite(sim->fd, buf, bytes, offset);

	return n < 0 ? -errno : n;
}

static int set_window(struct sim *sim, __u32 offset)
{
	return bar_write(sim, 12, &offset, sizeof(offset));
}

int memory_write(struct sim *sim, __u32 offset, const void *buf,
		 size_t bytes)
{
	int ret = set_window(sim, offset);

	if (ret < 0)
		return ret;
	return bar_write(sim, BAR_WINDOW + offset % BAR_WINDOW, buf, bytes);
}

__u8 *memory_read(struct sim *sim, __u32 bytes)
{
	__u8 *memory = malloc(bytes);
	__u32 offset, n;

	if (!memory)
		die("malloc");
	for (offset = 0; offset < bytes; offset += n) {
		n = bytes - offset < BAR_WINDOW ? bytes - offset : BAR_WINDOW;
		if (set_window(sim, offset) < 0 ||
		    bar_read(sim, BAR_WINDOW, memory + offset, n) != (int)n)
			die("memory of %s", sim->name);
	}
	return memory;
}
