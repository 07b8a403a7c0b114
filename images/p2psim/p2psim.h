/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * p2psim: a simulated PCI device with VFIO migration
 *
 * Locks, outermost first:
 *   p2psim_item.lock       (configfs.h) configuration, going live and away
 *   p2psim_device.gate     open against going away; never held for long
 *   p2psim_device.state_lock  a whole state request, latencies included
 *   p2psim_device.data_lock   memory, registers, session and state; never
 *                          held while an arc or a data fd sleeps
 *   p2psim_group.lock      (peer.c) traffic of all devices of a group
 *   p2psim_dma.lock       (dma.c) DMA, and the log of pages
 *   p2psim_device.reset_lock  whether a reset is due
 *   p2psim_log.lock        the text of the log
 * A data fd takes the data_lock and what is below, so nothing it does, faults
 * on user memory included, can invert an order with a state request or a
 * close.  Its own io_lock (stream.h) is outside of that: calls of one fd come
 * one after another, each with the time that its bytes take, and nothing else
 * ever waits for that lock.  Traffic takes the lock of its group and the
 * log's, and so never waits for an arc.
 */
#ifndef P2PSIM_H
#define P2PSIM_H

#include <linux/cleanup.h>
#include <linux/mutex.h>
#include <linux/vfio.h>

/* images/p2pvf builds this core into a driver for real PCI functions */
#ifdef P2PSIM_VFIO_PCI
#include <linux/vfio_pci_core.h>
#endif

/* Linux 7.1 has these; older ones leave features they do not know to us */
#ifndef VFIO_PRECOPY_INFO_REINIT
#define VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2	12
#define VFIO_PRECOPY_INFO_REINIT		BIT(0)
#endif

#define P2PSIM_STATES		(VFIO_DEVICE_STATE_PRE_COPY_P2P + 1)
#define P2PSIM_SIZE_MIN		4096u
#define P2PSIM_SIZE_MAX		(64u << 20)
#define P2PSIM_LATENCY_MAX_US	60000000u
#define P2PSIM_NS_PER_KIB_MAX	1000000000u
#define P2PSIM_PCI_SIZE		256
#define P2PSIM_NAME_BYTES	32
#define P2PSIM_PEERS		32
#define P2PSIM_PERIOD_MIN_US	10u
#define P2PSIM_PERIOD_MAX_US	60000000u
#define P2PSIM_DMA_MAX		(64u << 20)
#define P2PSIM_FAULTS		16
#define P2PSIM_FAULT_LINE	80
/* Longer than any time limit of who waits for the device */
#define P2PSIM_HANG_MAX_US	3600000000u

struct p2psim_dma;
struct p2psim_log;
struct p2psim_peer;
struct p2psim_session;
struct stream_end;

enum p2psim_fault_kind {
	P2PSIM_ARC_FAIL,
	P2PSIM_ARC_ERROR,
	P2PSIM_ARC_HANG,
	P2PSIM_ARC_LATE,
	P2PSIM_SAVE_CORRUPT,
	P2PSIM_SAVE_SHORT,
	P2PSIM_RESET_FAIL,
	P2PSIM_REPORT_SHORT,
	P2PSIM_REPORT_LATE,
};

/**
 * struct p2psim_fault - one line of the attribute "faults"
 * @kind: what goes wrong
 * @from: state left, of an arc
 * @to: state entered, of an arc
 * @nth: which try it strikes, from 1; 0 is every one
 * @value: an errno, microseconds, an offset, bytes or pages
 */
struct p2psim_fault {
	enum p2psim_fault_kind kind;
	u8 from;
	u8 to;
	u32 nth;
	u32 value;
};

