# The only code at CPL 0: a dozen instructions to CPL 3, and the way back for faults. Entered in
# 64-bit mode with RSI = zero page (Linux's boot protocol). All tables are data of the image, at
# fixed offsets from ORIGIN, since weak hosts emulate each instruction that runs here.
.section .start, "awx"
.set ORIGIN, 0x100000
.set STUBS, ORIGIN + 0x500
.set TSS, ORIGIN + 0x800
.set VECTORS, 32
.global _start
_start:
    cli
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, offset pml4
    mov cr3, rax
    mov rax, cr4
    or eax, 0x600               # SSE: OSFXSR, OSXMMEXCPT
    mov cr4, rax
    mov eax, 0x28
    ltr ax
    mov rdi, rsi
    mov eax, offset bare_main
# To CPL 3 at RAX, with a fresh stack. Weak hosts do not honour IOPL: the TSS allows ports as well.
leave:
    mov esp, offset kernel_stack
    push 0x1b
    mov ecx, offset user_stack - 8 # as after a call
    push rcx
    push 0x3002                 # IOPL 3, interrupts off
    push 0x23
    push rax
    iretq

.org 0x100
gdt:
    .quad 0, 0, 0
    .quad 0x00cff3000000ffff    # 0x18: data, DPL 3
    .quad 0x00affb000000ffff    # 0x20: code, DPL 3, 64 bits
    .quad 0x000089000000206c | (TSS & 0xffffff) << 16, 0 # 0x28: TSS
    .quad 0x00af9b000000ffff    # 0x38: code, DPL 0, 64 bits
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt
idt_pointer:
    .word VECTORS * 16 - 1
    .quad idt

.org 0x200
idt:
.set vector, 0
.rept VECTORS
    .word (STUBS + vector * 16) & 0xffff, 0x38
    .word 0xee00, STUBS >> 16   # interrupt gate, DPL 3
    .quad 0
    .set vector, vector + 1
.endr

.org 0x500
.set vector, 0
.rept VECTORS
    .balign 16
    push vector
    jmp fault
    .set vector, vector + 1
.endr

# Any vector goes to bare_fault with what the stack holds; only `hlt` at CPL 3, which is a general
# protection fault, halts for ever.
fault:
    pop rdi
    pop rsi
    pop rdx
    cmp edi, 13
    jne told
    cmp byte ptr [rdx], 0xf4
    je halt
told:
    mov r8, cr2
    mov eax, offset bare_fault
    jmp leave
halt:
    hlt
    jmp halt

.org 0x800                      # the TSS
    .long 0
    .quad kernel_stack          # RSP0
    .fill 90, 1, 0
    .word 0x68                  # a bitmap that allows every port, and its end
    .fill 8192, 1, 0
    .byte 0xff

.balign 4096
pml4:
    .quad pdpt + 7
    .fill 511, 8, 0
pdpt:
    .quad pages + 7, pages + 0x1007, pages + 0x2007, pages + 0x3007
    .fill 508, 8, 0
pages:                          # 4 GiB, user-accessible, in pages of 2 MiB
.set page, 0
.rept 2048
    .quad page << 21 | 0x87
    .set page, page + 1
.endr

.section .bss
.balign 16
    .skip 4096
kernel_stack:
    .skip 65536
user_stack:
