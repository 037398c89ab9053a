//! `single-step`: KVM_GUESTDBG_SINGLESTEP over the whole guest, with a stop at every instruction boundary, once.
//!
//! The stops are compared with the code: with interrupts off, behind an instruction that can neither jump nor fault nor
//! exit, the next stop is at the one that follows it, and comes before any exit of straight code behind it, unless the host
//! has done something since the guest's last exit. A guest that
//! has reported anything has run instructions, so there was a stop. Anything else is left to the steps, which must see the
//! same trace as ever: behind MOV SS there is no stop, KVM's emulator has its own idea of REP, and the handler of an
//! exception may run without stops up to an exit, as its delivery clears TF.

use exitspec_protocol::REPORT_PORT;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

use super::{Variation, Whose, uses};
use crate::bank::Bank;
use crate::case::Case;
use crate::exit::Exit;
use crate::play::{Perturb, Target, TargetError};

/// A single-stepped guest.
#[derive(Default)]
pub(super) struct SingleStep {
    /// The instruction at which the last stop was, if the next stop can be told from it.
    before: Option<Instruction>,
    /// Whether there was any stop.
    stopped: bool,
    /// The host has acted since the guest's last exit: an event of its making may come at any instruction.
    acted: bool,
}

impl Variation for SingleStep {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        if uses::debugging(case) {
            return Some("the case itself debugs its guest");
        }
        if uses::interruptions(case) || uses::concurrency(case) {
            return Some("the case needs a guest that runs by itself");
        }
        if uses::relocation(case) {
            return Some("a stop would come between the exit and the save");
        }
        if uses::smis(case) {
            return Some("an SMI comes between two stops, and its handler runs without any");
        }
        (case.machine.vcpus > 1).then_some("a vCPU that waits for another would be stepped for ever")
    }

    fn slowness(&self) -> u32 {
        6
    }

    fn begin(&mut self, target: &mut dyn Target) -> Result<(), TargetError> {
        target.perturb(Perturb::SingleStep(true)).map(drop)
    }

    fn host_acts(&mut self) {
        self.before = None;
        self.acted = true;
    }

    fn at_exit(&mut self, cpu: usize, exit: &Exit, target: &mut dyn Target) -> Result<Whose, TargetError> {
        if matches!(exit, Exit::Intr {} | Exit::Again {}) {
            return Ok(Whose::Guest);
        }
        let before = self.before.take();
        let Exit::Debug { pc, .. } = exit else {
            self.acted = false;
            return self.guest_exits(before, exit, cpu, target);
        };
        self.stopped = true;
        if let Some(before) = before.filter(|before| *pc != before.next_ip()) {
            return Err(TargetError::Deviates {
                expected: format!("a single-step stop at {:#x}, behind `{before}`", before.next_ip()),
                observed: format!("one at {pc:#x}"),
            });
        }
        // As debuggers do: TF is gone where an exception or interrupt has been taken.
        target.perturb(Perturb::SingleStep(true))?;
        self.before = if self.acted { None } else { predictable(*pc, cpu, target)? };
        Ok(Whose::Mine)
    }

    fn finish(&mut self, target: &mut dyn Target) -> Result<(), TargetError> {
        target.perturb(Perturb::SingleStep(false)).map(drop)
    }
}

impl SingleStep {
    /// An exit of the guest's, which must not come in place of a stop.
    fn guest_exits(
        &self,
        before: Option<Instruction>,
        exit: &Exit,
        cpu: usize,
        target: &mut dyn Target,
    ) -> Result<Whose, TargetError> {
        let expected = match before {
            Some(before) if of_an_instruction(exit) && has_passed(before.next_ip(), cpu, target)? => {
                format!("a single-step stop at {:#x}, behind `{before}`", before.next_ip())
            }
            None if !self.stopped && matches!(exit, Exit::Io { port: REPORT_PORT, .. }) => {
                "a single-step stop before the guest's first report".to_owned()
            }
            _ => return Ok(Whose::Guest),
        };
        Err(TargetError::Deviates { expected, observed: exit.to_string() })
    }
}

