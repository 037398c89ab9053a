//! Ring 3: a function runs at CPL 3 until it takes an exception, which comes back as a value.
#![expect(unsafe_code, reason = "a change of privilege")]

use core::arch::naked_asm;
use core::cell::UnsafeCell;

use crate::tables::{USER_CS, USER_DS};
use crate::{Fault, catch, paging};

/// A page for ring 3's stack.
#[repr(C, align(4096))]
struct Stack(UnsafeCell<[u8; 4096]>);

// SAFETY: only ring-3 code uses it, which is not Rust's.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; 4096]));

/// Runs `code` at CPL 3; `None` if it or the stack is not mapped by a 4 KiB page.
///
/// `code` must be a naked function in section `.user.text`: the pages of that section, and no others but a
/// stack, are opened to ring 3.
pub fn run(code: extern "C" fn()) -> Option<Fault> {
    run_with(code, 2) // Bit 1 is always 1.
}

/// As [`run`], with these RFLAGS: IOPL 3, say, which only ring 0 can give.
pub fn run_with(code: extern "C" fn(), rflags: u64) -> Option<Fault> {
    let address = code as *const () as u64;
    let stack = STACK.0.get() as u64;
    // SAFETY: only permissions are added, to pages that hold no Rust values.
    unsafe {
        paging::open_to_user(address, false)?;
        paging::open_to_user(stack, true)?;
    }
    // SAFETY: the stack is a page of its own; the way back is the exception that `catch` waits for.
    catch(|| unsafe { leave(address, stack + 4096 - 8, rflags) }).err()
}

/// IRETQ to ring 3.
#[unsafe(naked)]
unsafe extern "C" fn leave(rip: u64, rsp: u64, rflags: u64) {
    naked_asm!(
        "push {ss}",
        "push rsi",
        "push rdx",
        "push {cs}",
        "push rdi",
        "iretq",
        ss = const USER_DS,
        cs = const USER_CS,
    )
}
