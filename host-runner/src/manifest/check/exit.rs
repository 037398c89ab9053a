//! Whether an exit can be as a step says, and whether what the host gives back fits it.

use super::step::{MAX_TIMES, times_in_bounds};
use crate::case::{DataExpect, ExitStep, Expect, Expr, Irqchip, MachineSpec};
use crate::exit::{Direction, ExitPattern};
use crate::manifest::mistake::Notes;
use crate::manifest::table::Spans;

/// Most threads that run one vCPU at once.
pub(in crate::manifest) const MAX_THREADS: u32 = 16;

/// What an exit, as far as the step says it, lets the host give back.
enum Owes {
    /// Data for the guest: bytes an item, items; `None` where the step does not say.
    Data(Option<usize>, usize),
    /// Nothing.
    Nothing,
    /// The step must say more: this.
    Unsaid(&'static str),
}

/// Judges an exit step.
pub(super) fn check(step: &ExitStep, spans: &Spans, machine: Option<&MachineSpec>, notes: &mut Notes) {
    times_in_bounds("times", u64::from(step.times), MAX_TIMES, spans, notes);
    times_in_bounds("threads", u64::from(step.threads), MAX_THREADS, spans, notes);
    for (field, expect) in step.pattern.named_expects() {
        if *expect == Expect::Unchanged {
            notes
                .add(spans.value(&field), format!("`{field}` has nothing that it could be unchanged from"))
                .help("only registers and banks can be \"unchanged\"");
        }
    }
    for (index, entry) in step.memory.iter().enumerate() {
        let path = |key: &str| format!("memory[{index}].{key}");
        memory_fits(&path("size"), &path("is"), entry.size, &entry.is, spans, notes);
    }
    sizes(&step.pattern, spans, notes);
    data(&step.pattern, spans, notes);
    reply(step, spans, notes);
    if let Some(machine) = machine {
        irqchip(&step.pattern, machine, spans, notes);
    }
}

fn number(expect: Option<&Expect>) -> Option<u64> {
    match expect {
        Some(Expect::Is(Expr::Number(number))) => Some(*number),
        _ => None,
    }
}

fn sizes(pattern: &ExitPattern, spans: &Spans, notes: &mut Notes) {
    match pattern {
        ExitPattern::Io(io) => {
            if let Some(size) = number(io.size.as_ref()).filter(|size| !matches!(size, 1 | 2 | 4)) {
                notes.add(spans.value("size"), format!("no port access has {size} bytes")).help("1, 2 or 4");
            }
            if let Some(port) = number(io.port.as_ref()).filter(|port| *port > 0xffff) {
                notes
                    .add(spans.value("port"), format!("there is no port {port:#x}"))
                    .help("ports are 0 to 0xffff");
            }
            if number(io.count.as_ref()) == Some(0) {
                notes
                    .add(spans.value("count"), "no port access has 0 items")
                    .help("1, or more for string instructions");
            }
        }
        ExitPattern::Mmio(mmio) => {
            if let Some(size) = number(mmio.size.as_ref()).filter(|size| !(1..=8).contains(size)) {
                notes.add(spans.value("size"), format!("no MMIO exit has {size} bytes")).help("1 to 8");
            }
        }
        _ => {}
    }
}

/// Bytes an item and items of a port access, as far as they are stated. A count that is no constant
/// counts as 0: unknown.
fn io_shape(size: Option<&Expect>, count: Option<&Expect>) -> (Option<usize>, usize) {
    let count = if count.is_none() { Some(1) } else { number(count) };
    let small = |number: u64| usize::try_from(number).ok().filter(|number| *number <= 4096);
    (number(size).and_then(small), count.and_then(small).unwrap_or(0))
}

fn data(pattern: &ExitPattern, spans: &Spans, notes: &mut Notes) {
    let (stated, from_guest, size, count) = match pattern {
        ExitPattern::Io(io) => {
            let (size, count) = io_shape(io.size.as_ref(), io.count.as_ref());
            (io.data.as_ref(), io.direction != Some(Direction::In), size, count)
        }
        ExitPattern::Mmio(mmio) => {
            let (size, count) = io_shape(mmio.size.as_ref(), None);
            (mmio.data.as_ref(), mmio.write != Some(false), size, count)
        }
        _ => return,
    };
    let Some(stated) = stated else { return };
    if !from_guest {
        notes
            .add(spans.key("data"), "`data` is what the guest gives, and here it gives none")
            .help("what the host gives back is `reply`");
    } else if let Some(size) = size.filter(|_| count != 0)
        && stated.bytes(size, count).is_none()
    {
        notes
            .add(spans.value("data"), format!("this can never be the data of {}", bytes(size, count)))
            .help("make it fit `size`");
    }
}

fn bytes(size: usize, count: usize) -> String {
    let plural = if size == 1 { "" } else { "s" };
    if count == 1 { format!("{size} byte{plural}") } else { format!("{count} times {size} byte{plural}") }
}

fn owes(pattern: &ExitPattern) -> Owes {
    match pattern {
        ExitPattern::Io(io) => match io.direction {
            Some(Direction::In) => {
                let (size, count) = io_shape(io.size.as_ref(), io.count.as_ref());
                Owes::Data(size, count)
            }
            Some(Direction::Out) => Owes::Nothing,
            None => Owes::Unsaid("direction = \"in\""),
        },
        ExitPattern::Mmio(mmio) => match mmio.write {
            Some(false) => {
                Owes::Data(number(mmio.size.as_ref()).and_then(|size| usize::try_from(size).ok()), 1)
            }
            Some(true) => Owes::Nothing,
            None => Owes::Unsaid("write = false"),
        },
        ExitPattern::Rdmsr(_) => Owes::Data(Some(8), 1),
        _ => Owes::Nothing,
    }
}

fn reply(step: &ExitStep, spans: &Spans, notes: &mut Notes) {
    if step.refuse && !matches!(step.pattern, ExitPattern::Rdmsr(_) | ExitPattern::Wrmsr(_)) {
        notes
            .add(spans.key("refuse"), format!("exit `{}` cannot be refused", step.pattern.name()))
            .help("only rdmsr and wrmsr can: the guest gets #GP");
    }
    let Some(reply) = &step.reply else { return };
    if step.refuse {
        notes.add(spans.key("reply"), "a refused access gets no reply").help("leave `reply` or `refuse` out");
        return;
    }
    match owes(&step.pattern) {
        Owes::Nothing => {
            let name = step.pattern.name();
            notes
                .add(spans.key("reply"), format!("this exit `{name}` owes the guest nothing"))
                .help("only io with direction = \"in\", mmio with write = false, and rdmsr take a reply");
        }
        Owes::Unsaid(what) => {
            notes
                .add(spans.key("reply"), "a reply needs an exit that surely owes the guest data")
                .help(format!("say {what}"));
        }
        Owes::Data(Some(size), count) if count != 0 && size <= 8 && reply.bytes(size, count).is_none() => {
            notes
                .add(
                    spans.value("reply"),
                    format!("the guest is owed {}, and this does not fit", bytes(size, count)),
                )
                .help("make `reply` fit the access");
        }
        Owes::Data(..) => {}
    }
}

/// Judges the size of a number in memory, and whether the number fits.
pub(super) fn memory_fits(
    size_path: &str,
    data_path: &str,
    size: u8,
    data: &DataExpect,
    spans: &Spans,
    notes: &mut Notes,
) {
    match data {
        DataExpect::Number(number) if !(1..=8).contains(&size) => {
            let _ = number;
            notes.add(spans.value(size_path), format!("no number has {size} bytes")).help("1 to 8");
        }
        DataExpect::Number(_) if data.bytes(usize::from(size), 1).is_none() => {
            notes
                .add(spans.value(data_path), format!("{data} does not fit {}", bytes(usize::from(size), 1)))
                .help("make `size` larger");
        }
        DataExpect::Bytes(_) if size != 1 => {
            notes
                .add(spans.value(size_path), "a text or a list of bytes has its own size")
                .help("leave `size` out");
        }
        _ => {}
    }
}

fn irqchip(pattern: &ExitPattern, machine: &MachineSpec, spans: &Spans, notes: &mut Notes) {
    let kernel = machine.irqchip != Irqchip::None;
    let never = match pattern {
        ExitPattern::Hlt(_) if kernel => (
            "with a local APIC in the kernel HLT never exits: KVM waits for the interrupt itself",
            "leave machine.irqchip out",
        ),
        ExitPattern::SetTpr(_) if kernel => {
            ("with a local APIC in the kernel no write to CR8 exits", "leave machine.irqchip out")
        }
        ExitPattern::IoapicEoi(_) if machine.irqchip != Irqchip::Split => (
            "only a split irqchip exits for an IOAPIC's EOI",
            "give the case machine = { irqchip = \"split\" }",
        ),
        _ => return,
    };
    notes.add(spans.value("exit"), never.0).help(never.1);
}
