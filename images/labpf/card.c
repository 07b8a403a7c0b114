// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The PFs and their VFs, as they come and go
 */
#include <linux/export.h>
#include <linux/pci.h>

#include "card.h"
#include "labpf.h"

static DEFINE_MUTEX(cards);
static LIST_HEAD(card_list);

static struct labpf_card *find_card(struct pci_dev *pdev)
{
	struct labpf_card *card;

	lockdep_assert_held(&cards);
	list_for_each_entry(card, &card_list, node) {
		if (card->pdev == pdev)
			return card;
	}
	return NULL;
}

/* NULL: not a VF of a card */
static struct labpf_vf *find_vf(struct labpf_card *card, struct pci_dev *pdev)
{
	int id = pci_iov_vf_id(pdev);

	return id >= 0 && id < card->nvfs ? card->vfs + id : NULL;
}

/**
 * labpf_migratable - may a VF be migrated?
 * @pdev: the VF
 *
 * To be asked when its driver binds: from then on it does not change.  In
 * legacy mode there is no port to switch it on with, so it is off.
 *
 * Returns: true for a function that is none of ours
 */
bool labpf_migratable(struct pci_dev *pdev)
{
	struct labpf_card *card;
	struct labpf_vf *vf;
	bool migratable;

	guard(mutex)(&cards);
	card = pdev->is_virtfn ? find_card(pci_physfn(pdev)) : NULL;
	if (!card)
		return true;
	devl_lock(priv_to_devlink(card));
	vf = find_vf(card, pdev);
	migratable = vf && vf->migratable &&
		     card->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV;
	devl_unlock(priv_to_devlink(card));
	return migratable;
}
EXPORT_SYMBOL_GPL(labpf_migratable);

/* All ports, or none */
static int add_ports(struct labpf_card *card)
{
	int ret, id;

	for (id = 0; id < card->nvfs; id++) {
		if (!card->vfs[id].pdev)
			continue;
		ret = labpf_port_add(card, id);
		if (ret)
			goto err_remove;
	}
	return 0;

err_remove:
	while (id--)
		labpf_port_remove(card->vfs + id);
	return ret;
}

int labpf_set_mode(struct labpf_card *card, u16 mode)
{
	int ret, id;

	devl_assert_locked(priv_to_devlink(card));
	if (mode == card->mode)
		return 0;
	if (mode == DEVLINK_ESWITCH_MODE_SWITCHDEV) {
		ret = add_ports(card);
		if (ret)
			return ret;
	} else {
		for (id = 0; id < card->nvfs; id++)
			labpf_port_remove(card->vfs + id);
	}
	card->mode = mode;
	return 0;
}

static void vf_arrived(struct labpf_card *card, struct pci_dev *pdev)
{
	struct labpf_vf *vf = find_vf(card, pdev);
	int ret = 0;

	if (!vf)
		return;
	devl_lock(priv_to_devlink(card));
	if (!vf->pdev) {
		vf->pdev = pdev;
		vf->migratable = false;
		vf->roce = true;
		if (card->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
			ret = labpf_port_add(card, vf - card->vfs);
	}
	devl_unlock(priv_to_devlink(card));
	if (ret)
		pci_err(pdev, "no devlink port: error %d\n", ret);
}

static void vf_leaves(struct labpf_card *card, struct pci_dev *pdev)
{
	struct labpf_vf *vf = find_vf(card, pdev);

	if (!vf)
		return;
	devl_lock(priv_to_devlink(card));
	labpf_port_remove(vf);
	vf->pdev = NULL;
	devl_unlock(priv_to_devlink(card));
}

static void card_add(struct pci_dev *pdev)
{
	int nvfs = pci_sriov_get_totalvfs(pdev);
	struct pci_dev *other = NULL;
	struct labpf_card *card;
	struct devlink *devlink;

	if (find_card(pdev))
		return;
	devlink = devlink_alloc(&labpf_devlink_ops,
				struct_size(card, vfs, nvfs), &pdev->dev);
	if (!devlink) {
		pci_err(pdev, "no memory for devlink\n");
		return;
	}
	card = devlink_priv(devlink);
	card->pdev = pdev;
	card->nvfs = nvfs;
	card->mode = DEVLINK_ESWITCH_MODE_LEGACY;
	devlink_register(devlink);
	list_add_tail(&card->node, &card_list);
	for_each_pci_dev(other) {
		if (other->is_virtfn && pci_physfn(other) == pdev)
			vf_arrived(card, other);
	}
}

static void card_remove(struct labpf_card *card)
{
	struct devlink *devlink = priv_to_devlink(card);
	int id;

	list_del(&card->node);
	devl_lock(devlink);
	devl_unregister(devlink);
	for (id = 0; id < card->nvfs; id++)
		labpf_port_remove(card->vfs + id);
	devl_unlock(devlink);
	devlink_free(devlink);
}

/* A function is there, but has no driver yet */
void labpf_arrived(struct pci_dev *pdev)
{
	struct labpf_card *card;

	guard(mutex)(&cards);
	if (labpf_wants(pdev)) {
		card_add(pdev);
	} else if (pdev->is_virtfn) {
		card = find_card(pci_physfn(pdev));
		if (card)
			vf_arrived(card, pdev);
	}
}

/* A function has no driver any more, and goes */
void labpf_leaves(struct pci_dev *pdev)
{
	struct labpf_card *card;

	guard(mutex)(&cards);
	card = find_card(pci_physfn(pdev));
	if (!card)
		return;
	if (pdev->is_virtfn)
		vf_leaves(card, pdev);
	else
		card_remove(card);
}

/* What is there already */
void labpf_cards_scan(void)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev)
		labpf_arrived(pdev);
}

void labpf_cards_remove(void)
{
	struct labpf_card *card, *next;

	guard(mutex)(&cards);
	list_for_each_entry_safe(card, next, &card_list, node)
		card_remove(card);
}