/**
 * struct p2psim_config - what configfs sets before the device is live
 * @flags: VFIO_MIGRATION_* bits; 0 is a device that cannot migrate
 * @size_bytes: device memory
 * @initial_bytes: memory offered as initial data on entering PRE_COPY
 * @dirty_bytes: memory that is dirty again after each drained precopy pass
 * @seed: what fresh memory is generated from
 * @dma_logging: offer DMA logging
 * @precopy_info_v2: offer VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2
 * @reinit_drain: with how many drains of precopy there is new initial data
 * @reinit_query: with how many queries since the last read there is; 0 for
 *                either one is never
 * @read_ns_per_kib: time that 1024 bytes take in read() of a saving fd
 * @write_ns_per_kib: the same in write() of a loading fd
 * @keep_on_bad_stream: a stream that is refused on leaving RESUMING leaves the
 *                      device there, and not in ERROR
 * @defer_reset: a reset during a state request returns at once, and takes
 *               effect when that is over
 * @load_in_write: a stream is checked and taken over in write(), and leaving
 *                 RESUMING asks for nothing
 * @latency_us: time each arc takes, by state left and state entered
 * @peer_group: devices of a group can send to one another; "" is no group
 * @peer_id: number of the device in its group
 * @peers: bit for each number that it sends to
 * @peer_period_us: from one transaction to the next
 * @peer_completion_us: until a transaction has arrived and is answered
 * @dma_iova: where in the guest's memory it writes to
 * @dma_bytes: and up to where; 0 is a device without DMA
 * @dma_period_us: from one record to the next
 * @nfaults: used ones of @faults
 * @faults: what goes wrong
 */
struct p2psim_config {
	u32 flags;
	u32 size_bytes;
	u32 initial_bytes;
	u32 dirty_bytes;
	u64 seed;
	bool dma_logging;
	bool precopy_info_v2;
	u32 reinit_drain;
	u32 reinit_query;
	u32 read_ns_per_kib;
	u32 write_ns_per_kib;
	bool keep_on_bad_stream;
	bool defer_reset;
	bool load_in_write;
	u32 latency_us[P2PSIM_STATES][P2PSIM_STATES];
	char peer_group[P2PSIM_NAME_BYTES + 1];
	u32 peer_id;
	u32 peers;
	u32 peer_period_us;
	u32 peer_completion_us;
	u64 dma_iova;
	u32 dma_bytes;
	u32 dma_period_us;
	u32 nfaults;
	struct p2psim_fault faults[P2PSIM_FAULTS];
};

/**
 * struct p2psim_heartbeat - what the guest wrote to the BAR's heartbeat
 * @count: beats since open or reset; with none, what follows means nothing
 * @first: the first one's number
 * @first_ns: when it came, CLOCK_REALTIME
 * @last: the last one's number
 * @last_ns: when it came
 * @gap_start_ns: where the longest time from one to the next began
 * @gap_end_ns: where that ended
 * @missed: numbers jumped over
 * @repeated: beats with a number not above the one before
 * @untimely: beats in a state in which no VM runs, refused or not
 */
struct p2psim_heartbeat {
	u64 count;
	u32 first;
	u32 last;
	u64 first_ns;
	u64 last_ns;
	u64 gap_start_ns;
	u64 gap_end_ns;
	u64 missed;
	u64 repeated;
	u64 untimely;
};

/**
 * struct p2psim_device - a live device
 * @vdev: what the VFIO core sees
 * @core: the same for vfio-pci, with @vdev as its first member
 * @config: fixed for the life of the device
 * @log: outlives the registration of @vdev, but not @vdev itself
 * @peer: traffic with others, NULL without a group; lives while registered
 * @dma: writes to the guest's memory, or NULL; lives while registered
 * @gate: protects @opened and @retired
 * @opened: a user holds the device
 * @retired: the device is going away and cannot be opened again
 * @state_lock: serialises state requests, resets, open and close; protects
 *              the counts that follow
 * @tries: how often each arc was tried since live
 * @saves: saving sessions since live
 * @resets: resets since live
 * @reset_lock: protects @reset_due, and the state_lock's release against it
 * @reset_due: who holds the state_lock has to reset the device
 * @reset_now: does that, and returns 0 or a fault's -errno
 * @data_lock: protects everything below
 * @state: changed under both locks, so either one is enough to read it
 * @memory: @config.size_bytes long while the device is open, else NULL
 * @window: offset in @memory of the BAR's window
 * @pci: PCI configuration space
 * @heart: the guest's heartbeat; does not migrate
 * @info_v2: the user has opted in to flags of precopy info, since open
 * @session: data transfer in progress or NULL
 */
struct p2psim_device {
	union {
		struct vfio_device vdev;
#ifdef P2PSIM_VFIO_PCI
		struct vfio_pci_core_device core;
#endif
	};
	struct p2psim_config config;
	struct p2psim_log *log;
	struct p2psim_peer *peer;
	struct p2psim_dma *dma;

	struct mutex gate;		/* see above */
	bool opened;
	bool retired;

	struct mutex state_lock;	/* see above */
	u32 tries[P2PSIM_STATES][P2PSIM_STATES];
	u32 saves;
	u32 resets;

