/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * p2psim: a simulated PCI device with VFIO migration
 *
 * Locks, outermost first:
 *   p2psim_item.lock       (configfs.c) configuration, going live and away
 *   p2psim_device.gate     open against going away; never held for long
 *   p2psim_device.state_lock  a whole state request, latencies included
 *   p2psim_device.data_lock   memory, registers, session and state; never
 *                          held while an arc sleeps
 *   p2psim_log.lock        the text of the log
 * A data fd takes the data_lock only, so nothing it does, faults on user
 * memory included, can invert an order with a state request or a close.
 */
#ifndef P2PSIM_H
#define P2PSIM_H

#include <linux/mutex.h>
#include <linux/vfio.h>

#define P2PSIM_STATES		(VFIO_DEVICE_STATE_PRE_COPY_P2P + 1)
#define P2PSIM_SIZE_MIN		4096u
#define P2PSIM_SIZE_MAX		(64u << 20)
#define P2PSIM_LATENCY_MAX_US	60000000u
#define P2PSIM_PCI_SIZE		256

struct p2psim_log;
struct p2psim_session;

/**
 * struct p2psim_config - what configfs sets before the device is live
 * @flags: VFIO_MIGRATION_* bits; 0 is a device that cannot migrate
 * @size_bytes: device memory
 * @initial_bytes: memory offered as initial data on entering PRE_COPY
 * @dirty_bytes: memory that is dirty again after each drained precopy pass
 * @seed: what fresh memory is generated from
 * @dma_logging: offer DMA logging
 * @latency_us: time each arc takes, by state left and state entered
 */
struct p2psim_config {
	u32 flags;
	u32 size_bytes;
	u32 initial_bytes;
	u32 dirty_bytes;
	u64 seed;
	bool dma_logging;
	u32 latency_us[P2PSIM_STATES][P2PSIM_STATES];
};

/**
 * struct p2psim_device - a live device
 * @vdev: what the VFIO core sees
 * @config: fixed for the life of the device
 * @log: outlives the registration of @vdev, but not @vdev itself
 * @gate: protects @opened and @retired
 * @opened: a user holds the device
 * @retired: the device is going away and cannot be opened again
 * @state_lock: serialises state requests, resets, open and close
 * @data_lock: protects everything below
 * @state: changed under both locks, so either one is enough to read it
 * @memory: @config.size_bytes long while the device is open, else NULL
 * @window: offset in @memory of the BAR's window
 * @pci: PCI configuration space
 * @session: data transfer in progress or NULL
 */
struct p2psim_device {
	struct vfio_device vdev;
	struct p2psim_config config;
	struct p2psim_log *log;

	struct mutex gate;		/* see above */
	bool opened;
	bool retired;

	struct mutex state_lock;	/* see above */
	struct mutex data_lock;		/* see above */
	enum vfio_device_mig_state state;
	u8 *memory;
	u32 window;
	u8 pci[P2PSIM_PCI_SIZE];
	struct p2psim_session *session;
};

/* main.c */
struct device *p2psim_bus_add(const char *name,
			      const struct p2psim_config *config,
			      struct p2psim_log *log);
int p2psim_bus_remove(struct device *dev);

/* configfs.c */
int p2psim_configfs_init(void);
void p2psim_configfs_exit(void);

/* device.c */
struct p2psim_device *p2psim_device_create(struct device *dev,
					   const struct p2psim_config *config,
					   struct p2psim_log *log);
int p2psim_device_retire(struct p2psim_device *sim);
void p2psim_device_destroy(struct p2psim_device *sim);

/* pci.c */
void p2psim_pci_reset(struct p2psim_device *sim);
void p2psim_pci_write(struct p2psim_device *sim, u32 pos, const u8 *buf,
		      size_t count);
void p2psim_bar_read(struct p2psim_device *sim, u32 pos, u8 *buf,
		     size_t count);
int p2psim_bar_write(struct p2psim_device *sim, u32 pos, const u8 *buf,
		     size_t count);
u32 p2psim_region_size(u32 index);

/* migration.c */
extern const struct vfio_migration_ops p2psim_migration_ops;
const char *p2psim_state_name(enum vfio_device_mig_state state);
int p2psim_state_parse(const char *name);
bool p2psim_is_arc(enum vfio_device_mig_state from,
		   enum vfio_device_mig_state to);
bool p2psim_is_saving(enum vfio_device_mig_state state);
void p2psim_refresh(struct p2psim_device *sim);

/* stream.c */
struct file *p2psim_session_start(struct p2psim_device *sim, bool saving);
void p2psim_session_end(struct p2psim_device *sim);

/* save.c */
void p2psim_session_touch(struct p2psim_device *sim, u32 offset, u32 length);
u64 p2psim_stop_copy_bytes(struct p2psim_device *sim);

/* load.c */
int p2psim_session_verify(struct p2psim_device *sim);

/* log.c */
void p2psim_log_init(void);
void p2psim_log_exit(void);
struct p2psim_log *p2psim_log_create(const char *name);
void p2psim_log_destroy(struct p2psim_log *log);
__printf(2, 3)
void p2psim_log(struct p2psim_log *log, const char *fmt, ...);

#endif
