//! Which MSRs a saved VM has, and how they are written back.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::Kvm;

use super::banks::failed;
use super::snapshot::Piece;
use super::vcpu::Vcpu;
use crate::play::TargetError;

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6e0;

/// The MTRRs (SDM vol. 3, 13.11), which KVM_GET_MSR_INDEX_LIST leaves out: fixed ranges, eight variable ranges and the
/// default type.
fn mtrrs() -> impl Iterator<Item = u32> {
    [0x250, 0x258, 0x259].into_iter().chain(0x268..0x270).chain(0x200..0x210).chain([0x2ff])
}

/// Control, status, address and miscellany of the 32 banks that KVM gives a vCPU (KVM API, KVM_X86_SETUP_MCE).
const MACHINE_CHECK: std::ops::Range<u32> = 0x400..0x480;

/// Which piece an MSR belongs to.
pub fn piece(index: u32) -> Piece {
    match index {
        TSC => Piece::Tsc,
        index if MACHINE_CHECK.contains(&index) => Piece::MachineCheck,
        index if mtrrs().any(|mtrr| mtrr == index) => Piece::Mtrrs,
        _ => Piece::Msrs,
    }
}

/// All that there may be: those that KVM lists, and those that it has although it does not list them.
pub fn indices(kvm: &Kvm) -> Result<Vec<u32>, TargetError> {
    let listed = kvm.get_msr_index_list().map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
    let mut indices = listed.as_slice().to_vec();
    let more = mtrrs().chain(MACHINE_CHECK).filter(|index| !listed.as_slice().contains(index));
    indices.extend(more);
    Ok(indices)
}

/// All of these that this vCPU has: KVM stops at the first that it refuses, so that one is left out and the rest
/// asked for again.
pub fn save(vcpu: &Vcpu, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, TargetError> {
    let mut saved = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(MOST));
        let entries: Vec<_> =
            now.iter().map(|&index| kvm_msr_entry { index, ..kvm_msr_entry::default() }).collect();
        let mut msrs = list(&entries)?;
        let count = vcpu.fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
        saved.extend_from_slice(&msrs.as_slice()[..count]);
        rest = if count == now.len() { later } else { &rest[count + 1..] };
    }
    Ok(saved)
}

/// KVM stops at an MSR that it refuses, such as a read-only one. That is no loss if the new vCPU has the
/// value already; anything else is state that the guest would miss.
pub fn restore(vcpu: &Vcpu, entries: &[kvm_msr_entry]) -> Result<(), TargetError> {
    let mut rest = entries;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(MOST));
        let count = vcpu.fd.set_msrs(&list(now)?).map_err(failed("KVM_SET_MSRS"))?;
        let Some(refused) = now.get(count) else {
            rest = later;
            continue;
        };
        let now = save(vcpu, &[refused.index])?.first().map(|msr| msr.data);
        if now != Some(refused.data) {
            let now = now.map_or("unreadable".into(), |data| format!("{data:#x}"));
            return Err(TargetError::Deviates {
                expected: format!("MSR {:#x} restored to {:#x}", refused.index, refused.data),
                observed: format!("KVM_SET_MSRS refuses it; it is {now}"),
            });
        }
        rest = &rest[count + 1..];
    }
    Ok(())
}

/// KVM takes 255 in one call (MAX_IO_MSRS).
const MOST: usize = 255;

fn list(entries: &[kvm_msr_entry]) -> Result<Msrs, TargetError> {
    Msrs::from_entries(entries).map_err(|_| TargetError::Harness("too many MSRs".into()))
}
