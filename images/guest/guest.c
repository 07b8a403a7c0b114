// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest that is nothing but a heartbeat; see README.md
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

#define DEVICES		32
#define P2PSIM_ID	0x10f01af4	/* device and vendor */
#define P2PSIM_SIZE	8		/* registers in BAR 0 */
#define P2PSIM_WINDOW	12
#define P2PSIM_BEAT	16
#define P2PSIM_MEMORY	2048		/* where the window begins */
#define P2PSIM_BLOCK	4096		/* what one write makes dirty */
#define BAR_BASE	0xe0000000	/* free on Q35, up to 1 GiB of RAM */
#define BAR_BYTES	4096

#define APIC_SPURIOUS	0xfee000f0
#define APIC_LINT0	0xfee00350
#define PIC_MASTER	0x20
#define PIC_SLAVE	0xa0
#define PIT_HZ		1193182
#define PIT_CHANNEL_0	0x40
#define PIT_COMMAND	0x43
#define PCI_ADDRESS	0xcf8
#define PCI_DATA	0xcfc
#define PCI_COMMAND	4
#define PCI_BAR_0	16
#define FW_CFG_SELECT	0x510
#define FW_CFG_DATA	0x511
#define FW_CFG_RAM_SIZE	0x03
#define FW_CFG_FILE_DIR	0x19
#define FW_CFG_NAME	56

#define SECOND_US	1000000
#define PAGE_BYTES	4096
#define RAM_BASE	0x100000	/* below are the stack and the ROM's copy */

#ifdef CONSOLE
#define UART_DATA	0x3f8		/* the first serial port */
#define UART_FIFO	0x3fa
#define UART_STATUS	0x3fd
#define UART_EMPTY	0x20		/* all that was written has left */
#define DIGITS		10		/* of the largest counter */
#endif

static const char file_name[] = "opt/vfio-p2p/heartbeat";

static u32 devices;
static u32 bar[DEVICES];

