// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The VFIO device: its life, its regions, its ioctls
 */
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "dma.h"

/* Offsets on the device fd, as vfio-pci lays them out */
#define REGION_SHIFT	40
#define REGION_MASK	(BIT_ULL(REGION_SHIFT) - 1)
/* Largest single access; also what one passes through on the stack */
#define ACCESS_BYTES	8u

static struct p2psim_device *to_sim(struct vfio_device *vdev)
{
	return container_of(vdev, struct p2psim_device, vdev);
}

static int p2psim_init_device(struct vfio_device *vdev)
{
	struct p2psim_device *sim = to_sim(vdev);

	mutex_init(&sim->gate);
	p2psim_state_init(sim);
	return 0;
}

static void p2psim_release_device(struct vfio_device *vdev)
{
	struct p2psim_device *sim = to_sim(vdev);

	p2psim_state_destroy(sim);
	mutex_destroy(&sim->gate);
}

static int p2psim_pass_gate(struct p2psim_device *sim)
{
	guard(mutex)(&sim->gate);
	if (sim->retired)
		return -ENODEV;
	sim->opened = true;
	return 0;
}

static int p2psim_open_device(struct vfio_device *vdev)
{
	struct p2psim_device *sim = to_sim(vdev);
	u8 *memory;
	int ret;

	memory = kvzalloc(sim->config.size_bytes, GFP_KERNEL_ACCOUNT);
	if (!memory)
		return -ENOMEM;
	ret = p2psim_pass_gate(sim);
	if (ret) {
		kvfree(memory);
		return ret;
	}
	guard(p2psim_state)(sim);
	guard(mutex)(&sim->data_lock);
	sim->memory = memory;
	sim->info_v2 = false;
	p2psim_refresh(sim);
	p2psim_log(sim->log, "open");
	return 0;
}

static void p2psim_close_device(struct vfio_device *vdev)
{
	struct p2psim_device *sim = to_sim(vdev);

	scoped_guard(p2psim_state, sim) {
		guard(mutex)(&sim->data_lock);
		p2psim_session_end(sim);
		p2psim_peer_end(sim, "close");
		p2psim_dma_close(sim);
		p2psim_heartbeat_end(sim, "close");
		kvfree(sim->memory);
		sim->memory = NULL;
		p2psim_log(sim->log, "close state=%s",
			   p2psim_state_name(sim->state));
	}
	guard(mutex)(&sim->gate);
	sim->opened = false;
}

/* One access, within an aligned ACCESS_BYTES */
static int p2psim_access(struct p2psim_device *sim, u32 index, u32 pos,
			 u8 *buf, size_t count, bool write)
{
	guard(mutex)(&sim->data_lock);
	if (index == VFIO_PCI_BAR0_REGION_INDEX) {
		if (write)
			return p2psim_bar_write(sim, pos, buf, count);
		p2psim_bar_read(sim, pos, buf, count);
	} else {
		if (write)
			p2psim_pci_write(sim, pos, buf, count);
		else
			memcpy(buf, sim->pci + pos, count);
	}
	return 0;
}

/* Finds the region of *ppos and cuts @count to what is left of it */
static int p2psim_region(loff_t *ppos, size_t *count, u32 *index, u32 *pos)
{
	u64 offset = *ppos & REGION_MASK;

	*index = *ppos >> REGION_SHIFT;
	if (offset >= p2psim_region_size(*index))
		return -EINVAL;
	*pos = offset;
	*count = min_t(size_t, *count, p2psim_region_size(*index) - *pos);
	return 0;
}

static ssize_t p2psim_read(struct vfio_device *vdev, char __user *buf,
			   size_t count, loff_t *ppos)
{
	struct p2psim_device *sim = to_sim(vdev);
	u8 access[ACCESS_BYTES];
	size_t done, n;
	u32 index, pos;
	int ret;

	ret = p2psim_region(ppos, &count, &index, &pos);
	if (ret)
		return ret;
	for (done = 0; done < count; done += n, pos += n) {
		n = min_t(size_t, count - done,
			  ACCESS_BYTES - pos % ACCESS_BYTES);
		ret = p2psim_access(sim, index, pos, access, n, false);
		if (ret)
			return ret;
		if (copy_to_user(buf + done, access, n))
			return -EFAULT;
	}
	*ppos += done;
	return done;
}

static ssize_t p2psim_write(struct vfio_device *vdev, const char __user *buf,
			    size_t count, loff_t *ppos)
{
	struct p2psim_device *sim = to_sim(vdev);
	u8 access[ACCESS_BYTES];
	size_t done, n;
	u32 index, pos;
	int ret;

	ret = p2psim_region(ppos, &count, &index, &pos);
	if (ret)
		return ret;
	for (done = 0; done < count; done += n, pos += n) {
		n = min_t(size_t, count - done,
			  ACCESS_BYTES - pos % ACCESS_BYTES);
		if (copy_from_user(access, buf + done, n))
			return -EFAULT;
		ret = p2psim_access(sim, index, pos, access, n, true);
		if (ret)
			return ret;
	}
	*ppos += done;
	return done;
}

