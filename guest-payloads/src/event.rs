//! Events as SVM's EVENTINJ and EXITINTINFO (APM vol. 2, 15.20) and VMX's interruption information (SDM vol. 3C,
//! "VM-Entry Controls for Event Injection") both encode them.

/// The event is there.
pub const VALID: u64 = 1 << 31;
/// It has an error code.
pub const HAS_ERROR: u64 = 1 << 11;

/// An external interrupt.
pub const fn interrupt(vector: u8) -> u64 {
    VALID | vector as u64
}

/// An NMI.
pub const fn nmi() -> u64 {
    VALID | 2 << 8 | 2
}

/// A hardware exception without error code.
pub const fn exception(vector: u8) -> u64 {
    VALID | 3 << 8 | vector as u64
}

/// INT n.
pub const fn software_interrupt(vector: u8) -> u64 {
    VALID | 4 << 8 | vector as u64
}
