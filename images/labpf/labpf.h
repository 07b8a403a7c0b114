/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What other modules may ask labpf, by symbol_get()
 */
#ifndef LABPF_H
#define LABPF_H

#include <linux/types.h>

struct pci_dev;

bool labpf_migratable(struct pci_dev *vf);

#endif