/// Whether an instruction has caused this exit, and so at least one has run since the one before it.
fn of_an_instruction(exit: &Exit) -> bool {
    matches!(
        exit,
        Exit::Io { .. } | Exit::Mmio { .. } | Exit::Hlt {} | Exit::Rdmsr { .. } | Exit::Wrmsr { .. }
    )
}

/// Whether straight code leads from this address to where the vCPU is, so that it has come this way. Elsewhere it may have
/// got by an event that nothing holds back, such as an SMI or INIT that it has sent to itself.
fn has_passed(mut at: u64, cpu: usize, target: &mut dyn Target) -> Result<bool, TargetError> {
    let [rip] = target.bank(cpu, Bank::Regs, &["rip"])?[..] else { return Ok(false) };
    for _ in 0..MOST_PASSED {
        if at == rip {
            return Ok(true);
        }
        let Some(instruction) = decode(at, target) else { return Ok(false) };
        at = instruction.next_ip();
        if !goes_straight_on(&instruction) {
            // The one that exits; RIP may be behind it.
            return Ok(at == rip);
        }
    }
    Ok(false)
}

/// Most instructions that are looked at.
const MOST_PASSED: u32 = 8;

/// The 64-bit instruction at this address if the stop behind it can be told from it.
fn predictable(pc: u64, cpu: usize, target: &mut dyn Target) -> Result<Option<Instruction>, TargetError> {
    let [long, efer] = target.bank(cpu, Bank::Sregs, &["cs.l", "efer"])?[..] else { return Ok(None) };
    let [rflags] = target.bank(cpu, Bank::Regs, &["rflags"])?[..] else { return Ok(None) };
    if long == 0 || efer & EFER_LMA == 0 || rflags & RFLAGS_IF != 0 {
        return Ok(None);
    }
    Ok(decode(pc, target).filter(goes_straight_on))
}

/// The 64-bit instruction at this address. Payloads run where they are in physical memory.
fn decode(at: u64, target: &mut dyn Target) -> Option<Instruction> {
    let mut code = [0; 15];
    let read = target.read_memory(at, &mut code);
    read.then(|| Decoder::with_ip(64, &code, at, DecoderOptions::NONE).decode())
}

/// Whether it neither jumps nor faults nor exits: it moves or computes between general registers.
fn goes_straight_on(instruction: &Instruction) -> bool {
    let general = |operand: u32| match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).is_gpr(),
        OpKind::Memory => false,
        _ => true,
    };
    matches!(
        instruction.mnemonic(),
        Mnemonic::Add
            | Mnemonic::And
            | Mnemonic::Cmp
            | Mnemonic::Dec
            | Mnemonic::Inc
            | Mnemonic::Mov
            | Mnemonic::Neg
            | Mnemonic::Nop
            | Mnemonic::Not
            | Mnemonic::Or
            | Mnemonic::Shl
            | Mnemonic::Shr
            | Mnemonic::Sub
            | Mnemonic::Test
            | Mnemonic::Xor
    ) && (0..instruction.op_count()).all(general)
}

