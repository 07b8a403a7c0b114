/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef P2PSIM_DMA_H
#define P2PSIM_DMA_H

#include "p2psim.h"

/* The core of real functions has no engine: their DMA is their own */
#ifdef P2PSIM_VFIO_PCI
static inline void p2psim_dma_fresh(struct p2psim_device *sim)
{
}

static inline void p2psim_dma_enter(struct p2psim_device *sim)
{
}

static inline int p2psim_dma_set(struct p2psim_device *sim, bool on)
{
	return -EOPNOTSUPP;
}

static inline bool p2psim_dma_is_on(struct p2psim_device *sim)
{
	return false;
}
#else
extern const struct vfio_log_ops p2psim_log_ops;

int p2psim_dma_create(struct p2psim_device *sim);
void p2psim_dma_destroy(struct p2psim_device *sim);
void p2psim_dma_fresh(struct p2psim_device *sim);
void p2psim_dma_enter(struct p2psim_device *sim);
void p2psim_dma_end(struct p2psim_device *sim, const char *when);
void p2psim_dma_close(struct p2psim_device *sim);
int p2psim_dma_set(struct p2psim_device *sim, bool on);
bool p2psim_dma_is_on(struct p2psim_device *sim);
#endif

#endif
