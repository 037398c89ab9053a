//! The bank `smram`: the SMM state save area of a vCPU, found by its SMBASE and read in guest memory.

use super::banks::{self, no_name};
use super::memory::Memory;
use super::vcpu::Vcpu;
use crate::bank::Bank;
use crate::play::TargetError;
use crate::smram::{Field, Layout, REVISION};

/// Reads numbers of the area.
pub fn read(vcpu: &Vcpu, memory: &Memory, names: &[&str]) -> Result<Vec<u64>, TargetError> {
    let (base, layout) = find(vcpu, memory)?;
    names.iter().map(|name| load(memory, base, field(layout, name)?)).collect()
}

/// Changes numbers of the area, cut to their fields' width.
pub fn write(vcpu: &Vcpu, memory: &Memory, values: &[(&str, u64)]) -> Result<(), TargetError> {
    let (base, layout) = find(vcpu, memory)?;
    values.iter().try_for_each(|(name, value)| {
        let Field { offset, size } = field(layout, name)?;
        let bytes = value.to_le_bytes();
        let at = base.checked_add(offset);
        let written = at.is_some_and(|at| memory.write(at, &bytes[..usize::from(size)]));
        written.then_some(()).ok_or_else(|| nowhere(base))
    })
}

/// SMBASE, and the layout of the area there.
fn find(vcpu: &Vcpu, memory: &Memory) -> Result<(u64, Layout), TargetError> {
    let base = banks::read(vcpu, Bank::Msrs, &["smbase"])?.first().copied().unwrap_or_default();
    let revision = load(memory, base, Field { offset: REVISION, size: 4 })?;
    // A case asks once the guest must have entered SMM.
    let layout = Layout::of_revision(revision as u32).ok_or_else(|| TargetError::Deviates {
        expected: format!("an SMM state save area at SMBASE {base:#x}"),
        observed: format!("SMM revision identifier {revision:#x}"),
    })?;
    Ok((base, layout))
}

fn field(layout: Layout, name: &str) -> Result<Field, TargetError> {
    layout.field(name).ok_or_else(|| no_name(Bank::Smram, name))
}

fn load(memory: &Memory, base: u64, field: Field) -> Result<u64, TargetError> {
    let mut bytes = [0; 8];
    let at = base.checked_add(field.offset);
    let read = at.is_some_and(|at| memory.read(at, &mut bytes[..usize::from(field.size)]));
    read.then(|| u64::from_le_bytes(bytes)).ok_or_else(|| nowhere(base))
}

fn nowhere(base: u64) -> TargetError {
    TargetError::Harness(format!("no memslot holds the SMM state save area of SMBASE {base:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_beyond_the_address_space_is_in_no_memslot() {
        let memory = Memory::new(0x2_0000, true, &[]).unwrap();
        let field = Field { offset: REVISION, size: 4 };
        assert_eq!(load(&memory, 0, field).unwrap(), 0);
        for base in [0x2_0000, u64::MAX - REVISION, u64::MAX] {
            assert!(load(&memory, base, field).is_err(), "{base:#x}");
        }
    }
}