static long p2psim_get_info(void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_device_info, num_irqs);
	struct vfio_device_info info = {};

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long p2psim_get_region_info(void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_region_info, offset);
	struct vfio_region_info info = {};

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz || info.index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info.size = p2psim_region_size(info.index);
	info.offset = (u64)info.index << REGION_SHIFT;
	info.flags = 0;
	if (info.size)
		info.flags = VFIO_REGION_INFO_FLAG_READ |
			     VFIO_REGION_INFO_FLAG_WRITE;
	info.cap_offset = 0;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

/* There are no interrupts: neither a pin nor a capability says otherwise */
static long p2psim_get_irq_info(void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_irq_info, count);
	struct vfio_irq_info info = {};

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz || info.index > VFIO_PCI_MSIX_IRQ_INDEX)
		return -EINVAL;
	info.flags = VFIO_IRQ_INFO_EVENTFD;
	info.count = 0;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static int p2psim_reset_now(struct p2psim_device *sim)
{
	const struct p2psim_fault *fault;

	lockdep_assert_held(&sim->state_lock);
	guard(mutex)(&sim->data_lock);
	fault = p2psim_fault_reset(sim);
	if (fault)
		return -(int)fault->value;
	p2psim_log(sim->log, "reset state=%s", p2psim_state_name(sim->state));
	p2psim_peer_end(sim, "reset");
	p2psim_dma_end(sim, "reset");
	p2psim_heartbeat_end(sim, "reset");
	p2psim_refresh(sim);
	return 0;
}

static long p2psim_reset(struct p2psim_device *sim)
{
	int ret;

	if (!sim->config.defer_reset)
		p2psim_state_lock(sim);
	else if (!p2psim_state_lock_or_defer_reset(sim))
		return 0;
	ret = p2psim_reset_now(sim);
	p2psim_state_unlock(sim);
	return ret;
}

static long p2psim_ioctl(struct vfio_device *vdev, unsigned int cmd,
			 unsigned long arg)
{
	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		return p2psim_get_info((void __user *)arg);
	case VFIO_DEVICE_GET_REGION_INFO:
		return p2psim_get_region_info((void __user *)arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return p2psim_get_irq_info((void __user *)arg);
	case VFIO_DEVICE_SET_IRQS:
		return -EINVAL;
	case VFIO_DEVICE_RESET:
		return p2psim_reset(to_sim(vdev));
	default:
		return -ENOTTY;
	}
}

/* The core handles the features of migration that it knows */
static int p2psim_device_feature(struct vfio_device *vdev, u32 flags,
				 void __user *arg, size_t argsz)
{
	switch (flags & VFIO_DEVICE_FEATURE_MASK) {
	case VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2:
		return p2psim_set_info_v2(to_sim(vdev), flags, argsz);
	default:
		return -ENOTTY;
	}
}

/* Who writes to the guest's memory needs this, even if it pins nothing */
static void p2psim_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
}

static const struct vfio_device_ops p2psim_device_ops = {
	.name = "p2psim",
	.init = p2psim_init_device,
	.release = p2psim_release_device,
	.open_device = p2psim_open_device,
	.close_device = p2psim_close_device,
	.read = p2psim_read,
	.write = p2psim_write,
	.ioctl = p2psim_ioctl,
	.device_feature = p2psim_device_feature,
	.dma_unmap = p2psim_dma_unmap,
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
};

struct p2psim_device *p2psim_device_create(struct device *dev,
					   const struct p2psim_config *config,
					   struct p2psim_log *log)
{
	struct p2psim_device *sim;
	int ret;

	sim = vfio_alloc_device(p2psim_device, vdev, dev, &p2psim_device_ops);
	if (IS_ERR(sim))
		return sim;
	sim->config = *config;
	sim->log = log;
	sim->reset_now = p2psim_reset_now;
	sim->vdev.migration_flags = config->flags;
	if (config->flags)
		sim->vdev.mig_ops = &p2psim_migration_ops;
	if (config->dma_logging)
		sim->vdev.log_ops = &p2psim_log_ops;
	ret = p2psim_peer_create(sim);
	if (ret)
		goto err_put;
	ret = p2psim_dma_create(sim);
	if (ret)
		goto err_peer;
	/* Before anybody can open it */
	p2psim_log_live(log, config);
	ret = vfio_register_emulated_iommu_dev(&sim->vdev);
	if (ret)
		goto err_gone;
	return sim;

err_gone:
	p2psim_log(log, "gone");
	p2psim_dma_destroy(sim);
err_peer:
	p2psim_peer_destroy(sim);
err_put:
	vfio_put_device(&sim->vdev);
	return ERR_PTR(ret);
}

/* Closes the door to users, unless one is inside: then -EBUSY */
int p2psim_device_retire(struct p2psim_device *sim)
{
	guard(mutex)(&sim->gate);
	if (sim->opened)
		return -EBUSY;
	sim->retired = true;
	return 0;
}

void p2psim_device_destroy(struct p2psim_device *sim)
{
	/* Waits until nobody uses the device: then nothing is sent to it */
	vfio_unregister_group_dev(&sim->vdev);
	p2psim_dma_destroy(sim);
	p2psim_peer_destroy(sim);
	vfio_put_device(&sim->vdev);
}
