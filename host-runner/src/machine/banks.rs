//! Banks <-> ioctls.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::KvmNestedStateBuffer;

use super::vcpu::Vcpu;
use crate::bank::{Bank, BankState, lapic_register, msr_index};
use crate::nested;
use crate::play::TargetError;

/// Reads numbers of a bank.
pub fn read(vcpu: &Vcpu, bank: Bank, names: &[&str]) -> Result<Vec<u64>, TargetError> {
    match bank {
        Bank::Lapic => {
            let page = vcpu.fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?;
            let register = |name: &&str| {
                let at = lapic_register(name).ok_or_else(|| no_name(bank, name))?;
                let mut word = [0; 4];
                for (byte, from) in word.iter_mut().zip(page.regs.iter().skip(at)) {
                    *byte = from.cast_unsigned();
                }
                Ok(u64::from(u32::from_le_bytes(word)))
            };
            names.iter().map(register).collect()
        }
        Bank::Msrs => {
            let mut msrs = msr_list(names.iter().map(|name| (*name, 0)))?;
            let count = vcpu.fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
            all(count, names, "KVM_GET_MSRS")?;
            Ok(msrs.as_slice().iter().map(|msr| msr.data).collect())
        }
        Bank::Nested => {
            let state = nested_state(vcpu)?;
            names.iter().map(|name| nested::get(&state, name).ok_or_else(|| no_name(bank, name))).collect()
        }
        _ => {
            let state = state(vcpu, bank)?;
            names.iter().map(|name| state.get(name).ok_or_else(|| no_name(bank, name))).collect()
        }
    }
}

/// Changes numbers of a bank; `Some(errno)` if KVM refused. An empty list writes the bank back as it is.
pub fn write(vcpu: &Vcpu, bank: Bank, values: &[(&str, u64)]) -> Result<Option<i32>, TargetError> {
    let written = match bank {
        Bank::Lapic => {
            let mut page = vcpu.fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?;
            for (name, value) in values {
                let at = lapic_register(name).ok_or_else(|| no_name(bank, name))?;
                let word = u32::try_from(*value)
                    .map_err(|_| TargetError::Harness(format!("`{name}` of the local APIC has 32 bits")))?;
                for (to, byte) in page.regs.iter_mut().skip(at).zip(word.to_le_bytes()) {
                    *to = byte.cast_signed();
                }
            }
            vcpu.fd.set_lapic(&page)
        }
        Bank::Msrs if values.is_empty() => {
            return Err(TargetError::Harness("`keep` has no list of MSRs: set each to what it is".into()));
        }
        Bank::Msrs => {
            let msrs = msr_list(values.iter().copied())?;
            // KVM reports how many it took; the first that it did not is refused as by EINVAL.
            return match vcpu.fd.set_msrs(&msrs) {
                Ok(count) if count == values.len() => Ok(None),
                Ok(_) => Ok(Some(nix::libc::EINVAL)),
                Err(error) => Ok(Some(error.errno())),
            };
        }
        Bank::Nested => {
            let mut state = nested_state(vcpu)?;
            for (name, value) in values {
                nested::set(&mut state, name, *value).ok_or_else(|| no_name(bank, name))?;
            }
            vcpu.fd.set_nested_state(&state)
        }
        _ => {
            let mut state = state(vcpu, bank)?;
            for (name, value) in values {
                let set = state.set(name, *value).ok_or_else(|| no_name(bank, name))?;
                set.map_err(|error| TargetError::Harness(error.to_string()))?;
            }
            match &state {
                BankState::Regs(regs) => vcpu.fd.set_regs(regs),
                BankState::Sregs(sregs) => vcpu.fd.set_sregs(sregs),
                BankState::DebugRegs(regs) => vcpu.fd.set_debug_regs(regs),
                BankState::Events(events) => vcpu.fd.set_vcpu_events(events),
                BankState::MpState(state) => vcpu.fd.set_mp_state(*state),
                BankState::Run(fields) => {
                    vcpu.set_run_fields(fields);
                    Ok(())
                }
            }
        }
    };
    Ok(written.err().map(|error: kvm_ioctls::Error| error.errno()))
}

fn state(vcpu: &Vcpu, bank: Bank) -> Result<BankState, TargetError> {
    Ok(match bank {
        Bank::Regs => BankState::Regs(vcpu.fd.get_regs().map_err(failed("KVM_GET_REGS"))?),
        Bank::Sregs => BankState::Sregs(vcpu.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?),
        Bank::DebugRegs => {
            BankState::DebugRegs(vcpu.fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?)
        }
        Bank::Events => BankState::Events(vcpu.fd.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))?),
        Bank::MpState => BankState::MpState(vcpu.fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?),
        Bank::Run => BankState::Run(vcpu.run_fields()),
        Bank::Lapic | Bank::Msrs | Bank::Nested | Bank::Smram => {
            return Err(TargetError::Harness(format!("bank {} has no one state", bank.name())));
        }
    })
}

/// KVM_GET_NESTED_STATE.
pub fn nested_state(vcpu: &Vcpu) -> Result<KvmNestedStateBuffer, TargetError> {
    let mut state = KvmNestedStateBuffer::empty();
    vcpu.fd.nested_state(&mut state).map_err(failed("KVM_GET_NESTED_STATE"))?;
    Ok(state)
}

fn msr_list<'a>(values: impl Iterator<Item = (&'a str, u64)>) -> Result<Msrs, TargetError> {
    let entry = |(name, data)| {
        let index = msr_index(name).ok_or_else(|| no_name(Bank::Msrs, name))?;
        Ok(kvm_msr_entry { index, data, ..kvm_msr_entry::default() })
    };
    let entries = values.map(entry).collect::<Result<Vec<_>, TargetError>>()?;
    Msrs::from_entries(&entries).map_err(|_| TargetError::Harness("too many MSRs in one step".into()))
}

fn all(count: usize, names: &[&str], ioctl: &str) -> Result<(), TargetError> {
    match names.get(count) {
        None => Ok(()),
        Some(name) => {
            Err(TargetError::Ioctl { what: ioctl.into(), error: format!("KVM knows no MSR `{name}`") })
        }
    }
}

pub(super) fn no_name(bank: Bank, name: &str) -> TargetError {
    TargetError::Harness(format!("bank {} has no `{name}`", bank.name()))
}

/// Turns an ioctl's error into one that names the ioctl.
pub fn failed(what: &str) -> impl FnOnce(kvm_ioctls::Error) -> TargetError {
    move |error| TargetError::Ioctl { what: what.into(), error: error.to_string() }
}
