//! VM entry and what follows a VM exit: one round trip, in assembly.
#![expect(unsafe_code, reason = "VM entries")]

use core::arch::naked_asm;
use core::mem::offset_of;

use super::field;
use crate::registers::Registers;

/// Where a VM exit goes on in L1.
pub(super) fn exit_address() -> u64 {
    unsafe extern "C" {
        static vmx_exit_here: u8;
    }
    &raw const vmx_exit_here as u64
}

/// Where L2's function returns to.
#[unsafe(naked)]
pub(crate) extern "C" fn returned() {
    naked_asm!(crate::label!("vmx_returned"), "2:", "vmcall", "jmp 2b")
}

/// One round trip: registers of L2 loaded, VMLAUNCH or VMRESUME, registers stored. 0: L2 exited; 1: VMfailInvalid; 2:
/// VMfailValid.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn enter(registers: *mut Registers, resume: bool) -> u64 {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "pushfq",
        "push rdi",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp", // without a current VMCS it fails as the entry will
        "test sil, sil",
        "mov rax, [rdi + {rax}]", // moves leave ZF alone
        "mov rbx, [rdi + {rbx}]",
        "mov rcx, [rdi + {rcx}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rsi, [rdi + {rsi}]",
        "mov rbp, [rdi + {rbp}]",
        "mov r8, [rdi + {r8}]",
        "mov r9, [rdi + {r9}]",
        "mov r10, [rdi + {r10}]",
        "mov r11, [rdi + {r11}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "mov rdi, [rdi + {rdi}]",
        "jnz 2f",
        crate::label!("vmlaunch_here"),
        "vmlaunch",
        "jmp 3f",
        "2:",
        crate::label!("vmresume_here"),
        "vmresume",
        "3:",
        "mov eax, 1",
        "jc 4f",
        "mov eax, 2",
        "4:",
        "pop rdi",
        "popfq",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
        crate::label!("vmx_exit_here"),
        "push rdi",
        "mov rdi, [rsp + 8]",
        "mov [rdi + {rax}], rax",
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rcx}], rcx",
        "mov [rdi + {rdx}], rdx",
        "mov [rdi + {rsi}], rsi",
        "pop qword ptr [rdi + {rdi}]",
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r8}], r8",
        "mov [rdi + {r9}], r9",
        "mov [rdi + {r10}], r10",
        "mov [rdi + {r11}], r11",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "xor eax, eax",
        "jmp 4b",
        host_rsp = const field::HOST_RSP.0,
        rax = const offset_of!(Registers, rax),
        rbx = const offset_of!(Registers, rbx),
        rcx = const offset_of!(Registers, rcx),
        rdx = const offset_of!(Registers, rdx),
        rsi = const offset_of!(Registers, rsi),
        rdi = const offset_of!(Registers, rdi),
        rbp = const offset_of!(Registers, rbp),
        r8 = const offset_of!(Registers, r8),
        r9 = const offset_of!(Registers, r9),
        r10 = const offset_of!(Registers, r10),
        r11 = const offset_of!(Registers, r11),
        r12 = const offset_of!(Registers, r12),
        r13 = const offset_of!(Registers, r13),
        r14 = const offset_of!(Registers, r14),
        r15 = const offset_of!(Registers, r15),
    )
}