	struct mutex reset_lock;		/* see above */
	bool reset_due;
	int (*reset_now)(struct p2psim_device *sim);

	struct mutex data_lock;		/* see above */
	enum vfio_device_mig_state state;
	u8 *memory;
	u32 window;
	u8 pci[P2PSIM_PCI_SIZE];
	struct p2psim_heartbeat heart;
	bool info_v2;
	struct p2psim_session *session;
};

/* migration.c */
void p2psim_state_init(struct p2psim_device *sim);
void p2psim_state_destroy(struct p2psim_device *sim);
void p2psim_state_lock(struct p2psim_device *sim);
void p2psim_state_unlock(struct p2psim_device *sim);
bool p2psim_state_lock_or_defer_reset(struct p2psim_device *sim);

/* The state_lock, and what is due when it is released */
DEFINE_GUARD(p2psim_state, struct p2psim_device *, p2psim_state_lock(_T),
	     p2psim_state_unlock(_T))

/* main.c */
struct device *p2psim_bus_add(const char *name,
			      const struct p2psim_config *config,
			      struct p2psim_log *log);
int p2psim_bus_remove(struct device *dev);

/* configfs.c */
void p2psim_log_live(struct p2psim_log *log,
		     const struct p2psim_config *config);
int p2psim_configfs_init(void);
void p2psim_configfs_exit(void);

/* attributes.c */
int p2psim_split(char *line, char **words, int most);

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
bool p2psim_is_sending(enum vfio_device_mig_state state);
bool p2psim_is_answering(enum vfio_device_mig_state state);
void p2psim_refresh(struct p2psim_device *sim);
int p2psim_set_info_v2(struct p2psim_device *sim, u32 flags, size_t argsz);

/* peer.c */
int p2psim_peer_create(struct p2psim_device *sim);
void p2psim_peer_destroy(struct p2psim_device *sim);
void p2psim_peer_fresh(struct p2psim_device *sim);
void p2psim_peer_end(struct p2psim_device *sim, const char *when);
void p2psim_peer_enter(struct p2psim_device *sim);
int p2psim_peer_quiesce(struct p2psim_device *sim);

/* counters.c */
int p2psim_peer_set_traffic(struct p2psim_device *sim, bool on);
bool p2psim_peer_traffic(struct p2psim_device *sim);
size_t p2psim_peer_end_bytes(struct p2psim_device *sim);
void p2psim_peer_save(struct p2psim_device *sim, struct stream_end *end);
bool p2psim_peer_fits(struct p2psim_device *sim, const struct stream_end *end,
		      size_t bytes);
void p2psim_peer_load(struct p2psim_device *sim, const struct stream_end *end);

/* fault.c */
int p2psim_fault_parse(char *line, struct p2psim_fault *fault);
int p2psim_fault_print(char *buf, size_t bytes,
		       const struct p2psim_fault *fault);
void p2psim_fault_log(struct p2psim_log *log,
		      const struct p2psim_fault *fault);
const struct p2psim_fault *p2psim_fault_arc(struct p2psim_device *sim,
					    enum vfio_device_mig_state to);
const struct p2psim_fault *p2psim_fault_save(struct p2psim_device *sim);
const struct p2psim_fault *p2psim_fault_reset(struct p2psim_device *sim);
const struct p2psim_fault *
p2psim_fault_report(const struct p2psim_config *config, struct p2psim_log *log,
		    u32 nth);

/* stream.c */
struct file *p2psim_session_start(struct p2psim_device *sim, bool saving);
void p2psim_session_end(struct p2psim_device *sim);
void p2psim_session_wake(struct p2psim_device *sim);

/* save.c */
void p2psim_session_touch(struct p2psim_device *sim, u32 offset, u32 length);
u64 p2psim_stop_copy_bytes(struct p2psim_device *sim);

/* load.c */
int p2psim_session_verify(struct p2psim_device *sim);

/* heartbeat.c */
void p2psim_heartbeat(struct p2psim_device *sim, u32 beat);
void p2psim_heartbeat_refused(struct p2psim_device *sim);
void p2psim_heartbeat_end(struct p2psim_device *sim, const char *when);

/* log.c */
int p2psim_log_init(void);
void p2psim_log_exit(void);
struct p2psim_log *p2psim_log_create(const char *name);
void p2psim_log_destroy(struct p2psim_log *log);
__printf(2, 3)
void p2psim_log(struct p2psim_log *log, const char *fmt, ...);

#endif
