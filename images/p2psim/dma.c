// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * DMA: numbered records in the guest's memory, and which pages have got one
 *
 * The device writes a record to one page after another of its region, around
 * and around, so that the last number alone tells what each page has to have:
 * who reads the region later sees which pages are stale.
 *
 * A write is under the lock, from end to end, as is a change of state: when a
 * device has left RUNNING and the states like it, nothing is on its way.  The
 * lock is taken inside of the data_lock, and those of the IOMMU and of the
 * user's memory inside of it.
 */
#include <linux/bitmap.h>
#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "dma.h"
#include "ticker.h"

/* "P2PSDMA1", little endian */
#define RECORD_MAGIC	0x31414d4453503250ULL

/* What a page of the region begins with */
struct record {
	__le64 magic;
	__le64 seq;
};

/**
 * struct p2psim_dma - the engine of a device, and its log of pages
 * @config: that of the device
 * @vdev: whose memory it is
 * @log: that of the device
 * @ticker: writes
 * @lock: protects everything below, and the ticker's times
 * @state: that of the device
 * @on: the device has been told to write
 * @loaded: a state was loaded, and the memory not looked at since
 * @seq: number of the last record
 * @failed: writes that were refused since @on
 * @error: what the last of these returned
 * @logging: pages are logged
 * @reports: reports with pages, since live
 * @reported: pages in reports since logging started
 * @logged: pages that are in the ranges that are logged
 * @dirty: those of them that were written since the last report
 */
struct p2psim_dma {
	const struct p2psim_config *config;
	struct vfio_device *vdev;
	struct p2psim_log *log;
	struct p2psim_ticker ticker;

	struct mutex lock;		/* see above */
	enum vfio_device_mig_state state;
	bool on;
	bool loaded;
	u64 seq;
	u64 failed;
	int error;
	bool logging;
	u32 reports;
	u64 reported;
	unsigned long *logged;
	unsigned long *dirty;
};

static u32 pages_of(const struct p2psim_dma *dma)
{
	return dma->config->dma_bytes >> PAGE_SHIFT;
}

static u64 iova_of(const struct p2psim_dma *dma, u32 page)
{
	return dma->config->dma_iova + ((u64)page << PAGE_SHIFT);
}

/* A device in RUNNING_P2P has no more to say to others, but to memory */
static bool is_writing(const struct p2psim_dma *dma)
{
	return dma->on && p2psim_is_answering(dma->state);
}

static void write_one(struct p2psim_dma *dma)
{
	u32 page = dma->seq % pages_of(dma);
	struct record record = {
		.magic = cpu_to_le64(RECORD_MAGIC),
		.seq = cpu_to_le64(dma->seq + 1),
	};
	int ret;

	ret = vfio_dma_rw(dma->vdev, iova_of(dma, page), &record,
			  sizeof(record), true);
	if (ret) {
		dma->failed++;
		dma->error = ret;
		return;
	}
	dma->seq++;
	if (dma->logging && test_bit(page, dma->logged))
		__set_bit(page, dma->dirty);
}

static ktime_t dma_step(struct p2psim_ticker *ticker)
{
	struct p2psim_dma *dma = container_of(ticker, struct p2psim_dma,
					      ticker);

	if (p2psim_ticker_turn(ticker, is_writing(dma), ktime_get(),
			       dma->config->dma_period_us))
		write_one(dma);
	return ticker->next;
}

/* The number that a page has: 0, if it has no record */
static u64 number_in(struct p2psim_dma *dma, u32 page, int *error)
{
	struct record record;
	int ret;

	ret = vfio_dma_rw(dma->vdev, iova_of(dma, page), &record,
			  sizeof(record), false);
	if (ret)
		*error = ret;
	if (ret || record.magic != cpu_to_le64(RECORD_MAGIC))
		return 0;
	return le64_to_cpu(record.seq);
}

/* The number that a page has to have, if @last was the last one */
static u64 number_due(u64 last, u32 page, u32 pages)
{
	u64 back;

	if (last <= page)
		return 0;
	back = (last - 1 - page) % pages;
	return last - back;
}

