// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Resets of the function, which p2psim's part has to hear of
 *
 * The PCI core calls back within the reset, under locks of vfio-pci that are
 * inside of ours (p2pvf.h).  mlx5_vfio_pci defers its work to whoever holds
 * its lock at that time; but here that may be a data fd, which is p2psim's.
 * So a work item takes the locks.  Who asks for a reset, or for the state
 * afterwards, waits for it without a lock, and sees the device reset.
 */
#include <linux/pci.h>

#include "p2pvf.h"

static void reset_work(struct work_struct *work)
{
	struct p2pvf_device *vf =
		container_of(work, struct p2pvf_device, reset);
	struct p2psim_device *sim = &vf->sim;

	guard(p2psim_state)(sim);
	guard(mutex)(&sim->data_lock);
	/* Nobody has it open: opening does the same */
	if (!sim->memory)
		return;
	p2psim_log(sim->log, "reset state=%s", p2psim_state_name(sim->state));
	p2psim_refresh(sim);
}

void p2pvf_reset_init(struct p2pvf_device *vf)
{
	INIT_WORK(&vf->reset, reset_work);
}

void p2pvf_reset_done(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	/* Unbound, as it waits for as long as a state request takes */
	queue_work(system_unbound_wq, &to_p2pvf(&core->vdev)->reset);
}

/* What was reset until now is known from here on; call it without locks */
void p2pvf_reset_settle(struct p2pvf_device *vf)
{
	flush_work(&vf->reset);
}

/* Someone asks for a reset: 0, or the errno of a fault that strikes */
int p2pvf_reset_fault(struct p2pvf_device *vf)
{
	const struct p2psim_fault *fault;

	guard(p2psim_state)(&vf->sim);
	fault = p2psim_fault_reset(&vf->sim);
	return fault ? -(int)fault->value : 0;
}
