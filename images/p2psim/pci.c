// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The PCI side: configuration space and the one BAR
 */
#include <linux/pci_regs.h>
#include <linux/string.h>
#include <linux/unaligned.h>

#include "p2psim.h"

/*
 * 1af4:10f0 to 10ff are free for experiments (QEMU, docs/specs/pci-ids.rst);
 * Linux's virtio driver stops at 107f.
 */
#define PCI_VENDOR	0x1af4
#define PCI_DEVICE	0x10f0
#define PCI_CLASS	0x0880

#define BAR_BYTES	4096u
#define BAR_WINDOW	2048u
#define BAR_ID		0x73703270	/* "p2ps" */

/**
 * struct bar_regs - registers at the start of the BAR
 * @id: BAR_ID
 * @version: 2
 * @size: bytes of device memory
 * @window: writable; memory offset that the upper half of the BAR shows,
 *          rounded down to BAR_WINDOW, ignored when beyond the memory
 * @heartbeat: writable, all 4 bytes at once: the counter of the guest, see
 *             heartbeat.c
 * @zero: so that an access of ACCESS_BYTES stays within
 *
 * What lies between the registers and the window reads as zero.
 */
struct bar_regs {
	__le32 id;
	__le32 version;
	__le32 size;
	__le32 window;
	__le32 heartbeat;
	__le32 zero;
};

u32 p2psim_region_size(u32 index)
{
	switch (index) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		return BAR_BYTES;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return P2PSIM_PCI_SIZE;
	default:
		return 0;
	}
}

void p2psim_pci_reset(struct p2psim_device *sim)
{
	u8 *pci = sim->pci;

	memset(pci, 0, P2PSIM_PCI_SIZE);
	put_unaligned_le16(PCI_VENDOR, pci + PCI_VENDOR_ID);
	put_unaligned_le16(PCI_DEVICE, pci + PCI_DEVICE_ID);
	put_unaligned_le16(PCI_CLASS, pci + PCI_CLASS_DEVICE);
	put_unaligned_le16(PCI_VENDOR, pci + PCI_SUBSYSTEM_VENDOR_ID);
	put_unaligned_le16(PCI_DEVICE, pci + PCI_SUBSYSTEM_ID);
}

static u8 writable_bits(u32 pos)
{
	switch (pos) {
	case PCI_COMMAND:
		return PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	case PCI_COMMAND + 1:
		return PCI_COMMAND_INTX_DISABLE >> 8;
	case PCI_CACHE_LINE_SIZE:
	case PCI_LATENCY_TIMER:
	case PCI_INTERRUPT_LINE:
		return 0xff;
	case PCI_BASE_ADDRESS_0 ... PCI_BASE_ADDRESS_0 + 3:
		return ~(BAR_BYTES - 1) >> (8 * (pos - PCI_BASE_ADDRESS_0));
	default:
		return 0;
	}
}

void p2psim_pci_write(struct p2psim_device *sim, u32 pos, const u8 *buf,
		      size_t count)
{
	lockdep_assert_held(&sim->data_lock);
	for (; count; count--, pos++, buf++) {
		u8 mask = writable_bits(pos);

		sim->pci[pos] = (sim->pci[pos] & ~mask) | (*buf & mask);
	}
}

static struct bar_regs bar_regs_get(struct p2psim_device *sim)
{
	return (struct bar_regs) {
		.id = cpu_to_le32(BAR_ID),
		.version = cpu_to_le32(2),
		.size = cpu_to_le32(sim->config.size_bytes),
		.window = cpu_to_le32(sim->window),
		.heartbeat = cpu_to_le32(sim->heart.last),
	};
}

/* Memory behind [pos, pos + count) of the BAR; at most @count bytes of it */
static size_t window_bytes(struct p2psim_device *sim, u32 pos, size_t count,
			   u32 *offset)
{
	*offset = sim->window + pos - (BAR_BYTES - BAR_WINDOW);
	if (*offset >= sim->config.size_bytes)
		return 0;
	return min_t(size_t, count, sim->config.size_bytes - *offset);
}

static bool is_heartbeat(u32 pos, size_t count)
{
	return pos == offsetof(struct bar_regs, heartbeat) &&
	       count == sizeof_field(struct bar_regs, heartbeat);
}

/* Like p2psim_bar_write(), for accesses within one aligned 8 bytes */
void p2psim_bar_read(struct p2psim_device *sim, u32 pos, u8 *buf, size_t count)
{
	struct bar_regs regs = bar_regs_get(sim);
	u32 offset;

	lockdep_assert_held(&sim->data_lock);
	memset(buf, 0, count);
	if (pos < sizeof(regs)) {
		memcpy(buf, (u8 *)&regs + pos, count);
	} else if (pos >= BAR_BYTES - BAR_WINDOW) {
		count = window_bytes(sim, pos, count, &offset);
		memcpy(buf, sim->memory + offset, count);
	}
}

int p2psim_bar_write(struct p2psim_device *sim, u32 pos, const u8 *buf,
		     size_t count)
{
	struct bar_regs regs = bar_regs_get(sim);
	u32 offset;

	lockdep_assert_held(&sim->data_lock);
	switch (sim->state) {
	case VFIO_DEVICE_STATE_STOP:
	case VFIO_DEVICE_STATE_STOP_COPY:
	case VFIO_DEVICE_STATE_RESUMING:
	case VFIO_DEVICE_STATE_ERROR:
		/* What is being saved or loaded holds still */
		if (is_heartbeat(pos, count))
			p2psim_heartbeat_refused(sim);
		return -EBUSY;
	default:
		break;
	}
	if (is_heartbeat(pos, count)) {
		p2psim_heartbeat(sim, get_unaligned_le32(buf));
	} else if (pos < offsetofend(struct bar_regs, window)) {
		memcpy((u8 *)&regs + pos, buf, count);
		offset = round_down(le32_to_cpu(regs.window), BAR_WINDOW);
		if (offset < sim->config.size_bytes)
			sim->window = offset;
	} else if (pos >= BAR_BYTES - BAR_WINDOW) {
		count = window_bytes(sim, pos, count, &offset);
		memcpy(sim->memory + offset, buf, count);
		p2psim_session_touch(sim, offset, count);
	}
	return 0;
}
