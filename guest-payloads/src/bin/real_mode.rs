//! Real mode, and what lies between it and protected mode. Nothing here may notice how the hypervisor does it: by the
//! CPU, by virtual-8086 mode, or by an instruction emulator where segments are not what real mode makes them.
//!
//! A case starts at a label, with all registers 0 but for RSP = 0x7000, and may set registers first. The memory below
//! 0x8000 is the scenario's: vectors from 0, data from 0x5000, stack below 0x7000. Evidence is in registers at HLT.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "real-mode code is assembly")]
guest::payload!();

use core::arch::global_asm;

use guest::real_mode;

// What several scenarios use. Descriptors: SDM vol. 3A, 3.4.5.
global_asm!(
    ".pushsection .low.text.tables, \"ax\", @progbits",
    ".balign 8",
    "real_gdt:",
    ".quad 0",
    ".quad 0x00009b000000ffff", // 0x08: 16-bit code
    ".quad 0x00cf93000000ffff", // 0x10: flat data
    ".quad 0x000093000000ffff", // 0x18: data of 64 KiB
    ".quad 0x00cf9b000000ffff", // 0x20: flat 32-bit code
    "real_gdt_pointer: .word 0x27",
    ".long real_gdt",
    ".code16",
    // Vectors 0 to 31 lead here: vector, IP, CS and FLAGS go to AX, BX, CX, DX; SP is what it was before.
    "fault_stubs:",
    ".set vector, 0",
    ".rept 32",
    ".byte 0x6a, vector, 0xe9", // push vector; jmp
    ".word fault_taken - . - 2",
    ".set vector, vector + 1",
    ".endr",
    "fault_taken: pop ax",
    "pop bx",
    "pop cx",
    "pop dx",
    ".globl fault_end",
    "fault_end: hlt",
    ".code64",
    ".popsection",
);

// ---- Ports and devices

real_mode! {
    /// IN of each width into ones, then OUT of each width.
    port_widths:
    "mov dx, 0x310",
    "mov eax, -1", guest::label!("real_in8"), "in al, dx", "mov ebx, eax",
    "mov eax, -1", "in ax, dx", "mov ecx, eax",
    "mov eax, -1", "in eax, dx",
    guest::label!("real_in_end"), "hlt",
    "mov eax, 0x88776655",
    "out dx, al", "out dx, ax", "out dx, eax", "out 0x80, al",
    "hlt"
}

real_mode! {
    /// REP OUTSW of three words, REP INSW of four.
    string_ports:
    "mov dword ptr [0x5000], 0x22221111",
    "mov word ptr [0x5004], 0x3333",
    "mov dx, 0x310",
    "mov esi, 0x77775000",
    "mov ecx, 0x66660003",
    "rep outsw",
    "mov edi, 0x55555100",
    "mov cx, 4",
    "rep insw",
    "hlt"
}

real_mode! {
    /// Reads and writes DS:10 and on, which the host has put at a device.
    device:
    "mov eax, -1", guest::label!("device_read"), "mov al, [0x10]", "mov ebx, eax",
    "mov eax, -1", "mov ax, [0x20]", "mov ecx, eax",
    "mov eax, [0x30]",
    "mov [0x40], al", "mov [0x50], ax", "mov [0x60], eax",
    "add word ptr [0x70], 3",
    "mov si, 0x80", "mov di, 0x5000", "mov dx, cx", "mov cx, 2", "rep movsw", "mov cx, dx",
    "hlt"
}

// ---- Segments

real_mode! {
    /// Lends DS the limit of a flat segment, and uses it: what firmware calls big real mode.
    big_real:
    "lgdtd [real_gdt_pointer]",
    "mov eax, cr0", "or al, 1", "mov cr0, eax",
    "mov bx, 0x10", "mov ds, bx",
    "and al, 0xfe", "mov cr0, eax",
    "mov ebx, 0x10000000",
    "mov eax, [ebx]",
    "mov cx, 0x500", "mov ds, cx",
    "mov [ebx + 4], eax",
    "xor cx, cx", "mov ds, cx",
    "mov esi, 0x300000", "mov edx, [esi]",
    "hlt"
}

