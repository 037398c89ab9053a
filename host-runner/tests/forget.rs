//! Whatever saving and restoring a VM leaves out, a case notices: the suite's own cases on the real device.
//!
//! Needs `/dev/kvm` and the payloads of `cargo xtask build`; without the device there is nothing to test. What a software
//! backend cannot show is told, and shown by `exitspec test --vary save-restore --forget PIECE` in a bed.

use std::path::Path;

use exitspec::case::{Case, Combo, Pio, Vary, Vendor};
use exitspec::machine::Piece;
use exitspec::outcome::{Outcome, Verdict};
use exitspec::stage::{Images, Payloads, Stage};
use exitspec::suite::Play;
use exitspec::{host, manifest};
use kvm_ioctls::Kvm;

/// A case that notices, and where: every backend, or those of beds.
enum By {
    /// Any host that does not skip the case.
    Any(&'static str),
    /// Not here, where it is skipped or waived.
    Beds(&'static str),
}

fn noticed_by(piece: Piece) -> By {
    match piece {
        Piece::Regs => By::Any("state.rflags"),
        Piece::Sregs => By::Any("state.descriptor-tables"),
        Piece::Pdptrs => By::Beds("state.pdptrs"),
        Piece::Xsave => By::Any("state.sse-registers"),
        Piece::Xcrs => By::Beds("state.xcr0"),
        Piece::DebugRegs => By::Any("state.debug-registers"),
        Piece::Msrs => By::Any("state.syscall-msrs"),
        Piece::Mtrrs => By::Any("state.variable-mtrrs"),
        Piece::MachineCheck => By::Any("state.machine-check-bank"),
        Piece::Tsc => By::Beds("state.tsc-as-written"),
        Piece::Events => By::Any("EVENTS"),
        Piece::Nested => By::Beds("NESTED"),
        Piece::MpState => By::Any("state-chips.between-init-and-sipi"),
        Piece::Lapic => By::Any("state-chips.local-apic-registers"),
        Piece::TscDeadline => By::Any("state-chips.tsc-deadline-timer"),
        Piece::RunFields => By::Any("state.cr8"),
        Piece::Irqchip => By::Any("state-chips.pic-registers"),
        Piece::Pit => By::Any("state-chips.pit-channel"),
        Piece::Clock => By::Any("state.kvmclock"),
    }
}