/* What another device has written, and the migration has brought here */
static void inspect(struct p2psim_dma *dma)
{
	u32 page, pages = pages_of(dma), stale = 0, empty = 0;
	u64 seq, last = 0;
	int error = 0;

	for (page = 0; page < pages; page++)
		last = max(last, number_in(dma, page, &error));
	for (page = 0; page < pages; page++) {
		seq = number_in(dma, page, &error);
		empty += !seq;
		stale += seq != number_due(last, page, pages);
	}
	p2psim_log(dma->log,
		   "dma memory last=%llu pages=%u stale=%u empty=%u error=%d",
		   last, pages, stale, empty, error);
	/* Numbers go on where the source's ended */
	dma->seq = last;
}

static void log_counts(struct p2psim_dma *dma, const char *when)
{
	if (dma->on)
		p2psim_log(dma->log, "dma when=%s seq=%llu failed=%llu error=%d",
			   when, dma->seq, dma->failed, dma->error);
}

int p2psim_dma_create(struct p2psim_device *sim)
{
	struct p2psim_dma *dma;
	u32 pages = sim->config.dma_bytes >> PAGE_SHIFT;
	int ret = -ENOMEM;

	if (!pages)
		return 0;
	dma = kzalloc(sizeof(*dma), GFP_KERNEL);
	if (!dma)
		return -ENOMEM;
	dma->config = &sim->config;
	dma->vdev = &sim->vdev;
	dma->log = sim->log;
	mutex_init(&dma->lock);
	dma->logged = bitmap_zalloc(pages, GFP_KERNEL);
	dma->dirty = bitmap_zalloc(pages, GFP_KERNEL);
	if (!dma->logged || !dma->dirty)
		goto err_free;
	ret = p2psim_ticker_create(&dma->ticker, &dma->lock, dma_step,
				   "p2psim-dma", dev_name(sim->vdev.dev));
	if (ret)
		goto err_free;
	p2psim_ticker_start(&dma->ticker);
	sim->dma = dma;
	return 0;

err_free:
	bitmap_free(dma->dirty);
	bitmap_free(dma->logged);
	mutex_destroy(&dma->lock);
	kfree(dma);
	return ret;
}

void p2psim_dma_destroy(struct p2psim_device *sim)
{
	struct p2psim_dma *dma = sim->dma;

	if (!dma)
		return;
	p2psim_ticker_stop(&dma->ticker);
	bitmap_free(dma->dirty);
	bitmap_free(dma->logged);
	mutex_destroy(&dma->lock);
	kfree(dma);
	sim->dma = NULL;
}

/* RUNNING, and nothing was ever written */
void p2psim_dma_fresh(struct p2psim_device *sim)
{
	struct p2psim_dma *dma = sim->dma;

	if (!dma)
		return;
	guard(mutex)(&dma->lock);
	dma->state = sim->state;
	dma->on = false;
	dma->loaded = false;
	dma->seq = 0;
	p2psim_ticker_kick(&dma->ticker);
}

/* The device is in its state: from here on it writes, or not */
void p2psim_dma_enter(struct p2psim_device *sim)
{
	struct p2psim_dma *dma = sim->dma;
	bool wrote;

	lockdep_assert_held(&sim->data_lock);
	if (!dma)
		return;
	guard(mutex)(&dma->lock);
	wrote = p2psim_is_answering(dma->state);
	if (sim->state == VFIO_DEVICE_STATE_RESUMING)
		dma->loaded = true;
	dma->state = sim->state;
	if (wrote && !p2psim_is_answering(dma->state)) {
		log_counts(dma, "stop");
	} else if (!wrote && p2psim_is_answering(dma->state) && dma->loaded) {
		dma->loaded = false;
		inspect(dma);
	}
	p2psim_ticker_kick(&dma->ticker);
}

/* The device is about to forget everything */
void p2psim_dma_end(struct p2psim_device *sim, const char *when)
{
	struct p2psim_dma *dma = sim->dma;

	if (!dma)
		return;
	guard(mutex)(&dma->lock);
	log_counts(dma, when);
	dma->on = false;
}

/* Nobody's memory any more */
void p2psim_dma_close(struct p2psim_device *sim)
{
	struct p2psim_dma *dma = sim->dma;

	if (!dma)
		return;
	p2psim_dma_end(sim, "close");
	guard(mutex)(&dma->lock);
	dma->logging = false;
}