real_mode! {
    /// Byte accesses around offset 0xffff, in a segment at 0x10000.
    index_wrap:
    "mov ax, 0x1000", "mov ds, ax",
    "mov byte ptr [0xffff], 0x12", "mov byte ptr [0], 0x34",
    "mov esi, 0x7777ffff",
    "lodsb", "mov ah, al", "lodsb",
    "mov ebx, 0xfff0", "mov byte ptr [bx + 0x11], 0x56", "mov cl, [1]",
    "hlt"
}

real_mode! {
    /// PUSH with SP 0, in a segment at 0x10000.
    push_wrap:
    "mov ax, 0x1000", "mov ss, ax",
    "xor esp, esp",
    "mov ax, 0x1234", "push ax", "mov ebx, esp",
    "mov eax, 0x89abcdef", "push eax", "mov ecx, esp",
    "pop edx", "pop si",
    "hlt"
}

real_mode! {
    /// PUSH with SP 1, and again for whatever that raises.
    push_at_one:
    "mov word ptr [0x20], offset push_handled", "mov word ptr [0x30], offset push_handled",
    "out 0x80, al",
    "mov sp, 1",
    guest::label!("push_at_one_here"), "push ax",
    "push_handled: hlt"
}

real_mode! {
    /// A byte at FFFF:0010.
    above_1m:
    "mov ax, 0xffff", "mov es, ax",
    "mov byte ptr es:[0x10], 0x5a",
    "mov al, [0]",
    "hlt"
}

real_mode! {
    /// A far call to another segment, an indirect far jump, and RETF that drops an argument.
    far_calls:
    "push 0x4444",
    ".byte 0x9a", ".word far_target - 0x8000", ".word 0x0800",
    guest::label!("far_back"), "hlt",
    ".balign 4",
    "far_pointer: .word far_end - 0x7ff0, 0x07ff",
    guest::label!("far_target"),
    "mov bp, sp", "mov eax, [bp]", "mov bx, [bp + 4]",
    "mov cx, cs",
    ".byte 0x2e, 0xff, 0x2e", ".word far_pointer - 0x8000", // jmp far cs:[far_pointer]
    guest::label!("far_end"),
    "mov dx, cs",
    ".byte 0xca, 2, 0" // RETF 2, with operands of 16 bits
}

// ---- Instructions

real_mode! {
    /// Offsets and operands of 32 bits.
    prefixes:
    "mov dword ptr [0x5008], 0x11223344",
    "mov ebx, 0x5000", "mov ecx, 2",
    "mov eax, [ebx + ecx * 4]",
    "push eax", "pop dx", "pop si",
    "lea edi, [ebx + eax]",
    "mov ebp, 0xffff", "inc bp",
    "hlt"
}

real_mode! {
    /// FLAGS and EFLAGS become what the host has put into EAX and EDX.
    load_flags:
    "push ax", "popf", "pushf", "pop bx",
    guest::label!("flags_loaded"), "hlt",
    "push edx", "popfd", "pushfd", "pop ecx",
    guest::label!("eflags_loaded"), "hlt"
}

real_mode! {
    /// Executes an instruction, changes it, and executes it again.
    modify_itself:
    "2:",
    guest::label!("modified"), "mov al, 0x11",
    "add bl, al",
    "cmp al, 0x42", "je 3f",
    "mov byte ptr [modified + 1], 0x42",
    "jmp 2b",
    "3: hlt"
}

real_mode! {
    /// Control and debug registers.
    control_registers:
    "mov eax, 0x12345000", "mov cr3, eax", "mov ebx, cr3",
    "mov ecx, cr4", "mov eax, 0x600", "mov cr4, eax", "mov edx, cr4",
    "mov eax, 0x5555", "mov cr2, eax", "mov dr1, eax",
    "mov esi, dr1", "mov edi, cr2", "mov eax, cr0",
    "hlt"
}

