//! This guest as a hypervisor: SVM and what it promises to L1 and L2.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "L2's code, and tables broken on purpose")]
guest::payload!();

use core::arch::naked_asm;

use guest::report::value;
use guest::svm::{L2, exit};

/// HLT.
#[unsafe(naked)]
extern "C" fn halts() {
    naked_asm!(guest::label!("hlt_here"), "hlt", "ret")
}

guest::scenario! {
    /// L2 halts, which L1 intercepts if `intercept`.
    fn hlt() {
        let mut l2 = L2::new(halts);
        if guest::arg("intercept").is_some() {
            l2.vmcb().intercept(exit::HLT);
        }
        let exit = l2.run();
        value("exit", exit.code);
        value("rip", exit.rip);
    }
}
