//! The whole of a VM's state outside its memory, saved and restored as live migration does.
//!
//! Order matters to KVM: the TSC's frequency comes before its value, system registers before what depends on the
//! CPU's mode, XCR0 before the state that it enables, the local APIC before its timer's deadline, before events and
//! multiprocessing state, general registers last but for events. Before a save, every exit that is half done
//! must have been completed by another KVM_RUN (KVM API, "The kvm_run structure"); the machine does that.

use std::sync::Arc;

use kvm_bindings as kvm;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::{Cap, KvmNestedStateBuffer, VmFd};
use serde::{Deserialize, Serialize};

use super::Host;
use super::banks::{failed, nested_state};
use super::saved_msrs::{self, TSC_DEADLINE};
use super::state_ioctls;
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
    /// With `sregs`: the PDPTRs alone, which only KVM_GET_SREGS2 has.
    Pdptrs,
    Xsave,
    Xcrs,
    DebugRegs,
    /// Those that KVM lists.
    Msrs,
    /// Those that KVM has and does not list.
    Mtrrs,
    MachineCheck,
    Tsc,
    Events,
    Nested,
    MpState,
    Lapic,
    TscDeadline,
    RunFields,
    Irqchip,
    Pit,
    Clock,
}

/// A VM's state.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    vcpus: Vec<SavedVcpu>,
    chips: Vec<kvm::kvm_irqchip>,
    pit: Option<kvm::kvm_pit_state2>,
    clock: kvm::kvm_clock_data,
}

#[derive(Serialize, Deserialize)]
struct SavedVcpu {
    regs: kvm::kvm_regs,
    sregs: kvm::kvm_sregs,
    pdptrs: Option<[u64; 4]>,
    xsave: Vec<u64>,
    xcrs: kvm::kvm_xcrs,
    debug: kvm::kvm_debugregs,
    msrs: Vec<kvm_msr_entry>,
    /// `None` where KVM cannot set it.
    tsc_khz: Option<u32>,
    events: kvm::kvm_vcpu_events,
    nested: Option<KvmNestedStateBuffer>,
    mp_state: kvm::kvm_mp_state,
    lapic: Option<kvm::kvm_lapic_state>,
    run: RunFields,
}

/// Reads everything.
pub fn save(host: &Host, spec: &MachineSpec, vm: &VmFd, vcpus: &[Arc<Vcpu>]) -> Result<Saved, TargetError> {
    let mut chips = Vec::new();
    if spec.irqchip == Irqchip::Kernel {
        for chip_id in [kvm::KVM_IRQCHIP_PIC_MASTER, kvm::KVM_IRQCHIP_PIC_SLAVE, kvm::KVM_IRQCHIP_IOAPIC] {
            let mut chip = kvm::kvm_irqchip { chip_id, ..kvm::kvm_irqchip::default() };
            vm.get_irqchip(&mut chip).map_err(failed("KVM_GET_IRQCHIP"))?;
            chips.push(chip);
        }
    }
    let what = What {
        msrs: saved_msrs::indices(&host.kvm)?,
        lapic: spec.irqchip != Irqchip::None,
        nested: host.kvm.check_extension_int(Cap::NestedState) > 0,
        tsc_khz: host.kvm.check_extension(Cap::TscControl),
        sregs2: host.kvm.check_extension_raw(kvm::KVM_CAP_SREGS2.into()) > 0,
        // Of the VM: the size depends on what it has enabled.
        xsave: usize::try_from(vm.check_extension_raw(kvm::KVM_CAP_XSAVE2.into())).unwrap_or(0),
    };
    let saved = vcpus.iter().map(|vcpu| save_vcpu(vcpu, &what));
    Ok(Saved {
        vcpus: saved.collect::<Result<_, _>>()?,
        chips,
        pit: if spec.pit { Some(vm.get_pit2().map_err(failed("KVM_GET_PIT2"))?) } else { None },
        clock: vm.get_clock().map_err(failed("KVM_GET_CLOCK"))?,
    })
}

/// What there is to save of a vCPU here.
struct What {
    msrs: Vec<u32>,
    lapic: bool,
    nested: bool,
    tsc_khz: bool,
    sregs2: bool,
    /// KVM_CAP_XSAVE2: bytes, 0 without it.
    xsave: usize,
}

fn save_vcpu(vcpu: &Vcpu, what: &What) -> Result<SavedVcpu, TargetError> {
    let fd = &vcpu.fd;
    let khz = || fd.get_tsc_khz().map_err(failed("KVM_GET_TSC_KHZ"));
    Ok(SavedVcpu {
        // First: KVM_GET_MP_STATE makes KVM take a pending INIT or SIPI into account.
        mp_state: fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?,
        // Next: it turns a pending exception's payload into DR6 or CR2, which are read below.
        events: fd.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))?,
        nested: if what.nested { Some(nested_state(vcpu)?) } else { None },
        regs: fd.get_regs().map_err(failed("KVM_GET_REGS"))?,
        sregs: fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?,
        pdptrs: if what.sregs2 { state_ioctls::pdptrs(fd)? } else { None },
        xsave: state_ioctls::xsave(fd, what.xsave)?,
        xcrs: fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?,
        debug: fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?,
        msrs: saved_msrs::save(vcpu, &what.msrs)?,
        tsc_khz: if what.tsc_khz { Some(khz()?) } else { None },
        run: vcpu.run_fields(),
        lapic: if what.lapic { Some(fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?) } else { None },
    })
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
    if let Some(pit) = saved.pit.as_ref().filter(|_| keeps(Piece::Pit)) {
        vm.set_pit2(pit).map_err(failed("KVM_SET_PIT2"))?;
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
    if let Some(khz) = saved.tsc_khz {
        fd.set_tsc_khz(khz).map_err(failed("KVM_SET_TSC_KHZ"))?;
    }
    if keeps(Piece::Sregs) {
        match saved.pdptrs.filter(|_| keeps(Piece::Pdptrs)) {
            Some(pdptrs) => state_ioctls::set_sregs_and_pdptrs(fd, &saved.sregs, pdptrs)?,
            None => fd.set_sregs(&saved.sregs).map_err(failed("KVM_SET_SREGS"))?,
        }
    }
    let msrs = saved.msrs.iter().filter(|msr| keeps(saved_msrs::piece(msr.index)));
    saved_msrs::restore(vcpu, &msrs.copied().collect::<Vec<_>>())?;
    // A CPU without XSAVE has none, and KVM refuses even an empty list of them.
    if saved.xcrs.nr_xcrs != 0 && keeps(Piece::Xcrs) {
        fd.set_xcrs(&saved.xcrs).map_err(failed("KVM_SET_XCRS"))?;
    }
    if keeps(Piece::Xsave) {
        state_ioctls::set_xsave(fd, &saved.xsave)?;
    }
    if let Some(lapic) = saved.lapic.as_ref().filter(|_| keeps(Piece::Lapic)) {
        fd.set_lapic(lapic).map_err(failed("KVM_SET_LAPIC"))?;
    }
    if saved.lapic.is_some() && keeps(Piece::TscDeadline) {
        // KVM takes the deadline only when the timer's mode, which the local APIC holds, says so.
        let deadline = saved.msrs.iter().filter(|msr| msr.index == TSC_DEADLINE && msr.data != 0);
        saved_msrs::restore(vcpu, &deadline.copied().collect::<Vec<_>>())?;
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
