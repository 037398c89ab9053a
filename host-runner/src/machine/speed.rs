//! How fast this host runs guests, as a factor on time budgets.
//!
//! Budgets in manifests are meant for a software backend on an idle machine, the slowest that is usual.
//! A slower host (an emulator, a machine under load) gets more; a faster one never less.

use std::time::{Duration, Instant};

use super::build::{new_vcpus, new_vm};
use super::limit::Limit;
use super::memory::Memory;
use super::{Host, start};
use crate::case::{MachineSpec, Start};
use crate::exit::Exit;
use crate::play::TargetError;

/// What the probe takes at reference speed: a VM, 2,000 instructions, 20 exits.
const REFERENCE: Duration = Duration::from_millis(15);
/// No host is waited for longer than this factor.
const MOST: f64 = 50.0;

/// Where the probe's code lies.
const CODE: u64 = 0x1000;
/// `mov cx, 1000; dec cx; jnz -3`.
const LOOP: &[u8] = &[0xb9, 0xe8, 0x03, 0x49, 0x75, 0xfd];
/// `out 0x80, al`.
const EXIT: &[u8] = &[0xe6, 0x80];
/// `hlt`.
const END: &[u8] = &[0xf4];

/// The factor on time budgets, 1 or more: the better of two probes.
pub fn time_scale(host: &Host) -> Result<f64, TargetError> {
    let best = probe(host)?.min(probe(host)?);
    Ok((best.as_secs_f64() / REFERENCE.as_secs_f64()).clamp(1.0, MOST))
}

fn probe(host: &Host) -> Result<Duration, TargetError> {
    let begun = Instant::now();
    let spec = MachineSpec { start: Start::Real, ..MachineSpec::default() };
    let memory = Memory::new(0x1_0000, false, &[])?;
    let code = [LOOP, &EXIT.repeat(20), END].concat();
    if !memory.write(CODE, &code) {
        return Err(TargetError::Harness("the speed probe does not fit its memory".into()));
    }
    let vm = new_vm(host, &spec)?;
    memory.register(&vm)?;
    let vcpus = new_vcpus(host, &spec, &vm)?;
    let [vcpu] = &vcpus[..] else { return Err(TargetError::Harness("the speed probe has one vCPU".into())) };
    let mut sregs = vcpu.fd.get_sregs().map_err(super::failed("KVM_GET_SREGS"))?;
    let regs = start::real(CODE, &mut sregs);
    vcpu.fd.set_sregs(&sregs).map_err(super::failed("KVM_SET_SREGS"))?;
    vcpu.fd.set_regs(&regs).map_err(super::failed("KVM_SET_REGS"))?;
    let mut limit = Limit::new(REFERENCE.mul_f64(MOST))?;
    loop {
        match vcpu.run(&mut limit)? {
            Exit::Io { .. } => {}
            Exit::Hlt {} => return Ok(begun.elapsed()),
            exit => return Err(TargetError::Harness(format!("the speed probe got exit {exit}"))),
        }
    }
}
