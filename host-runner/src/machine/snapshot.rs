//! The whole of a VM's state outside its memory, saved and restored as live migration does.
//!
//! Order matters to KVM: system registers come before what depends on the CPU's mode, the local APIC
//! before events and multiprocessing state, general registers last. Before a save, every exit that is half done
//! must have been completed by another KVM_RUN (KVM API, "The kvm_run structure"); the machine does that.
#![expect(unsafe_code, reason = "KVM_SET_XSAVE's buffer may have to be larger than its type")]

use std::sync::Arc;

use kvm_bindings as kvm;
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Cap, KvmNestedStateBuffer, VmFd};
use serde::{Deserialize, Serialize};

use super::Host;
use super::banks::{failed, nested_state};
use super::vcpu::Vcpu;
use crate::bank::RunFields;
use crate::case::{Irqchip, MachineSpec};
use crate::play::TargetError;

/// One of the things that are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "what the ioctls are called")]
pub enum Piece {
    Regs,
    Sregs,
    Xsave,
    Xcrs,
    DebugRegs,
    Msrs,
    Tsc,
    Events,
    Nested,
    MpState,
    Lapic,
    TscDeadline,
    RunFields,
    Irqchip,
    Clock,
}

/// A VM's state.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    vcpus: Vec<SavedVcpu>,
    chips: Vec<kvm::kvm_irqchip>,
    clock: kvm::kvm_clock_data,
}

#[derive(Serialize, Deserialize)]
struct SavedVcpu {
    regs: kvm::kvm_regs,
    sregs: kvm::kvm_sregs,
    xsave: kvm::kvm_xsave,
    xcrs: kvm::kvm_xcrs,
    debug: kvm::kvm_debugregs,
    msrs: Vec<kvm_msr_entry>,
    events: kvm::kvm_vcpu_events,
    nested: Option<KvmNestedStateBuffer>,
    mp_state: kvm::kvm_mp_state,
    lapic: Option<kvm::kvm_lapic_state>,
    run: RunFields,
}

/// Reads everything.
pub fn save(host: &Host, spec: &MachineSpec, vm: &VmFd, vcpus: &[Arc<Vcpu>]) -> Result<Saved, TargetError> {
    let indices = host.kvm.get_msr_index_list().map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
    let mut chips = Vec::new();
    if spec.irqchip == Irqchip::Kernel {
        for chip_id in [kvm::KVM_IRQCHIP_PIC_MASTER, kvm::KVM_IRQCHIP_PIC_SLAVE, kvm::KVM_IRQCHIP_IOAPIC] {
            let mut chip = kvm::kvm_irqchip { chip_id, ..kvm::kvm_irqchip::default() };
            vm.get_irqchip(&mut chip).map_err(failed("KVM_GET_IRQCHIP"))?;
            chips.push(chip);
        }
    }
    let lapic = spec.irqchip != Irqchip::None;
    let nested = host.kvm.check_extension_int(Cap::NestedState) > 0;
    let saved = vcpus.iter().map(|vcpu| save_vcpu(vcpu, indices.as_slice(), lapic, nested));
    Ok(Saved {
        vcpus: saved.collect::<Result<_, _>>()?,
        chips,
        clock: vm.get_clock().map_err(failed("KVM_GET_CLOCK"))?,
    })
}

fn save_vcpu(vcpu: &Vcpu, indices: &[u32], lapic: bool, nested: bool) -> Result<SavedVcpu, TargetError> {
    let fd = &vcpu.fd;
    Ok(SavedVcpu {
        // First: KVM_GET_MP_STATE makes KVM take a pending INIT or SIPI into account.
        mp_state: fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?,
        // Next: it turns a pending exception's payload into DR6 or CR2, which are read below.
        events: fd.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))?,
        nested: if nested { Some(nested_state(vcpu)?) } else { None },
        regs: fd.get_regs().map_err(failed("KVM_GET_REGS"))?,
        sregs: fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?,
        xsave: fd.get_xsave().map_err(failed("KVM_GET_XSAVE"))?,
        xcrs: fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?,
        debug: fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?,
        msrs: save_msrs(vcpu, indices)?,
        run: vcpu.run_fields(),
        lapic: if lapic { Some(fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?) } else { None },
    })
}

/// All MSRs that this vCPU has of those that KVM lists: KVM stops at the first that it refuses, so that
/// one is left out and the rest asked for again.
fn save_msrs(vcpu: &Vcpu, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, TargetError> {
    let mut saved = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let entries: Vec<_> =
            rest.iter().map(|&index| kvm_msr_entry { index, ..kvm_msr_entry::default() }).collect();
        let mut msrs =
            Msrs::from_entries(&entries).map_err(|_| TargetError::Harness("too many MSRs".into()))?;
        let count = vcpu.fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
        saved.extend_from_slice(&msrs.as_slice()[..count]);
        rest = rest.get(count + 1..).unwrap_or_default();
    }
    Ok(saved)
}