const EFER_LMA: u64 = 1 << 10;
const RFLAGS_IF: u64 = 1 << 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Bytes;
    use crate::exit::Direction;
    use crate::variation::nops::Nops;

    fn decoded(code: &[u8]) -> Instruction {
        Decoder::with_ip(64, code, 0x1000, DecoderOptions::NONE).decode()
    }

    #[test]
    fn only_straight_code_is_predicted() {
        let predicted = |code: &[u8]| goes_straight_on(&decoded(code));
        assert!(predicted(&[0x90]), "NOP");
        assert!(predicted(&[0x48, 0x89, 0xd8]), "MOV RAX, RBX");
        assert!(predicted(&[0x83, 0xc0, 0x01]), "ADD EAX, 1");
        assert!(!predicted(&[0xee]), "OUT");
        assert!(!predicted(&[0xeb, 0x10]), "JMP");
        assert!(!predicted(&[0x8e, 0xd0]), "MOV SS, EAX");
        assert!(!predicted(&[0x0f, 0x20, 0xc0]), "MOV RAX, CR0");
        assert!(!predicted(&[0x8b, 0x03]), "MOV EAX, [RBX]");
        assert!(!predicted(&[0xfb]), "STI");
        assert!(!predicted(&[0x0f, 0x0b]), "UD2");
    }

    fn stop(pc: u64) -> Exit {
        Exit::Debug { exception: 1, pc, dr6: 0x4000, dr7: 0 }
    }

    fn out(port: u16) -> Exit {
        Exit::Io { direction: Direction::Out, size: 4, port, count: 1, data: Bytes::new(&[0; 4]) }
    }

    /// What these exits are found to be; the error is the last's.
    fn judged(exits: &[Exit]) -> Result<Vec<Whose>, String> {
        let mut stepped = SingleStep::default();
        let judge = |exit| stepped.at_exit(0, exit, &mut Nops::default());
        exits.iter().map(judge).collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    #[test]
    fn a_guest_that_reports_has_been_stopped() {
        assert_eq!(judged(&[Exit::Hlt {}]), Ok(vec![Whose::Guest]), "its first instruction, maybe");
        assert_eq!(judged(&[out(0x80)]), Ok(vec![Whose::Guest]));
        let never = judged(&[Exit::Hlt {}, out(REPORT_PORT)]).unwrap_err();
        assert!(never.contains("a single-step stop before the guest's first report"), "{never}");
        let (mine, guest) = (Whose::Mine, Whose::Guest);
        let all = [stop(0x1000), Exit::Shutdown {}, out(REPORT_PORT), out(REPORT_PORT)];
        assert_eq!(judged(&all), Ok(vec![mine, guest, guest, guest]));
    }

    #[test]
    fn a_stop_that_is_left_out_is_missed() {
        assert!(judged(&[stop(0x1000), stop(0x1001), stop(0x1002)]).is_ok());
        let wrong = judged(&[stop(0x1000), stop(0x1002)]).unwrap_err();
        assert!(wrong.contains("stop at 0x1001, behind `nop`") && wrong.contains("one at 0x1002"), "{wrong}");
        // The guest's RIP is 0x1003 at its exits: it has passed the NOPs before.
        for exit in [out(0x80), Exit::Hlt {}] {
            let passed = judged(&[stop(0x1000), exit]).unwrap_err();
            assert!(passed.contains("stop at 0x1001, behind `nop`"), "{passed}");
        }
        // It has not come from so far away, nor from behind.
        assert!(judged(&[stop(0x800), out(0x80)]).is_ok());
        assert!(judged(&[stop(0x1800), out(0x80)]).is_ok());
        // A signal is no step, and an exit that no instruction causes says nothing of steps.
        assert!(judged(&[stop(0x1000), Exit::Intr {}, stop(0x1002)]).is_err());
        assert!(judged(&[stop(0x1000), Exit::Intr {}, stop(0x1001)]).is_ok());
        assert!(judged(&[stop(0x1000), Exit::Shutdown {}]).is_ok());
    }

    #[test]
    fn nothing_is_predicted_from_what_the_host_does_to_the_next_exit() {
        let mut stepped = SingleStep::default();
        let mut at = |exit| {
            if let Exit::Again {} = exit {
                stepped.host_acts();
            }
            stepped.at_exit(0, &exit, &mut Nops::default()).is_ok()
        };
        assert!(at(stop(0x1000)));
        // Here it acts: it makes an NMI pending, say, which comes two instructions later.
        assert!(at(Exit::Again {}) && at(stop(0x2000)) && at(stop(0x3000)) && at(Exit::Hlt {}));
        assert!(at(stop(0x1000)) && !at(stop(0x1002)));
    }
}