real_mode! {
    /// LIDT and LGDT with operands of 16 and 32 bits, and what SIDT and SGDT say then.
    descriptor_tables:
    "lidt [tables_pointer]", "lgdtd [tables_pointer]",
    "sidtd [0x5000]", "sgdtd [0x5008]",
    "mov eax, [0x5002]", "mov ebx, [0x500a]", "mov cx, [0x5000]",
    "hlt",
    "tables_pointer: .word 0x3ff",
    ".long 0x89456780"
}

real_mode! {
    /// What compilers hardly make any more, and BIOSes do.
    old_instructions:
    "mov ax, 0x1111", "mov cx, 0x2222", "mov bx, 0x3333", "mov si, 0x6666", "pusha",
    "xor ax, ax", "xor cx, cx", "xor bx, bx", "xor si, si", "popa",
    "enter 8, 0", "mov di, bp", "sub di, sp", "leave",            // DI = 8
    "mov byte ptr [0x5007], 0x77", "mov bx, 0x5000", "mov al, 7", "xlatb", "mov dl, al", // DL = 0x77
    "mov al, 63", "aam", "mov bx, ax",                            // BX = 0x603
    "aad", "mov dh, al",                                          // DH = 63
    "mov al, 0x80", "cbw", "push dx", "cwd", "pop dx",            // AX = 0xff80
    "push ax",
    "mov al, 0x22", "sub al, 0x15", "das", "mov ch, al",          // CH = 7
    "pop ax",
    "mov bp, 3", "push cx", "mov cx, 4", "2: inc bp", "loop 2b", "pop cx", // BP = 7
    "mov dword ptr [0x5010], 0x00405100", "push ds", "lds si, [0x5010]", "mov cl, [si]", "pop ds", // CL = byte at 0x5500
    "hlt"
}

real_mode! {
    /// DAA, AAA and AAS.
    decimal:
    "mov al, 0x27", "add al, 0x15", "daa", "mov bl, al",          // BL = 0x42
    "mov ax, 0x0008", "add al, 5", "aaa", "mov cx, ax",           // CX = 0x103
    "mov ax, 0x0203", "sub al, 5", "aas", "mov dx, ax",           // DX = 0x108
    "hlt"
}

// ---- Interrupts and exceptions

real_mode! {
    /// INT n with flags that it clears, and IRET.
    software_interrupt:
    "mov word ptr [4 * 0x20], offset software_handler",
    "mov eax, 0x00040000", "push eax", "popfd", "mov eax, 0", // AC
    "sti", "std", "stc",
    "int 0x20",
    guest::label!("behind_int"), "pushf", "pop di",
    "hlt",
    "software_handler:",
    "pushfd", "pop ecx",
    "mov bp, sp", "mov ax, [bp]", "mov bx, [bp + 2]", "mov dx, [bp + 4]", "mov esi, esp",
    "iret"
}

real_mode! {
    /// With vectors at 0x5000, goes where SI says. Those at 0 lead elsewhere.
    moved_vectors:
    "mov word ptr [4 * 2], offset vectors_old", "mov word ptr [4 * 6], offset vectors_old",
    "mov word ptr [4 * 0x30], offset vectors_old",
    "mov word ptr [0x5000 + 4 * 2], offset vectors_new", "mov word ptr [0x5000 + 4 * 6], offset vectors_new",
    "mov word ptr [0x5000 + 4 * 0x30], offset vectors_new",
    "lidt [moved_pointer]",
    "jmp si",
    guest::label!("vectors_int"), "int 0x30",
    guest::label!("vectors_ud"), "ud2",
    // Whatever ran before, NMIs are not blocked.
    guest::label!("vectors_wait"), "pushf", "push cs", "push offset vectors_open", "iret",
    "vectors_open: sti", "hlt", "jmp vectors_open",
    "vectors_old: mov ax, 0xbad", "hlt",
    "vectors_new: mov ax, 0x600d", guest::label!("vectors_end"), "hlt",
    "moved_pointer: .word 0x3ff",
    ".long 0x5000"
}

