//! KVM_X86_SET_MSR_FILTER, and which refused accesses of MSRs exit.

use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

use crate::case::{MsrDefault, MsrExit, MsrFilter, MsrRange};

/// Gives the VM a filter. A range of no MSRs is given to KVM as it is, which ignores it.
pub fn set(vm: &VmFd, filter: &MsrFilter) -> Result<(), kvm_ioctls::Error> {
    let bitmaps: Vec<Vec<u8>> = filter.ranges.iter().map(bitmap).collect();
    let ranges: Vec<_> = filter
        .ranges
        .iter()
        .zip(&bitmaps)
        .map(|(range, bitmap)| MsrFilterRange {
            flags: flags(range),
            base: range.base,
            msr_count: range.count,
            bitmap,
        })
        .collect();
    let default = match filter.default {
        MsrDefault::Allow => MsrFilterDefaultAction::ALLOW,
        MsrDefault::Deny => MsrFilterDefaultAction::DENY,
    };
    vm.set_msr_filter(default, &ranges)
}

/// The argument of KVM_CAP_X86_USER_SPACE_MSR.
pub fn exits(reasons: &[MsrExit]) -> u64 {
    let bit = |reason: &MsrExit| match reason {
        MsrExit::Inval => kvm_bindings::KVM_MSR_EXIT_REASON_INVAL,
        MsrExit::Unknown => kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN,
        MsrExit::Filter => kvm_bindings::KVM_MSR_EXIT_REASON_FILTER,
    };
    reasons.iter().map(bit).fold(0, |bits, bit| bits | bit).into()
}

fn flags(range: &MsrRange) -> MsrFilterRangeFlags {
    let mut flags = MsrFilterRangeFlags::empty();
    flags.set(MsrFilterRangeFlags::READ, range.reads);
    flags.set(MsrFilterRangeFlags::WRITE, range.writes);
    flags
}

/// A bit for each MSR of the range, 1 to allow; in whole words of 64 bits, as KVM reads it.
fn bitmap(range: &MsrRange) -> Vec<u8> {
    let mut bits = vec![0; range.count.div_ceil(64) as usize * 8];
    for msr in &range.allow {
        let at = msr.wrapping_sub(range.base);
        if at < range.count
            && let Some(byte) = bits.get_mut(at as usize / 8)
        {
            *byte |= 1 << (at % 8);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_has_a_bit_for_each_allowed_msr() {
        let range =
            MsrRange { base: 0x200, count: 65, reads: true, writes: false, allow: vec![0x201, 0x240] };
        let bits = bitmap(&range);
        assert_eq!(bits.len(), 16, "KVM copies whole words");
        assert_eq!(bits.iter().map(|byte| byte.count_ones()).sum::<u32>(), 2);
        assert_eq!((bits[0], bits[8]), (0b10, 1));
        assert_eq!(flags(&range), MsrFilterRangeFlags::READ);
    }

    #[test]
    fn reasons_are_bits() {
        assert_eq!(exits(&[]), 0);
        assert_eq!(exits(&[MsrExit::Inval]), 1);
        assert_eq!(exits(&[MsrExit::Unknown, MsrExit::Filter]), 6);
    }
}
