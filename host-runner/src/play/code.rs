//! The instructions around RIP, for a failure's evidence.

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use super::Target;
use crate::bank::Bank;
use crate::case::Places;
use crate::outcome::CodeLine;

/// How many instructions are shown from RIP on.
const AHEAD: usize = 5;
/// How many before it, where a label is near enough to decode from.
const BEHIND: usize = 3;
/// How far back a label is looked for, in bytes.
const REACH: u64 = 96;

/// EFER.LMA.
const LMA: u64 = 1 << 10;

/// Disassembles around a vCPU's RIP. Empty if the code cannot be read: paging that is not an identity
/// map, or no memory there.
pub fn around(target: &mut impl Target, cpu: usize, places: &dyn Places) -> Vec<CodeLine> {
    let sregs = target.bank(cpu, Bank::Sregs, &["cs.base", "cs.l", "cs.db", "efer", "cr0"]);
    let rip = target.bank(cpu, Bank::Regs, &["rip"]);
    let (Ok(sregs), Ok(rip)) = (sregs, rip) else { return Vec::new() };
    let [base, long, default32, efer, cr0] = sregs[..] else { return Vec::new() };
    let [rip] = rip[..] else { return Vec::new() };
    let bitness = match (efer & LMA != 0 && long == 1, default32 == 1 && cr0 & 1 == 1) {
        (true, _) => 64,
        (false, true) => 32,
        (false, false) => 16,
    };
    // In 64-bit mode the base of CS is ignored (SDM vol. 3, 3.2.4).
    let rip = if bitness == 64 { rip } else { base.wrapping_add(rip) };
    let start = places
        .nearest(rip)
        .map(|(_, offset)| offset)
        .filter(|offset| *offset <= REACH)
        .map_or(rip, |o| rip - o);
    let mut code = vec![0; (rip - start) as usize + AHEAD * 15];
    while !target.read_memory(start, &mut code) {
        if code.len() < 2 {
            return Vec::new();
        }
        code.truncate(code.len() / 2);
    }
    let mut formatter = IntelFormatter::new();
    let mut lines: Vec<CodeLine> = Vec::new();
    for instruction in &mut Decoder::with_ip(bitness, &code, start, DecoderOptions::NONE) {
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        let address = instruction.ip();
        let symbol = places.nearest(address).map_or_else(String::new, |(name, offset)| match offset {
            0 => name,
            offset => format!("{name}+{offset:#x}"),
        });
        lines.push(CodeLine { address, symbol, text, here: address == rip });
        let ahead = lines.iter().filter(|line| line.address >= rip).count();
        if ahead == AHEAD {
            break;
        }
    }
    let behind = lines.iter().filter(|line| line.address < rip).count();
    lines.drain(..behind.saturating_sub(BEHIND));
    lines
}
