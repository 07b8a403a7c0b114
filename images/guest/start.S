/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the reset vector to main(), and the timer's interrupt
 *
 * All of the ROM runs where it is, at the end of the first 4 GiB; only the
 * stack and what main() counts are in RAM.
 */
#define CODE	8
#define DATA	16
#define STACK	0x7000
#define ROM	0xffff0000

	.section .reset, "ax"
	.code16
	jmp	start16

	.text
	.code16
/* The processor's first CS has the ROM as its base */
	.globl	start16
start16:
	cli
	cld
	lgdtl	%cs:(gdt_pointer - rom)
	movl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$CODE, $start32

	.code32
start32:
	movw	$DATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$STACK, %esp
	lidt	idt_pointer
	call	main

/* It has but to end a HLT */
	.globl	tick
tick:
	pushl	%eax
	movb	$0x20, %al
	outb	%al, $0x20
	popl	%eax
	iretl

	.section .rom, "a"
	.balign	8
rom:
/* Accessed already: the processor cannot write that into ROM */
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
	.balign	8
idt:
	.fill	0x20, 8, 0
	.word	tick_low, CODE, 0x8e00, ROM >> 16
idt_pointer:
	.word	idt_pointer - idt - 1
	.long	idt

	.section .note.GNU-stack, "", @progbits