/* Only while the device is open: nothing keeps it so but its state */
int p2psim_dma_set(struct p2psim_device *sim, bool on)
{
	struct p2psim_dma *dma = sim->dma;

	guard(mutex)(&sim->data_lock);
	if (!dma || !sim->memory)
		return -ENODEV;
	guard(mutex)(&dma->lock);
	if (dma->on && !on)
		log_counts(dma, "off");
	if (!dma->on && on)
		dma->failed = 0;
	dma->on = on;
	p2psim_ticker_kick(&dma->ticker);
	return 0;
}

bool p2psim_dma_is_on(struct p2psim_device *sim)
{
	struct p2psim_dma *dma = sim->dma;

	if (!dma)
		return false;
	guard(mutex)(&dma->lock);
	return dma->on;
}

/*
 * DMA logging.  Without the kernel's bitmaps (IOMMUFD_DRIVER) the core has no
 * report to offer, and never asks for one.
 */
static struct p2psim_dma *to_dma(struct vfio_device *vdev)
{
	return container_of(vdev, struct p2psim_device, vdev)->dma;
}

static int p2psim_log_start(struct vfio_device *vdev,
			    struct rb_root_cached *ranges, u32 nnodes,
			    u64 *page_size)
{
	struct p2psim_dma *dma = to_dma(vdev);
	u32 page;

	if (!dma)
		return 0;
	guard(mutex)(&dma->lock);
	if (dma->logging)
		return -EINVAL;
	bitmap_zero(dma->logged, pages_of(dma));
	bitmap_zero(dma->dirty, pages_of(dma));
	for (page = 0; page < pages_of(dma); page++) {
		u64 iova = iova_of(dma, page);

		if (interval_tree_iter_first(ranges, iova,
					     iova + PAGE_SIZE - 1))
			__set_bit(page, dma->logged);
	}
	dma->logging = true;
	dma->reported = 0;
	p2psim_log(dma->log, "logging started ranges=%u pages=%u page_size=%llu",
		   nnodes, bitmap_weight(dma->logged, pages_of(dma)),
		   *page_size);
	return 0;
}

static int p2psim_log_stop(struct vfio_device *vdev)
{
	struct p2psim_dma *dma = to_dma(vdev);

	if (!dma)
		return 0;
	guard(mutex)(&dma->lock);
	if (dma->logging)
		p2psim_log(dma->log, "logging stopped reported=%llu left=%u",
			   dma->reported,
			   bitmap_weight(dma->dirty, pages_of(dma)));
	dma->logging = false;
	return 0;
}

static bool is_within(const struct p2psim_dma *dma, u32 page, u64 iova,
		      u64 length)
{
	return iova_of(dma, page) - iova < length;
}

static bool has_dirty(const struct p2psim_dma *dma, u64 iova, u64 length)
{
	u32 page;

	for_each_set_bit(page, dma->dirty, pages_of(dma)) {
		if (is_within(dma, page, iova, length))
			return true;
	}
	return false;
}

static int p2psim_log_read_and_clear(struct vfio_device *vdev,
				     unsigned long iova, unsigned long length,
				     struct iova_bitmap *dirty)
{
	struct p2psim_dma *dma = to_dma(vdev);
	const struct p2psim_fault *fault;
	u32 page, count = 0, left_out = 0;

	if (!dma)
		return 0;
	guard(mutex)(&dma->lock);
	if (!dma->logging)
		return -EINVAL;
	/* A report without pages is no report: users ask range by range */
	if (!has_dirty(dma, iova, length))
		return 0;
	fault = p2psim_fault_report(dma->config, dma->log, ++dma->reports);
	for_each_set_bit(page, dma->dirty, pages_of(dma)) {
		if (!is_within(dma, page, iova, length))
			continue;
		if (fault && left_out < fault->value) {
			left_out++;
			if (fault->kind == P2PSIM_REPORT_SHORT)
				__clear_bit(page, dma->dirty);
			continue;
		}
		__clear_bit(page, dma->dirty);
		iova_bitmap_set(dirty, iova_of(dma, page), PAGE_SIZE);
		count++;
	}
	dma->reported += count;
	p2psim_log(dma->log, "logging report pages=%u seq=%llu", count,
		   dma->seq);
	return 0;
}

const struct vfio_log_ops p2psim_log_ops = {
	.log_start = p2psim_log_start,
	.log_stop = p2psim_log_stop,
	.log_read_and_clear = p2psim_log_read_and_clear,
};

MODULE_IMPORT_NS(IOMMUFD);
