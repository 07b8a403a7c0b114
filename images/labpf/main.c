// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The module, and devlink's commands for a whole PF
 */
#include <linux/module.h>
#include <linux/pci.h>

#include "card.h"

#define PFS_MAX		16

static char *pfs[PFS_MAX];
static unsigned int npfs;
module_param_array_named(pf, pfs, charp, &npfs, 0444);
MODULE_PARM_DESC(pf, "PCI addresses of the PFs (default: all igb and nvme)");

static char *fw_version = "28.43.1014";
module_param(fw_version, charp, 0444);
MODULE_PARM_DESC(fw_version, "firmware version");

static char *fw_psid = "LAB0000000001";
module_param(fw_psid, charp, 0444);
MODULE_PARM_DESC(fw_psid, "parameter set ID of the firmware");

/* QEMU's igb, nvme */
static const struct pci_device_id pf_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_INTEL, 0x10c9) },
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT, 0x0010) },
	{}
};

/* Is it a PF that we play the part of devlink for? */
bool labpf_wants(struct pci_dev *pdev)
{
	unsigned int i;

	if (!pdev->is_physfn)
		return false;
	if (!npfs)
		return pci_match_id(pf_ids, pdev);
	for (i = 0; i < npfs; i++) {
		if (!strcmp(pfs[i], pci_name(pdev)))
			return true;
	}
	return false;
}

static int mode_get(struct devlink *devlink, u16 *mode)
{
	struct labpf_card *card = devlink_priv(devlink);

	*mode = card->mode;
	return 0;
}

static int mode_set(struct devlink *devlink, u16 mode,
		    struct netlink_ext_ack *extack)
{
	if (mode != DEVLINK_ESWITCH_MODE_LEGACY &&
	    mode != DEVLINK_ESWITCH_MODE_SWITCHDEV) {
		NL_SET_ERR_MSG_MOD(extack, "Unknown mode");
		return -EOPNOTSUPP;
	}
	return labpf_set_mode(devlink_priv(devlink), mode);
}

/* devlink itself tells the name of the PF's driver */
static int info_get(struct devlink *devlink, struct devlink_info_req *req,
		    struct netlink_ext_ack *extack)
{
	int ret;

	ret = devlink_info_version_fixed_put(req, "fw.psid", fw_psid);
	if (ret)
		return ret;
	ret = devlink_info_version_running_put(req, "fw.version", fw_version);
	if (ret)
		return ret;
	return devlink_info_version_running_put(req,
						DEVLINK_INFO_VERSION_GENERIC_FW,
						fw_version);
}

const struct devlink_ops labpf_devlink_ops = {
	.eswitch_mode_get = mode_get,
	.eswitch_mode_set = mode_set,
	.info_get = info_get,
};

static int bus_event(struct notifier_block *nb, unsigned long event,
		     void *data)
{
	switch (event) {
	case BUS_NOTIFY_ADD_DEVICE:
		labpf_arrived(to_pci_dev(data));
		break;
	case BUS_NOTIFY_DEL_DEVICE:
		labpf_leaves(to_pci_dev(data));
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block bus_notifier = {
	.notifier_call = bus_event,
};

static int __init labpf_init(void)
{
	int ret = bus_register_notifier(&pci_bus_type, &bus_notifier);

	if (ret)
		return ret;
	labpf_cards_scan();
	return 0;
}

static void __exit labpf_exit(void)
{
	bus_unregister_notifier(&pci_bus_type, &bus_notifier);
	labpf_cards_remove();
}

module_init(labpf_init);
module_exit(labpf_exit);

MODULE_DESCRIPTION("devlink for emulated PFs");
MODULE_LICENSE("GPL");