/// Writes everything into a fresh VM, but for what the host is told to forget.
pub fn restore(
    host: &Host,
    spec: &MachineSpec,
    vm: &VmFd,
    vcpus: &[Arc<Vcpu>],
    saved: &Saved,
) -> Result<(), TargetError> {
    let keeps = |piece| host.forget != Some(piece);
    for chip in saved.chips.iter().filter(|_| keeps(Piece::Irqchip)) {
        vm.set_irqchip(chip).map_err(failed("KVM_SET_IRQCHIP"))?;
    }
    if keeps(Piece::Clock) {
        let clock = kvm::kvm_clock_data { flags: 0, ..saved.clock };
        vm.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))?;
    }
    vcpus.iter().zip(&saved.vcpus).try_for_each(|(vcpu, saved)| restore_vcpu(&keeps, spec, vcpu, saved))
}

fn restore_vcpu(
    keeps: &dyn Fn(Piece) -> bool,
    spec: &MachineSpec,
    vcpu: &Vcpu,
    saved: &SavedVcpu,
) -> Result<(), TargetError> {
    let fd = &vcpu.fd;
    if keeps(Piece::Sregs) {
        fd.set_sregs(&saved.sregs).map_err(failed("KVM_SET_SREGS"))?;
    }
    let msrs = saved.msrs.iter().filter(|msr| keeps(if msr.index == TSC { Piece::Tsc } else { Piece::Msrs }));
    restore_msrs(vcpu, &msrs.copied().collect::<Vec<_>>())?;
    // A CPU without XSAVE has none, and KVM refuses even an empty list of them.
    if saved.xcrs.nr_xcrs != 0 && keeps(Piece::Xcrs) {
        fd.set_xcrs(&saved.xcrs).map_err(failed("KVM_SET_XCRS"))?;
    }
    if keeps(Piece::Xsave) {
        // SAFETY: the state came from KVM_GET_XSAVE of a VM with the same CPUID and no dynamically enabled
        // features, for which the 4 KiB structure is complete (KVM API 4.43).
        unsafe { fd.set_xsave(&saved.xsave) }.map_err(failed("KVM_SET_XSAVE"))?;
    }
    if let Some(lapic) = saved.lapic.as_ref().filter(|_| keeps(Piece::Lapic)) {
        fd.set_lapic(lapic).map_err(failed("KVM_SET_LAPIC"))?;
    }
    if saved.lapic.is_some() && keeps(Piece::TscDeadline) {
        // KVM takes the deadline only when the timer's mode, which the local APIC holds, says so.
        let deadline = saved.msrs.iter().filter(|msr| msr.index == TSC_DEADLINE && msr.data != 0);
        restore_msrs(vcpu, &deadline.copied().collect::<Vec<_>>())?;
    }
    if spec.irqchip != Irqchip::None && keeps(Piece::MpState) {
        fd.set_mp_state(saved.mp_state).map_err(failed("KVM_SET_MP_STATE"))?;
    }
    if let Some(nested) = saved.nested.as_ref().filter(|_| keeps(Piece::Nested)) {
        // Entering or leaving SMM makes KVM leave L2, so a vCPU in SMM must be put there first.
        if keeps(Piece::Events) {
            fd.set_vcpu_events(&saved.events).map_err(failed("KVM_SET_VCPU_EVENTS"))?;
        }
        fd.set_nested_state(nested).map_err(failed("KVM_SET_NESTED_STATE"))?;
    }
    if keeps(Piece::RunFields) {
        // CR8 without an in-kernel local APIC is taken from here at every KVM_RUN.
        vcpu.set_run_fields(&saved.run);
    }
    if keeps(Piece::DebugRegs) {
        fd.set_debug_regs(&saved.debug).map_err(failed("KVM_SET_DEBUGREGS"))?;
    }
    if keeps(Piece::Regs) {
        fd.set_regs(&saved.regs).map_err(failed("KVM_SET_REGS"))?;
    }
    if keeps(Piece::Events) {
        // Last: setting registers clears a pending exception.
        fd.set_vcpu_events(&saved.events).map_err(failed("KVM_SET_VCPU_EVENTS"))?;
    }
    Ok(())
}

/// KVM stops at an MSR that it refuses, such as a read-only one. That is no loss if the new vCPU has the
/// value already; anything else is state that the guest would miss.
fn restore_msrs(vcpu: &Vcpu, entries: &[kvm_msr_entry]) -> Result<(), TargetError> {
    let mut rest = entries;
    while !rest.is_empty() {
        let msrs = Msrs::from_entries(rest).map_err(|_| TargetError::Harness("too many MSRs".into()))?;
        let count = vcpu.fd.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS"))?;
        let Some(refused) = rest.get(count) else { return Ok(()) };
        let now = save_msrs(vcpu, &[refused.index])?.first().map(|msr| msr.data);
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

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;
