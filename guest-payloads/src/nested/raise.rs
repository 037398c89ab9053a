//! Exceptions that L2 raises by itself, one instruction each, with the instruction's label.

use crate::catch;
use crate::report::value;

/// Defines `raise`, a function that raises the case's `vector`; #GP by WRMSR if it says `msr`. What it does not know is #PF.
///
/// A macro, because a label in this library would be one of every payload's.
#[macro_export]
macro_rules! raises {
    () => {
        $crate::code! {
            divide: "xor ecx, ecx", "xor edx, edx", $crate::label!("de_here"), "div ecx", "ret";
            step: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", $crate::label!("stepped"), "nop", "ret";
            breakpoint: $crate::label!("bp_here"), "int3", $crate::label!("behind_bp"), "ret";
            undefined: $crate::label!("ud_here"), "ud2", "ret";
            no_fpu: "mov rax, cr0", "or rax, 8", "mov cr0, rax", $crate::label!("nm_here"), "fninit", "ret";
            not_canonical: "mov rax, 1", "shl rax, 63", $crate::label!("gp_here"), "mov byte ptr [rax], 1", "ret";
            bad_msr: "mov ecx, 0xc0001ffe", "xor eax, eax", "xor edx, edx", $crate::label!("bad_msr_here"), "wrmsr",
                "ret";
            not_mapped: "mov eax, 0xdead0000", $crate::label!("pf_here"), "mov byte ptr [rax], 1", "ret";
        }

        fn raise() {
            match $crate::arg("vector") {
                Some(0) => divide(),
                Some(1) => step(),
                Some(3) => breakpoint(),
                Some(6) => undefined(),
                Some(7) => no_fpu(),
                Some(13) if $crate::arg("msr").is_some() => bad_msr(),
                Some(13) => not_canonical(),
                _ => not_mapped(),
            }
        }
    };
}

/// Tells the exception that `raise` raises, as the IDT delivers it.
pub fn tell(raise: fn()) {
    match catch(raise) {
        Ok(()) => value("no fault", 0),
        Err(fault) => {
            value("vector", fault.vector);
            value("error", fault.error);
            value("fault rip", fault.rip);
        }
    }
}
