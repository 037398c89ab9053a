//! From a [`MachineSpec`] to KVM's objects: the VM with its capabilities and interrupt controllers, and its vCPUs
//! with what the guest sees of the CPU.

use std::sync::Arc;

use exitspec_protocol::EMULABLE_NOP;
use kvm_bindings::{CpuId, KVM_PIT_SPEAKER_DUMMY, kvm_enable_cap, kvm_pit_config};
use kvm_ioctls::{Cap, IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::banks::failed;
use super::memory::Memory;
use super::msr_filter;
use super::vcpu::Vcpu;
use super::{Host, dirty};
use crate::case::{Irqchip, MachineSpec, MsrFilter};
use crate::host::switches;
use crate::play::TargetError;

/// A VM as the case wants it, without memory or vCPUs.
pub fn new_vm(host: &Host, spec: &MachineSpec) -> Result<VmFd, TargetError> {
    let vm = host.kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
    if host.intel {
        vm.set_tss_address(TSS_ADDRESS).map_err(failed("KVM_SET_TSS_ADDR"))?;
        vm.set_identity_map_address(IDENTITY_MAP_ADDRESS).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
    }
    let enable = |cap: u32, arg: u64| {
        let mut enable = kvm_enable_cap { cap, ..kvm_enable_cap::default() };
        enable.args[0] = arg;
        vm.enable_cap(&enable)
    };
    for name in &spec.enable_caps {
        let unknown = || TargetError::Harness(format!("capability `{name}` cannot be enabled"));
        let (cap, arg) = switches::enable(name).ok_or_else(unknown)?;
        enable(cap, arg).map_err(failed(&format!("KVM_ENABLE_CAP of {name}")))?;
    }
    let mut quirks = 0;
    for name in &spec.disable_quirks {
        quirks |= switches::quirk(name)
            .ok_or_else(|| TargetError::Harness(format!("there is no quirk `{name}`")))?;
    }
    if quirks != 0 {
        enable(kvm_bindings::KVM_CAP_DISABLE_QUIRKS2, quirks.into())
            .map_err(failed("KVM_CAP_DISABLE_QUIRKS2"))?;
    }
    if !spec.msr_exits.is_empty() {
        enable(kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR, msr_filter::exits(&spec.msr_exits))
            .map_err(failed("KVM_CAP_X86_USER_SPACE_MSR"))?;
    }
    match spec.irqchip {
        Irqchip::None => {}
        Irqchip::Split => {
            enable(kvm_bindings::KVM_CAP_SPLIT_IRQCHIP, 24).map_err(failed("KVM_CAP_SPLIT_IRQCHIP"))?;
        }
        Irqchip::Kernel => vm.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?,
    }
    if spec.pit {
        // With port 0x61, which gates channel 2.
        let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
        vm.create_pit2(config).map_err(failed("KVM_CREATE_PIT2"))?;
    }
    if spec.dirty_ring {
        enable(kvm_bindings::KVM_CAP_DIRTY_LOG_RING, dirty::RING_BYTES)
            .map_err(failed("KVM_CAP_DIRTY_LOG_RING"))?;
    }
    for zone in &spec.coalesced {
        let start = if zone.pio { IoEventAddress::Pio(zone.start) } else { IoEventAddress::Mmio(zone.start) };
        vm.register_coalesced_mmio(start, zone.size).map_err(failed("KVM_REGISTER_COALESCED_MMIO"))?;
    }
    Ok(vm)
}

/// Coalesced zones and ioeventfds at addresses and ports that no case uses.
pub fn bystanders(vm: &VmFd) -> Result<(), TargetError> {
    let event = EventFd::new(0).map_err(|error| TargetError::Harness(format!("an eventfd: {error}")))?;
    for (zone, bell) in [
        (IoEventAddress::Mmio(BYSTANDERS_GPA), IoEventAddress::Mmio(BYSTANDERS_GPA + 0x1000)),
        (IoEventAddress::Pio(BYSTANDERS_PORT), IoEventAddress::Pio(BYSTANDERS_PORT + 0x10)),
    ] {
        vm.register_coalesced_mmio(zone, 8).map_err(failed("KVM_REGISTER_COALESCED_MMIO"))?;
        // KVM holds its own reference to the eventfd.
        vm.register_ioevent(&event, &bell, NoDatamatch).map_err(failed("KVM_IOEVENTFD"))?;
    }
    Ok(())
}

/// Far from RAM, memslots and the APIC, and a port of no device.
const BYSTANDERS_GPA: u64 = 0xfd00_0000;
const BYSTANDERS_PORT: u64 = 0xc0c0;

/// The MSR filter, if there is one.
pub fn filter_msrs(vm: &VmFd, filter: Option<&MsrFilter>) -> Result<(), TargetError> {
    filter.map_or(Ok(()), |filter| msr_filter::set(vm, filter).map_err(failed("KVM_X86_SET_MSR_FILTER")))
}

/// Below the BIOS, where QEMU puts them too: away from RAM and from what cases use.
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// All vCPUs of a VM, in their reset state.
pub fn new_vcpus(host: &Host, spec: &MachineSpec, vm: &VmFd) -> Result<Vec<Arc<Vcpu>>, TargetError> {
    let mut vcpus = Vec::with_capacity(spec.vcpus as usize);
    for index in 0..spec.vcpus {
        let fd = vm.create_vcpu(index.into()).map_err(failed("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&cpuid(host, spec, index)?).map_err(failed("KVM_SET_CPUID2"))?;
        vcpus.push(Arc::new(Vcpu::new(index as usize, fd, vm.run_size())));
    }
    Ok(vcpus)
}

/// What the guest sees of the CPU: all that KVM supports, less what the case hides.
fn cpuid(host: &Host, spec: &MachineSpec, index: u32) -> Result<CpuId, TargetError> {
    let mut cpuid = host.cpuid.clone();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            // Initial APIC id, in bits 31:24 (SDM vol. 2A, "CPUID").
            1 => {
                entry.ebx = entry.ebx & 0x00ff_ffff | index << 24;
                // KVM_GET_SUPPORTED_CPUID never has it: it is for the VMM to offer it with the local APIC in the
                // kernel (KVM API 4.46).
                if spec.irqchip != Irqchip::None && host.kvm.check_extension(Cap::TscDeadlineTimer) {
                    entry.ecx |= TSC_DEADLINE_TIMER;
                }
            }
            0xb | 0x1f => entry.edx = index,
            _ => {}
        }
    }
    for name in &spec.cpuid_hide {
        let unknown = || TargetError::Harness(format!("CPUID feature `{name}` is not known"));
        let feature = crate::host::cpuid::feature(name).ok_or_else(unknown)?;
        feature.hide(cpuid.as_mut_slice());
    }
    Ok(cpuid)
}

/// CPUID.1:ECX: the local APIC's timer takes a deadline.
const TSC_DEADLINE_TIMER: u32 = 1 << 24;

/// Writes to RAM what a payload wants there.
pub fn load(memory: &Memory, gpa: u64, bytes: &[u8]) -> Result<(), TargetError> {
    if memory.write(gpa, bytes) {
        Ok(())
    } else {
        Err(TargetError::Harness(format!(
            "the payload wants {} bytes at {gpa:#x}, which is no RAM",
            bytes.len()
        )))
    }
}

/// KVM's forced-emulation prefix, wherever the payload has a place for it.
pub fn force_emulation(memory: &Memory, places: &[u64]) -> Result<(), TargetError> {
    /// `__KVM_EMULATE_PREFIX` (`asm/emulate_prefix.h`): UD2, "kvm".
    const PREFIX: [u8; EMULABLE_NOP.len()] = *b"\x0f\x0bkvm";
    places.iter().try_for_each(|place| load(memory, *place, &PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_takes_the_place_of_its_nop_and_no_more() {
        let memory = Memory::new(0x2000, false, &[]).unwrap();
        load(&memory, 0x1ffb, &EMULABLE_NOP).unwrap();
        load(&memory, 0xfff, &[0xcc; 7]).unwrap();
        force_emulation(&memory, &[0x1000, 0x1ffb]).unwrap();
        let read = |gpa, into: &mut [u8]| assert!(memory.read(gpa, into));
        let (mut middle, mut end) = ([0; 7], [0; 5]);
        read(0xfff, &mut middle);
        read(0x1ffb, &mut end);
        // UD2 (0F 0B), "kvm" in ASCII, as arch/x86/include/asm/emulate_prefix.h has it.
        assert_eq!(middle, [0xcc, 0x0f, 0x0b, 0x6b, 0x76, 0x6d, 0xcc]);
        assert_eq!(end, [0x0f, 0x0b, 0x6b, 0x76, 0x6d]);
        assert!(force_emulation(&memory, &[0x1ffc]).is_err());
    }
}
