// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The VFIO device: vfio-pci's, with migration beside it
 */
#include <linux/err.h>
#include <linux/iommufd.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "configfs.h"
#include "p2pvf.h"

static int p2pvf_init_device(struct vfio_device *vdev)
{
	p2psim_state_init(&to_p2pvf(vdev)->sim);
	return vfio_pci_core_init_dev(vdev);
}

static void p2pvf_release_device(struct vfio_device *vdev)
{
	p2psim_state_destroy(&to_p2pvf(vdev)->sim);
	vfio_pci_core_release_dev(vdev);
}

static void log_live(struct p2psim_device *sim)
{
	const struct p2psim_config *config = &sim->config;
	char flags[64], ways[P2PSIM_WAYS_BYTES];

	p2psim_print_flags(flags, sizeof(flags), config->flags);
	p2psim_print_ways(ways, sizeof(ways), config);
	p2psim_log(sim->log,
		   "live size_bytes=%u initial_bytes=%u dirty_bytes=%u seed=%llu flags=%s%s",
		   config->size_bytes, config->initial_bytes,
		   config->dirty_bytes, config->seed,
		   strreplace(strim(flags), ' ', ','), ways);
}

/* From here on the device is as configured now, and as nobody has used it */
static int go_live(struct p2pvf_device *vf)
{
	struct p2psim_device *sim = &vf->sim;
	u8 *memory;

	/* Nobody looks at it now: the VF is not open, and no session is */
	sim->log = p2pvf_slot_open(vf->slot, sim->vdev.dev, &sim->config);
	if (!sim->log)
		return -ENOMEM;
	/* Whether there is any migration is settled since the VF is bound */
	if (!sim->vdev.mig_ops)
		sim->config.flags = 0;
	memory = kvzalloc(sim->config.size_bytes, GFP_KERNEL_ACCOUNT);
	if (!memory) {
		p2pvf_slot_close(vf->slot);
		return -ENOMEM;
	}
	guard(p2psim_state)(sim);
	guard(mutex)(&sim->data_lock);
	sim->memory = memory;
	sim->vdev.migration_flags = sim->config.flags;
	memset(sim->tries, 0, sizeof(sim->tries));
	sim->saves = 0;
	sim->resets = 0;
	sim->info_v2 = false;
	p2psim_refresh(sim);
	log_live(sim);
	p2psim_log(sim->log, "open");
	return 0;
}

static void go_away(struct p2pvf_device *vf)
{
	struct p2psim_device *sim = &vf->sim;

	scoped_guard(p2psim_state, sim) {
		guard(mutex)(&sim->data_lock);
		p2psim_session_end(sim);
		kvfree(sim->memory);
		sim->memory = NULL;
		p2psim_log(sim->log, "close state=%s",
			   p2psim_state_name(sim->state));
		p2psim_log(sim->log, "gone");
	}
	p2pvf_slot_close(vf->slot);
}

static int p2pvf_open_device(struct vfio_device *vdev)
{
	struct p2pvf_device *vf = to_p2pvf(vdev);
	int ret;

	ret = vfio_pci_core_enable(&vf->sim.core);
	if (ret)
		return ret;
	/* Which reset the function, when nobody had it */
	p2pvf_reset_settle(vf);
	ret = go_live(vf);
	if (ret) {
		vfio_pci_core_disable(&vf->sim.core);
		return ret;
	}
	vfio_pci_core_finish_enable(&vf->sim.core);
	return 0;
}

static void p2pvf_close_device(struct vfio_device *vdev)
{
	struct p2pvf_device *vf = to_p2pvf(vdev);

	p2pvf_reset_settle(vf);
	go_away(vf);
	vfio_pci_core_close_device(vdev);
}

static long p2pvf_ioctl(struct vfio_device *vdev, unsigned int cmd,
			unsigned long arg)
{
	struct p2pvf_device *vf = to_p2pvf(vdev);
	long ret = 0;

	if (cmd == VFIO_DEVICE_RESET)
		ret = p2pvf_reset_fault(vf);
	if (!ret)
		ret = vfio_pci_core_ioctl(vdev, cmd, arg);
	if (cmd == VFIO_DEVICE_RESET || cmd == VFIO_DEVICE_PCI_HOT_RESET)
		p2pvf_reset_settle(vf);
	return ret;
}

static ssize_t p2pvf_write(struct vfio_device *vdev, const char __user *buf,
			   size_t count, loff_t *ppos)
{
	bool config = VFIO_PCI_OFFSET_TO_INDEX(*ppos) ==
		      VFIO_PCI_CONFIG_REGION_INDEX;
	ssize_t done = vfio_pci_core_write(vdev, buf, count, ppos);

	/* A function level reset is a bit in configuration space */
	if (config)
		p2pvf_reset_settle(to_p2pvf(vdev));
	return done;
}

static int p2pvf_device_feature(struct vfio_device *vdev, u32 flags,
				void __user *arg, size_t argsz)
{
	switch (flags & VFIO_DEVICE_FEATURE_MASK) {
	case VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2:
		return p2psim_set_info_v2(&to_p2pvf(vdev)->sim, flags, argsz);
	default:
		return vfio_pci_core_ioctl_feature(vdev, flags, arg, argsz);
	}
}

const struct vfio_device_ops p2pvf_device_ops = {
	.name = "p2pvf-vfio-pci",
	.init = p2pvf_init_device,
	.release = p2pvf_release_device,
	.open_device = p2pvf_open_device,
	.close_device = p2pvf_close_device,
	.ioctl = p2pvf_ioctl,
	.device_feature = p2pvf_device_feature,
	.read = vfio_pci_core_read,
	.write = p2pvf_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
};

/*
 * p2psim's, for a device that also others can reset, sysfs for example.  The
 * VFIO core wants no flags to mean no operations, but wants the operations to
 * stay the same for as long as the VF is bound.
 */
static int may_migrate(struct vfio_device *vdev)
{
	if (!vdev->migration_flags)
		return -ENOTTY;
	p2pvf_reset_settle(to_p2pvf(vdev));
	return 0;
}

static struct file *p2pvf_set_state(struct vfio_device *vdev,
				    enum vfio_device_mig_state to)
{
	int ret = may_migrate(vdev);

	if (ret)
		return ERR_PTR(ret);
	return p2psim_migration_ops.migration_set_state(vdev, to);
}

static int p2pvf_get_state(struct vfio_device *vdev,
			   enum vfio_device_mig_state *state)
{
	return may_migrate(vdev) ?:
	       p2psim_migration_ops.migration_get_state(vdev, state);
}

static int p2pvf_get_data_size(struct vfio_device *vdev,
			       unsigned long *bytes)
{
	return may_migrate(vdev) ?:
	       p2psim_migration_ops.migration_get_data_size(vdev, bytes);
}

const struct vfio_migration_ops p2pvf_migration_ops = {
	.migration_set_state = p2pvf_set_state,
	.migration_get_state = p2pvf_get_state,
	.migration_get_data_size = p2pvf_get_data_size,
};
