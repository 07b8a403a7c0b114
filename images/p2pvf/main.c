// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The module and its PCI driver
 */
#include <linux/module.h>
#include <linux/pci.h>

#include "labpf.h"
#include "p2pvf.h"

/* vfio-pci finds its device behind the function's driver data */
static_assert(!offsetof(struct p2pvf_device, sim.core));
static_assert(!offsetof(struct vfio_pci_core_device, vdev));

/* As the PF's firmware has it, if there is something that plays its part */
static bool is_migratable(struct pci_dev *pdev)
{
	typeof(labpf_migratable) *ask = symbol_get(labpf_migratable);
	bool migratable;

	if (!ask)
		return true;
	migratable = ask(pdev);
	symbol_put(labpf_migratable);
	return migratable;
}

static int p2pvf_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct p2psim_config config;
	struct p2pvf_device *vf;
	int ret;

	/* PFs of nvme have the same ID */
	if (!pdev->is_virtfn)
		return -ENODEV;
	vf = vfio_alloc_device(p2pvf_device, sim.vdev, &pdev->dev,
			       &p2pvf_device_ops);
	if (IS_ERR(vf))
		return PTR_ERR(vf);
	p2pvf_reset_init(vf);
	vf->slot = p2pvf_slot_get(pci_name(pdev));
	if (!vf->slot) {
		ret = -ENOMEM;
		goto err_put;
	}
	p2pvf_slot_config(vf->slot, &config);
	if (config.flags && is_migratable(pdev)) {
		vf->sim.vdev.mig_ops = &p2pvf_migration_ops;
		vf->sim.vdev.migration_flags = config.flags;
	}
	dev_set_drvdata(&pdev->dev, &vf->sim.core);
	ret = vfio_pci_core_register_device(&vf->sim.core);
	if (ret)
		goto err_slot;
	return 0;

err_slot:
	cancel_work_sync(&vf->reset);
	p2pvf_slot_put(vf->slot);
err_put:
	vfio_put_device(&vf->sim.vdev);
	return ret;
}

static void p2pvf_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);
	struct p2pvf_device *vf = to_p2pvf(&core->vdev);

	/* Waits until no user has it open */
	vfio_pci_core_unregister_device(core);
	cancel_work_sync(&vf->reset);
	p2pvf_slot_put(vf->slot);
	vfio_put_device(&vf->sim.vdev);
}

static const struct pci_device_id p2pvf_ids[] = {
	/* QEMU's igb, nvme */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_INTEL, 0x10ca) },
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_REDHAT, 0x0010) },
	{}
};
MODULE_DEVICE_TABLE(pci, p2pvf_ids);

static const struct pci_error_handlers p2pvf_error_handlers = {
	.error_detected = vfio_pci_core_aer_err_detected,
	.reset_done = p2pvf_reset_done,
};

static struct pci_driver p2pvf_driver = {
	.name = KBUILD_MODNAME,
	.id_table = p2pvf_ids,
	.probe = p2pvf_probe,
	.remove = p2pvf_remove,
	.err_handler = &p2pvf_error_handlers,
	.driver_managed_dma = true,
};

static int __init p2pvf_init(void)
{
	int ret;

	ret = p2psim_log_init();
	if (ret)
		return ret;
	ret = p2pvf_configfs_init();
	if (ret)
		goto err_log;
	ret = pci_register_driver(&p2pvf_driver);
	if (ret)
		goto err_configfs;
	return 0;

err_configfs:
	p2pvf_configfs_exit();
err_log:
	p2psim_log_exit();
	return ret;
}

static void __exit p2pvf_exit(void)
{
	pci_unregister_driver(&p2pvf_driver);
	p2pvf_configfs_exit();
	p2psim_log_exit();
}

module_init(p2pvf_init);
module_exit(p2pvf_exit);

MODULE_DESCRIPTION("VFIO variant driver for emulated VFs, with migration");
MODULE_LICENSE("GPL");