static void outb(u16 port, u8 value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static u8 inb(u16 port)
{
	u8 value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void outw(u16 port, u16 value)
{
	asm volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static void outl(u16 port, u32 value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static void store(u32 address, u32 value)
{
	*(volatile u32 *)address = value;
}

static u32 fetch(u32 address)
{
	return *(volatile u32 *)address;
}

static u32 inl(u16 port)
{
	u32 value;

	asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* @a * @b / @c, which has to fit; the product need not */
static u32 muldiv(u32 a, u32 b, u32 c)
{
	u32 high;

	asm("mull %2" : "+a"(a), "=d"(high) : "rm"(b) : "cc");
	asm("divl %2" : "+a"(a), "+d"(high) : "rm"(c) : "cc");
	return a;
}

static u32 fw_cfg_be(u32 bytes)
{
	u32 value = 0;

	while (bytes--)
		value = value << 8 | inb(FW_CFG_DATA);
	return value;
}

/* Below 4 GiB, where all of it is on Q35 if it is no more than 2 */
static u32 ram_bytes(void)
{
	u32 value = 0, i;

	outw(FW_CFG_SELECT, FW_CFG_RAM_SIZE);
	for (i = 0; i < 4; i++)
		value |= (u32)inb(FW_CFG_DATA) << 8 * i;
	return value;
}

/* Selects the file of our name; its size, 0 if there is none */
static u32 find_file(void)
{
	u32 files, bytes, select, i;
	u8 differs, c;

	outw(FW_CFG_SELECT, FW_CFG_FILE_DIR);
	for (files = fw_cfg_be(4); files; files--) {
		bytes = fw_cfg_be(4);
		select = fw_cfg_be(4) >> 16;
		differs = 0;
		for (i = 0; i < FW_CFG_NAME; i++) {
			c = inb(FW_CFG_DATA);
			if (i < sizeof(file_name))
				differs |= c ^ file_name[i];
		}
		if (!differs) {
			outw(FW_CFG_SELECT, select);
			return bytes;
		}
	}
	return 0;
}

/* The next decimal number of the file, of which @left bytes are left */
static u32 number(u32 *left)
{
	u32 value = 0;
	u8 c;

	while (*left) {
		--*left;
		c = inb(FW_CFG_DATA);
		if (c < '0' || c > '9')
			break;
		value = value * 10 + (c - '0');
	}
	return value;
}

static void pci_select(u32 devfn, u32 offset)
{
	outl(PCI_ADDRESS, 0x80000000 | devfn << 8 | offset);
}

/* Bus 0 only: nothing set up the bridges to another one */
static void find_devices(void)
{
	u32 devfn, command;

	for (devfn = 0; devfn < 256 && devices < DEVICES; devfn++) {
		pci_select(devfn, 0);
		if (inl(PCI_DATA) != P2PSIM_ID)
			continue;
		bar[devices] = BAR_BASE + devices * BAR_BYTES;
		pci_select(devfn, PCI_BAR_0);
		outl(PCI_DATA, bar[devices++]);
		pci_select(devfn, PCI_COMMAND);
		command = inl(PCI_DATA) & 0xffff;
		outl(PCI_DATA, command | 2);
	}
}

/* Each device has its own size, and begins again at its end */
static void write_block(u32 device, u32 block, u32 value)
{
	u32 blocks = fetch(bar[device] + P2PSIM_SIZE) / P2PSIM_BLOCK;

	if (!blocks)
		return;
	store(bar[device] + P2PSIM_WINDOW, block % blocks * P2PSIM_BLOCK);
	store(bar[device] + P2PSIM_MEMORY, value);
}

/* What is due after @owed millionths more; the rest stays owed */
static u32 due(u32 *owed, u32 millionths)
{
	u32 whole;

	*owed += millionths;
	whole = *owed / SECOND_US;
	*owed %= SECOND_US;
	return whole;
}

#ifdef CONSOLE
/*
 * "beat N" and the end of a line: 16 characters at most, as many as the FIFO
 * holds.  So nothing is lost if QEMU's reader is late, and one look is enough.
 * Each character is an exit to QEMU, so there are no more than these.
 */
static void say(u32 count)
{
	static const char word[] = "beat ";
	char digits[DIGITS];
	u32 i, used = 0;

	do {
		digits[used++] = '0' + count % 10;
		count /= 10;
	} while (count);
	while (!(inb(UART_STATUS) & UART_EMPTY))
		;
	for (i = 0; word[i]; i++)
		outb(UART_DATA, word[i]);
	while (used)
		outb(UART_DATA, digits[--used]);
	outb(UART_DATA, '\n');
}

static void open_console(void)
{
	outb(UART_FIFO, 1);
}
#else
static void say(u32 count)
{
	(void)count;
}

static void open_console(void)
{
}
#endif

/* Interrupt 0x20 for the timer, and no other */
static void start_timer(u32 period_us)
{
	u32 divisor = muldiv(PIT_HZ, period_us, SECOND_US);

	/* The local APIC is on, and passes those of the PIC on */
	store(APIC_SPURIOUS, 0x1ff);
	store(APIC_LINT0, 0x700);
	outb(PIC_MASTER, 0x11);
	outb(PIC_MASTER + 1, 0x20);
	outb(PIC_MASTER + 1, 4);
	outb(PIC_MASTER + 1, 1);
	outb(PIC_MASTER + 1, 0xfe);
	outb(PIC_SLAVE + 1, 0xff);
	outb(PIT_COMMAND, 0x34);
	outb(PIT_CHANNEL_0, divisor & 0xff);
	outb(PIT_CHANNEL_0, divisor >> 8);
}

_Noreturn void main(void)
{
	u32 left, period_us, pages_per_s, blocks_per_s, page, end, n, i;
	u32 owed_pages = 0, owed_blocks = 0, block = 0, count = 0;

	left = find_file();
	period_us = number(&left);
	pages_per_s = number(&left);
	blocks_per_s = number(&left);
	page = RAM_BASE;
	end = ram_bytes();
	devices = 0;
	find_devices();
	open_console();
	start_timer(period_us);
	for (;;) {
		/* No interrupt gets between the two, nor anywhere else */
		asm volatile("sti; hlt; cli" : : : "memory");
		count++;
		for (i = 0; i < devices; i++)
			store(bar[i] + P2PSIM_BEAT, count);
		say(count);
		n = due(&owed_blocks, blocks_per_s * period_us);
		for (; n; n--, block++) {
			for (i = 0; i < devices; i++)
				write_block(i, block, count);
		}
		n = due(&owed_pages, pages_per_s * period_us);
		for (; n; n--) {
			store(page, count);
			page += PAGE_BYTES;
			if (page >= end)
				page = RAM_BASE;
		}
	}
}
