/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * labpf: devlink for emulated PFs, whose drivers have none
 *
 * Locks, outermost first:
 *   device_lock   (driver core) of a PF while its VFs come and go, and of a
 *                 VF while its driver binds and asks labpf_migratable()
 *   cards         (card.c) which PFs there are
 *   devl_lock     (devlink) everything of one PF; devlink's commands arrive
 *                 with it, so it must not wait for a device_lock
 *   rtnl_lock     (net) the representors
 */
#ifndef LABPF_CARD_H
#define LABPF_CARD_H

#include <linux/list.h>
#include <net/devlink.h>

struct net_device;
struct pci_dev;

/**
 * struct labpf_vf - a VF, and its port in switchdev mode
 * @pdev: NULL while there is no such VF
 * @migratable: function capability; as with mlx5, off at first
 * @roce: function capability; as with mlx5, on at first
 * @port: registered while @representor is there
 * @representor: what a switch has in place of the VF, or NULL
 */
struct labpf_vf {
	struct pci_dev *pdev;
	bool migratable;
	bool roce;
	struct devlink_port port;
	struct net_device *representor;
};

/**
 * struct labpf_card - a PF
 * @node: in the list of all
 * @pdev: the PF
 * @mode: DEVLINK_ESWITCH_MODE_LEGACY or _SWITCHDEV
 * @nvfs: how many VFs there may be
 * @vfs: by number
 */
struct labpf_card {
	struct list_head node;
	struct pci_dev *pdev;
	u16 mode;
	u16 nvfs;
	struct labpf_vf vfs[] __counted_by(nvfs);
};

/* main.c */
bool labpf_wants(struct pci_dev *pdev);
extern const struct devlink_ops labpf_devlink_ops;

/* card.c */
void labpf_cards_scan(void);
void labpf_cards_remove(void);
void labpf_arrived(struct pci_dev *pdev);
void labpf_leaves(struct pci_dev *pdev);
int labpf_set_mode(struct labpf_card *card, u16 mode);

/* port.c */
int labpf_port_add(struct labpf_card *card, u16 id);
void labpf_port_remove(struct labpf_vf *vf);

/* representor.c */
struct net_device *labpf_representor_add(struct device *parent,
					 struct devlink_port *port);
void labpf_representor_remove(struct net_device *netdev);

#endif
