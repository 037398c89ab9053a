//! The guest runtime: what runs inside the VM, below the scenarios.
//!
//! One module per piece of hardware. It reports what happened and judges only what a scenario
//! asserts; it knows nothing of manifests or KVM. Its boot costs a few hundred instructions at most,
//! because a software backend emulates each of them.
//!
//! A payload with one scenario:
//! ```ignore
//! //! What the scenarios of this payload have in common.
//! #![no_std]
//! #![no_main]
//! guest::payload!();
//!
//! guest::scenario! {
//!     /// Reads one byte from port 0x61.
//!     fn in_byte() {
//!         guest::report::value("byte", guest::pio::in8(0x61).into());
//!     }
//! }
//! ```
#![no_std]

pub mod apic;
pub mod arrivals;
pub mod control;
pub mod entry;
pub mod event;
pub mod fault;
pub mod label;
#[cfg(feature = "guest")]
mod memory;
pub mod mmio;
pub mod nested;
mod page;
pub mod paging;
pub mod pio;
pub mod registers;
pub mod report;
pub mod ring3;
pub mod smm;
pub mod smp;
pub mod svm;
pub mod tables;
pub mod vmx;

pub use bootloader_api;
pub use entry::{arg, physical};
pub use exitspec_protocol as protocol;
pub use fault::{Fault, catch, handle};
