/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A p2psim device from its configfs directory to its file descriptors, and
 * TAP output.  What ought to work anyway ends the test program when it does
 * not; what is under test returns 0 or more, or -errno.
 */
#ifndef SELFTEST_VFIO_H
#define SELFTEST_VFIO_H

#include <linux/vfio.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define __printf(format_at, args_at) \
	__attribute__((format(printf, format_at, args_at)))
#define __noreturn	__attribute__((noreturn))

#define STATES		(VFIO_DEVICE_STATE_PRE_COPY_P2P + 1)
#define BAR_WINDOW	2048

struct sim {
	const char *name;
	int container;
	int group;
	int fd;
};

extern const char *const state_names[STATES];

/* configfs, with attribute values as text */
int sim_mkdir(const char *name);
int sim_rmdir(const char *name);
int sim_set(const char *name, const char *attribute, const char *value);
int sim_set_number(const char *name, const char *attribute, __u64 value);
void sim_get(const char *name, const char *attribute, char *buf, size_t bytes);
/* Made, configured by "attribute=value" strings up to NULL, and live */
void sim_create(const char *name, ...) __attribute__((sentinel));
void sim_delete(const char *name);
/* The whole log; freed by the caller */
char *sim_log(const char *name);
/* How often the log has this text */
int sim_logged(const char *name, const char *text);

void sim_open(struct sim *sim, const char *name);
void sim_close(struct sim *sim);

/* Returns 0 and the data fd or -1 in *data_fd, if that is not NULL */
int sim_set_state(struct sim *sim, __u32 state, int *data_fd);
__u32 sim_state(struct sim *sim);
int sim_feature_get(struct sim *sim, __u32 feature, void *data,
		    size_t bytes);
int sim_feature_set(struct sim *sim, __u32 feature);
int sim_feature_give(struct sim *sim, __u32 feature, void *data,
		     size_t bytes);
/* 0 if the device has the feature */
int sim_feature_probe(struct sim *sim, __u32 feature);
/* Of @bytes of memory from @iova on, page by page */
int sim_logging_start(struct sim *sim, __u64 iova, __u64 bytes);
__u64 sim_stop_copy_bytes(struct sim *sim);
int sim_precopy_info(int data_fd, struct vfio_precopy_info *info);
int sim_reset(struct sim *sim);

int bar_read(struct sim *sim, __u32 offset, void *buf, size_t bytes);
int bar_write(struct sim *sim, __u32 offset, const void *buf, size_t bytes);
int memory_write(struct sim *sim, __u32 offset, const void *buf,
		 size_t bytes);
/* All of device memory; freed by the caller */
__u8 *memory_read(struct sim *sim, __u32 bytes);

__u64 now_ns(clockid_t clock);

/* Prints one TAP line; the arguments describe the test, printf-like */
__printf(2, 3)
bool ok(bool good, const char *fmt, ...);
/* ok() for a value that is expected */
__printf(3, 4)
bool is(long long got, long long want, const char *fmt, ...);
/* ok() for an attribute's text */
void attribute_is(const char *name, const char *attribute, const char *want);
/* Prints the plan; returns the exit code */
int done_testing(void);
__printf(1, 2) __noreturn
void die(const char *fmt, ...);

#endif
