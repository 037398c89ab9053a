//! The places before instructions at which KVM's forced-emulation prefix can be put: what a payload lists, checked.

use exitspec_protocol::EMULABLE_NOP;

use super::error::Fault;
use super::segment::Segment;

/// Addresses of the NOPs in the section's array, each of which must be one in executable memory.
pub(super) fn read(section: &[u8], segments: &[Segment]) -> Result<Vec<u64>, Fault> {
    let (rows, []) = section.as_chunks() else {
        return Err(Fault::EmulableSize { size: section.len() });
    };
    let mut places: Vec<u64> = rows.iter().map(|row| u64::from_le_bytes(*row)).collect();
    places.sort_unstable();
    let is_nop = |address: u64| {
        let code = segments.iter().filter(|segment| segment.executable);
        code.filter_map(|segment| segment.file_bytes(address, EMULABLE_NOP.len()))
            .any(|bytes| bytes == EMULABLE_NOP)
    };
    match places.iter().find(|place| !is_nop(**place)) {
        Some(&address) => Err(Fault::NotEmulable { address }),
        None => Ok(places),
    }
}
