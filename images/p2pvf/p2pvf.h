/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * p2pvf: a vfio-pci variant driver for emulated VFs, with p2psim's migration
 *
 * Locks, outermost first; those of p2psim are explained in p2psim.h:
 *   vfio_device_set.lock   (VFIO) open and close
 *   slots                  (slot.c) all slots
 *   p2psim_item.lock       the configuration of one directory
 *   p2psim_device.state_lock
 *   p2psim_device.data_lock
 *   mmap_lock              (mm) a data fd copies from and to the user
 *   vfio_pci_core_device.memory_lock  (vfio-pci) faults on a mapped BAR
 * A reset ends sessions, which takes the state_lock and the data_lock.  But
 * vfio-pci holds the memory_lock, which is inside of both, while it resets
 * the function.  So the PCI core's callback only queues work, which has no
 * locks to begin with: see reset.c.
 */
#ifndef P2PVF_H
#define P2PVF_H

#include <linux/list.h>
#include <linux/workqueue.h>

#include "p2psim.h"

/* Longest PCI address, of a domain of 32 bits */
#define P2PVF_ADDRESS_BYTES	17

struct p2psim_item;
struct pci_dev;

/**
 * struct p2pvf_slot - a PCI address that has a configuration or a driver
 * @node: in the list of all
 * @users: the directory in configfs and the driver, as far as there are any
 * @log: of all users since the directory was made; NULL: no memory
 * @item: the directory in configfs, or NULL
 * @opened: the VF while a user has it open, else NULL
 * @address: as in sysfs
 */
struct p2pvf_slot {
	struct list_head node;
	unsigned int users;
	struct p2psim_log *log;
	struct p2psim_item *item;
	struct device *opened;
	char address[P2PVF_ADDRESS_BYTES];
};

/**
 * struct p2pvf_device - a VF that is bound to this driver
 * @sim: what p2psim's files work on; comes first
 * @slot: that of its address
 * @reset: tells @sim that the function was reset
 */
struct p2pvf_device {
	struct p2psim_device sim;
	struct p2pvf_slot *slot;
	struct work_struct reset;
};

static inline struct p2pvf_device *to_p2pvf(struct vfio_device *vdev)
{
	return container_of(vdev, struct p2pvf_device, sim.vdev);
}

/* vfio.c */
extern const struct vfio_device_ops p2pvf_device_ops;
extern const struct vfio_migration_ops p2pvf_migration_ops;

/* reset.c */
void p2pvf_reset_init(struct p2pvf_device *vf);
void p2pvf_reset_done(struct pci_dev *pdev);
void p2pvf_reset_settle(struct p2pvf_device *vf);
int p2pvf_reset_fault(struct p2pvf_device *vf);

/* slot.c */
struct p2pvf_slot *p2pvf_slot_get(const char *address);
void p2pvf_slot_put(struct p2pvf_slot *slot);
void p2pvf_slot_attach(struct p2pvf_slot *slot, struct p2psim_item *item);
void p2pvf_slot_detach(struct p2pvf_slot *slot);
void p2pvf_slot_config(struct p2pvf_slot *slot, struct p2psim_config *config);
struct p2psim_log *p2pvf_slot_open(struct p2pvf_slot *slot,
				   struct device *dev,
				   struct p2psim_config *config);
void p2pvf_slot_close(struct p2pvf_slot *slot);
void p2pvf_default_config(struct p2psim_config *config);

/* directory.c */
int p2pvf_configfs_init(void);
void p2pvf_configfs_exit(void);

#endif
