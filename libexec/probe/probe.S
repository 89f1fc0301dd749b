/* A boot sector that goes from real mode to long mode with paging, and computes there with general and SSE registers:
   sixteen steps, each told by a dot on the first serial port; then it writes a marker there and to QEMU's
   isa-debug-exit. What runs a step in milliseconds runs a kernel; a hypervisor that emulates guest code takes a minute
   for one, or stops (Intel SDM vol. 3A, 9.8.5 for the way to long mode). */

	.code16
	.globl _start
_start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	cld
	/* page tables at 0x1000: one PML4, one PDPT, one directory with 2 MiB pages */
	movw $0x1000, %di
	movw $0x1800, %cx
	rep stosw
	movl $0x2003, 0x1000
	movl $0x3003, 0x2000
	movl $0x0083, 0x3000
	movl $0x1000, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x620, %eax                /* PAE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $0xc0000080, %ecx          /* EFER */
	rdmsr
	orl $0x100, %eax                /* LME */
	wrmsr
	lgdt descriptor
	movl %cr0, %eax
	andl $0xfffffffb, %eax          /* no FPU emulation */
	orl $0x80000003, %eax           /* paging, coprocessor monitoring, protection */
	movl %eax, %cr0
	ljmpl $8, $long_mode

	.code64
long_mode:
	movl $16, %eax
	movl %eax, %ds
	movl %eax, %ss
	pxor %xmm0, %xmm0
	movl $0x9e3779b9, %ebx
	movd %ebx, %xmm1
	movl $16, %edi
	movl $0x3f8, %edx
1:	movl $1250000, %ecx
5:	imull $1664525, %ebx
	addl $1013904223, %ebx
	paddd %xmm1, %xmm0
	decl %ecx
	jnz 5b
	movb $'.', %al
	outb %al, %dx
	decl %edi
	jnz 1b
	movl $marker, %esi
2:	lodsb
	testb %al, %al
	jz 3f
	outb %al, %dx
	jmp 2b
3:	movl $0x31, %eax
	outl %eax, $0xf4
4:	hlt
	jmp 4b

marker:
	.asciz "PCOCC-PROBE-OK\n"
	.balign 8
table:
	.quad 0
	.quad 0x00af9a000000ffff        /* 64-bit code */
	.quad 0x00cf92000000ffff        /* data */
descriptor:
	.word . - table - 1
	.long table
	.org 510
	.word 0xaa55