real_mode! {
    /// With vectors 0 to 31 at hand, goes where SI says. DI is the limit of the table if it is not 0. The stack is used
    /// before, so that no delivery is interrupted by the host's page faults.
    faults:
    "mov ax, offset fault_stubs", "xor bx, bx",
    "2: mov [bx], ax", "add ax, 5", "add bx, 4", "cmp bx, 128", "jne 2b",
    "mov word ptr [4 * 0x30], offset fault_beyond",
    "test di, di", "jz 3f",
    "mov [0x5000], di", "mov dword ptr [0x5002], 0", "lidt [0x5000]",
    "3: xor ax, ax", "push ax", "pop cx", "jmp si",
    guest::label!("fault_ud"), "ud2",
    guest::label!("fault_de"), "div al",
    guest::label!("fault_gp"), "mov ax, [0xffff]",
    guest::label!("fault_gp_write"), "mov dword ptr [0xfffd], 0",
    guest::label!("fault_gp_wide"), "mov edi, 0x10000",
    guest::label!("fault_gp_wide_here"), "mov al, [edi]",
    guest::label!("fault_ss"), "mov bp, 0xffff",
    guest::label!("fault_ss_here"), "mov ax, [bp]",
    guest::label!("fault_lock"), ".byte 0xf0, 0x90",
    guest::label!("fault_sldt"), "sldt ax",
    guest::label!("fault_msr"), "mov ecx, 0xdeadbeef",
    guest::label!("fault_msr_here"), "rdmsr",
    guest::label!("fault_cr4"), "mov eax, 0x80000000",
    guest::label!("fault_cr4_here"), "mov cr4, eax",
    guest::label!("fault_bound"), "mov dword ptr [0x5010], 0x00020001", // BOUND: 0 is not between 1 and 2
    guest::label!("fault_bound_here"), "bound ax, [0x5010]",
    guest::label!("trap_bp"), "int3",
    guest::label!("trap_bp_end"), "hlt",
    guest::label!("trap_of"), "mov al, 0x7f", "inc al", "into",
    guest::label!("trap_of_end"), "hlt",
    guest::label!("trap_step"), "push 0x100", "popf", "nop",
    guest::label!("trap_step_end"), "hlt",
    guest::label!("fault_int"), "int 0x30",
    "hlt",
    "fault_beyond: mov ax, 0xbad", "hlt"
}

real_mode! {
    /// Waits with interrupts on; vectors 2 and 0x30 count in CX and say what they interrupted in BX.
    wait_for_events:
    "mov word ptr [4 * 2], offset event_handler", "mov word ptr [4 * 0x30], offset event_handler",
    "sti",
    guest::label!("event_wait"), "hlt",
    guest::label!("event_behind"), "cmp cl, dl", "jne event_behind",
    guest::label!("event_end"), "hlt", "jmp event_wait",
    "event_handler:",
    "inc cx", "mov bp, sp", "mov bx, [bp]", "mov si, [bp + 4]", "pushf", "pop di",
    "mov al, cl", guest::label!("in_event"), "out 0x80, al",
    "iret"
}

real_mode! {
    /// Opens the window for interrupts with STI.
    window:
    "out 0x80, al",
    guest::label!("window_sti"), "sti",
    "inc cx",
    guest::label!("window_open"), "inc cx",
    "2: jmp 2b"
}

real_mode! {
    /// For a debugger.
    stepped:
    "out 0x80, al",
    guest::label!("stepped_first"), "inc ax",
    guest::label!("stepped_second"), "mov ds, bx",
    guest::label!("stepped_third"), "jmp 2f",
    "nop",
    "2:", guest::label!("stepped_fourth"), "inc cx",
    guest::label!("stepped_end"), "hlt"
}

// ---- Between the modes

real_mode! {
    /// Into protected mode and back, with an exit at each step.
    mode_steps:
    "lgdtd [real_gdt_pointer]",
    "mov si, 0x500", "mov ds, si", "mov dword ptr [0], 0x11223344",
    "mov eax, cr0", "or al, 1", "mov cr0, eax",
    "out 0x80, al",
    "mov ecx, [0]", // by the old DS
    ".byte 0xea", ".word mode_32", ".word 0x20",
    ".code32",
    "mode_32: out 0x81, al",
    "mov bx, 0x10", "mov ds, ebx", "mov es, ebx", "mov ss, ebx",
    "out 0x82, al",
    "mov edx, [0x5000]",
    "push 0x76543210", "pop edi",
    ".byte 0xea", ".long mode_16", ".word 0x08",
    ".code16",
    "mode_16: mov bx, 0x18", "mov ds, bx", "mov es, bx", "mov ss, bx",
    "out 0x83, al",
    "mov eax, cr0", "and al, 0xfe", "mov cr0, eax",
    "out 0x84, al",
    ".byte 0xea", ".word mode_real", ".word 0",
    "mode_real: mov ds, si", "xor bx, bx", "mov es, bx", "mov ss, bx",
    "mov ebp, [0]",
    "out 0x85, al",
    guest::label!("mode_end"), "hlt"
}

real_mode! {
    /// CX times to 32-bit protected mode and back.
    round_trips:
    "lgdtd [real_gdt_pointer]",
    "2: mov eax, cr0", "or al, 1", "mov cr0, eax",
    ".byte 0xea", ".word trip_32", ".word 0x20",
    ".code32",
    "trip_32: inc ebx",
    ".byte 0xea", ".long trip_16", ".word 0x08",
    ".code16",
    "trip_16: mov eax, cr0", "and al, 0xfe", "mov cr0, eax",
    ".byte 0xea", ".word trip_real", ".word 0",
    "trip_real: dec cx", "jnz 2b",
    guest::label!("trip_end"), "hlt"
}

real_mode! {
    /// Sets CR0.PE with a CS and a DS whose selectors, in protected mode, would ask for ring 3.
    odd_selectors:
    "lgdtd [real_gdt_pointer]",
    "mov dword ptr [0x5030], 0x55667788",
    "mov ax, 0x0503", "mov ds, ax",
    ".byte 0xea", ".word odd_here - 0x30", ".word 0x0003",
    "odd_here: mov eax, cr0", "or al, 1", "mov cr0, eax",
    "mov ebx, [0]",
    "out 0x80, al",
    "and al, 0xfe", "mov cr0, eax",
    "mov ecx, [0]",
    ".byte 0xea", ".word odd_end", ".word 0",
    guest::label!("odd_end"), "hlt"
}

real_mode! {
    /// LMSW sets CR0.PE, and cannot clear it.
    machine_status:
    "smsw bx", "mov ax, bx", "or al, 1", "lmsw ax",
    "smsw cx", "mov ax, cx", "and al, 0xfe", "lmsw ax",
    "smsw dx",
    "out 0x80, al",
    "mov eax, cr0", "and al, 0xfe", "mov cr0, eax",
    "smsw si",
    "hlt"
}

real_mode! {
    /// Waits for the host to change the mode. `hosts_32` is 32-bit code, `hosts_16` 16-bit code.
    hosts_choice:
    guest::label!("hosts_wait"), "hlt",
    guest::label!("hosts_16"), "mov bx, cs", "mov eax, [0x5000]", "smsw cx",
    guest::label!("hosts_16_end"), "hlt",
    ".code32",
    guest::label!("hosts_32"), "mov bx, cs", "mov eax, [0x5000]", "smsw ecx",
    guest::label!("hosts_32_end"), "hlt",
    ".code16"
}

// ---- A delivery that cannot be

real_mode! {
    /// What a host sends an event that has no stack and no vectors, or lets fault; then an instruction that KVM may have
    /// to emulate.
    undeliverable:
    guest::label!("undeliverable_fault"), "div al",
    guest::label!("undeliverable_next"),
    "mov eax, cr0",
    guest::label!("undeliverable_hlt"), "hlt",
    "hlt", "hlt", "hlt", "hlt",
    "2:", "jmp 2b"
}

real_mode! {
    /// As `undeliverable`, with vectors but with a stack on a device.
    device_stack:
    "mov word ptr [4 * 2], offset device_stack_handler",
    "out 0x80, al",
    guest::label!("device_stack_next"), "jmp device_stack_next",
    "device_stack_handler:",
    "mov bx, 2",
    guest::label!("device_stack_hlt"), "hlt",
    "hlt"
}
