//! Whether one step, alone, can happen on the machine of its case.

use crate::bank::{Bank, BankState, RunFields};
use crate::case::{
    Access, Action, BankExpect, BankSet, Churn, Expect, Expr, GuestStep, Irqchip, MachineSpec, SlotSpec, What,
};
use crate::manifest::check::exit;
use crate::manifest::check::machine::{PAGE, VCPUS, in_ram, msr_ranges, range};
use crate::manifest::header::Draft;
use crate::manifest::mistake::Notes;
use crate::manifest::step::Written;
use crate::manifest::table::Spans;
use crate::manifest::wording::{nearest, suggestion};
use crate::smram::Layout;

/// Most repetitions of anything in a case.
pub(in crate::manifest) const MAX_TIMES: u32 = 10_000_000;
/// Hardware breakpoints of a vCPU.
const BREAKPOINTS: usize = 4;

/// The errnos with which KVM refuses a `KVM_SET_*`; what `errno` may name.
pub const ERRNOS: &[&str] = &[
    "E2BIG",
    "EAGAIN",
    "EBUSY",
    "EEXIST",
    "EFAULT",
    "EINTR",
    "EINVAL",
    "EIO",
    "ENODEV",
    "ENOENT",
    "ENOMEM",
    "ENOSPC",
    "ENOSYS",
    "ENOTTY",
    "ENXIO",
    "EOPNOTSUPP",
    "EPERM",
];

/// Judges a step and those inside it.
pub(super) fn check(written: &Written, draft: &Draft, notes: &mut Notes) {
    let spans = &written.spans;
    let machine = draft.sound.machine.then_some(&draft.case.machine);
    if let (Some(machine), Some(cpu)) = (machine, cpu(&written.step.what))
        && cpu >= machine.vcpus as usize
        && VCPUS.contains(&machine.vcpus)
    {
        let has = if machine.vcpus == 1 {
            "only vCPU 0".to_owned()
        } else {
            format!("vCPUs 0 to {}", machine.vcpus.saturating_sub(1))
        };
        notes.add(spans.value("cpu"), format!("there is no vCPU {cpu}: the machine has {has}")).help(
            format!("give the case machine = {{ vcpus = {} }}, or name another vCPU", cpu.saturating_add(1)),
        );
    }
    match &written.step.what {
        What::Exit(step) => exit::check(step, spans, machine, notes),
        What::Guest(GuestStep::Value { name, is, .. }) => {
            if name.is_empty() || name.len() > exitspec_protocol::MAX_TEXT {
                notes
                    .add(spans.value("guest"), "no guest reports a value of such a name")
                    .help(format!("1 to {} bytes", exitspec_protocol::MAX_TEXT));
            }
            if *is == Expect::Unchanged {
                notes
                    .add(spans.value("is"), "a reported value has nothing that it could be unchanged from")
                    .help("state the number");
            }
        }
        What::Guest(GuestStep::Done(_)) => {}
        What::Set(set) => {
            bank(set.bank, "set", machine, spans, notes);
            numbers_to_set(set, spans, notes);
        }
        What::Check(check) => {
            bank(check.bank, "check", machine, spans, notes);
            numbers_to_see(check, spans, notes);
        }
        What::Keep(_, kept) => bank(*kept, "keep", machine, spans, notes),
        What::Do(act) => {
            action(act, machine, spans, notes);
            apic_page(act, draft, spans, notes);
        }
        What::Repeat(times, _) => times_in_bounds("repeat", u64::from(*times), MAX_TIMES, spans, notes),
    }
    written.inner.iter().for_each(|inner| check(inner, draft, notes));
}

/// The vCPU that a step names.
pub(super) fn cpu(what: &What) -> Option<usize> {
    Some(match what {
        What::Exit(step) => step.cpu,
        What::Guest(GuestStep::Done(cpu) | GuestStep::Value { cpu, .. }) | What::Keep(cpu, _) => *cpu,
        What::Set(set) => set.cpu,
        What::Check(check) => check.cpu,
        What::Do(action) => return cpu_of_action(action),
        What::Repeat(..) => return None,
    })
}

fn cpu_of_action(action: &Action) -> Option<usize> {
    match action {
        Action::Restart { cpu, .. }
        | Action::Interrupt { cpu, .. }
        | Action::Nmi { cpu, .. }
        | Action::Smi { cpu }
        | Action::Signal { cpu, .. }
        | Action::ImmediateExit { cpu }
        | Action::GuestDebug { cpu, .. }
        | Action::CoalescedRing { cpu, .. }
        | Action::NewThread { cpu }
        | Action::Background { cpu } => Some(*cpu),
        Action::Msi { .. }
        | Action::IrqLine { .. }
        | Action::WriteMemory { .. }
        | Action::SlotCreate { .. }
        | Action::SlotDelete { .. }
        | Action::SlotMove { .. }
        | Action::SlotChange { .. }
        | Action::MsrFilter { .. }
        | Action::DirtyPages { .. }
        | Action::SaveRestore
        | Action::Disturb { .. }
        | Action::Quiet => None,
    }
}

/// Judges `times`, `threads`, `repeat`.
pub(super) fn times_in_bounds(key: &str, times: u64, most: u32, spans: &Spans, notes: &mut Notes) {
    if times == 0 {
        notes
            .add(spans.value(key), format!("`{key} = 0` never plays"))
            .help("remove the step, or say 1 or more");
    } else if times > u64::from(most) {
        notes
            .add(spans.value(key), format!("{times} is more than {most}"))
            .help(format!("`{key}` is 1 to {most}"));
    }
}

fn bank(bank: Bank, key: &str, machine: Option<&MachineSpec>, spans: &Spans, notes: &mut Notes) {
    if bank == Bank::Smram && machine.is_some_and(|machine| !machine.smm) {
        notes
            .add(spans.value(key), "this machine never enters SMM, so it has no state save area")
            .help("give the case machine = { smm = true }");
    }
    if bank == Bank::Lapic && machine.is_some_and(|machine| machine.irqchip == Irqchip::None) {
        notes
            .add(spans.value(key), "without an in-kernel irqchip there is no local APIC to ask KVM for")
            .help("give the case machine = { irqchip = \"kernel\" } or \"split\"");
    }
}

fn numbers_to_set(set: &BankSet, spans: &Spans, notes: &mut Notes) {
    for (name, expr) in &set.values {
        if let Expr::Number(number) = expr {
            fits(set.bank, name, *number, spans, notes);
        }
        let told = ["ready-for-interrupt-injection", "if-flag", "flags"];
        if set.bank == Bank::Run && told.contains(&name.as_str()) {
            notes
                .add(spans.key(name), format!("`{name}` is what KVM tells the host; setting it does nothing"))
                .help("use `check`");
        }
    }
    known_errno(set.errno.as_ref(), spans, notes);
    if set.at_run && set.errno.is_none() {
        notes
            .add(spans.key("at-run"), "`at-run` is about a refusal, and this `set` expects none")
            .help("say with which errno KVM must refuse: errno = \"EINVAL\"");
    }
}

fn known_errno(errno: Option<&String>, spans: &Spans, notes: &mut Notes) {
    if let Some(errno) = errno.filter(|errno| !ERRNOS.contains(&errno.as_str())) {
        notes
            .add(spans.value("errno"), format!("KVM refuses nothing with `{errno}`"))
            .help(suggestion(errno, ERRNOS));
    }
}

fn numbers_to_see(check: &BankExpect, spans: &Spans, notes: &mut Notes) {
    for (name, expect) in &check.values {
        if let Expect::Is(Expr::Number(number)) | Expect::Masked { is: number, .. } = expect {
            fits(check.bank, name, *number, spans, notes);
        }
    }
}

/// A number that is wider than its field can be neither set nor seen.
fn fits(bank: Bank, name: &str, number: u64, spans: &Spans, notes: &mut Notes) {
    let mut blank = match bank {
        Bank::Regs | Bank::Msrs | Bank::Nested => return,
        Bank::Smram => {
            // Only the layout that is in use decides, but nothing fits that fits in neither.
            let sizes =
                [Layout::Long, Layout::Legacy].map(|layout| layout.field(name).map(|field| field.size));
            let widest = sizes.into_iter().flatten().max().unwrap_or(8);
            if widest < 8 && number >> (8 * widest) != 0 {
                let bits = 8 * widest;
                notes
                    .add(
                        spans.value(name),
                        format!("{number:#x} does not fit `{name}`, which has {bits} bits"),
                    )
                    .help("state a number that fits");
            }
            return;
        }
        Bank::Sregs => BankState::Sregs(kvm_bindings::kvm_sregs::default()),
        Bank::DebugRegs => BankState::DebugRegs(kvm_bindings::kvm_debugregs::default()),
        Bank::Events => BankState::Events(kvm_bindings::kvm_vcpu_events::default()),
        Bank::MpState => BankState::MpState(kvm_bindings::kvm_mp_state::default()),
        Bank::Run => BankState::Run(RunFields::default()),
        Bank::Lapic => {
            if number > u64::from(u32::MAX) {
                notes
                    .add(spans.value(name), format!("{number:#x} does not fit `{name}`, which has 32 bits"))
                    .help("local APIC registers are 32 bits wide");
            }
            return;
        }
    };
    if let Some(Err(error)) = blank.set(name, number) {
        notes.add(spans.value(name), error.to_string()).help("state a number that fits");
    }
}

fn action(action: &Action, machine: Option<&MachineSpec>, spans: &Spans, notes: &mut Notes) {
    if let Some(machine) = machine {
        interrupts(action, machine, spans, notes);
        slots(action, machine, spans, notes);
    }
    match action {
        Action::GuestDebug { breakpoints, .. } => {
            if breakpoints.len() > BREAKPOINTS {
                notes
                    .add(
                        spans.value("breakpoints"),
                        format!("{} breakpoints; a vCPU has four", breakpoints.len()),
                    )
                    .help("DR0 to DR3 hold one each");
            }
            for (index, point) in breakpoints.iter().enumerate() {
                let path = |key: &str| format!("breakpoints[{index}].{key}");
                let size = if point.on == Access::Execute { &[1][..] } else { &[1, 2, 4, 8] };
                if !size.contains(&point.size) {
                    let help = if point.on == Access::Execute {
                        "execution is watched with size 1"
                    } else {
                        "1, 2, 4 or 8 bytes"
                    };
                    notes
                        .add(
                            spans.value(&path("size")),
                            format!("no breakpoint of this kind watches {} bytes", point.size),
                        )
                        .help(help);
                } else if let Expr::Number(at) = point.at
                    && !at.is_multiple_of(u64::from(point.size))
                {
                    notes
                        .add(spans.value(&path("at")), format!("{at:#x} is not aligned to {} bytes", point.size))
                        .help("the CPU ignores the low bits of a breakpoint's address (SDM vol. 3, \"Breakpoint Field Recognition\")");
                }
            }
        }
        Action::WriteMemory { size, data, .. } => {
            exit::memory_fits("size", "data", *size, data, spans, notes);
        }
        Action::CoalescedRing { size, .. } if !matches!(size, 1 | 2 | 4 | 8) => {
            notes.add(spans.value("size"), format!("no access has {size} bytes")).help("1, 2, 4 or 8");
        }
        Action::Disturb { with } if with.is_empty() => {
            notes
                .add(spans.value("with"), "this disturbs nothing")
                .help("\"migrate\", \"pages\", \"kick\", \"slots\" or \"msr-default\"");
        }
        Action::MsrFilter { ranges, errno, .. } => {
            known_errno(errno.as_ref(), spans, notes);
            msr_ranges(ranges, "ranges", spans, notes);
        }
        Action::SlotChange { errno, .. } => known_errno(errno.as_ref(), spans, notes),
        _ => {}
    }
}

fn interrupts(action: &Action, machine: &MachineSpec, spans: &Spans, notes: &mut Notes) {
    let span = spans.value("do");
    match (action, machine.irqchip) {
        (Action::Smi { .. }, _) if !machine.smm => {
            notes
                .add(span, "the machine has no memory in SMM, from which the handler would run")
                .help("give the case machine = { smm = true }");
        }
        (Action::Interrupt { .. }, Irqchip::Kernel) => {
            notes
                .add(span, "KVM_INTERRUPT is refused (ENXIO) with the irqchip in the kernel")
                .help("use do = \"msi\" or \"irq-line\", or leave machine.irqchip out");
        }
        (Action::Msi { .. } | Action::IrqLine { .. }, Irqchip::None) => {
            let ioctl = if matches!(action, Action::Msi { .. }) { "KVM_SIGNAL_MSI" } else { "KVM_IRQ_LINE" };
            notes
                .add(span, format!("{ioctl} needs an in-kernel irqchip"))
                .help("give the case machine = { irqchip = \"kernel\" }, or use do = \"interrupt\"");
        }
        (Action::Disturb { with }, Irqchip::None) if with.contains(&Churn::ApicPage) => {
            notes
                .add(spans.value("with"), "without a local APIC in the kernel there is no APIC-access page")
                .help("give the case machine = { irqchip = \"kernel\" } or \"split\"");
        }
        _ => {}
    }
}

/// Only kvm_intel's flexpriority makes an APIC-access page that could move.
fn apic_page(action: &Action, draft: &Draft, spans: &Spans, notes: &mut Notes) {
    let wants = matches!(action, Action::Disturb { with } if with.contains(&Churn::ApicPage));
    let setting = draft.case.requires.params.get("kvm_intel.flexpriority");
    if wants && setting.is_none_or(|value| value != "Y") {
        notes
            .add(spans.value("with"), "not every host has an APIC-access page to move")
            .help("give the case requires = { params = { \"kvm_intel.flexpriority\" = \"Y\" } }");
    }
}

fn slots(action: &Action, machine: &MachineSpec, spans: &Spans, notes: &mut Notes) {
    let (Action::SlotCreate { slot: name, .. }
    | Action::SlotChange { slot: name, .. }
    | Action::SlotDelete { slot: name, .. }
    | Action::SlotMove { slot: name, .. }
    | Action::DirtyPages { slot: name, .. }) = action
    else {
        return;
    };
    if name == "ram" && matches!(action, Action::SlotDelete { .. } | Action::SlotCreate { .. }) {
        return;
    }
    let Some(slot) = machine.slots.iter().find(|slot| slot.name == *name) else {
        let known = machine.slots.iter().map(|slot| slot.name.as_str());
        let help = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "declare it: machine = {{ slots = [{{ name = \"{name}\", gpa = ..., pages = ... }}] }}"
            ),
        };
        notes.add(spans.value("slot"), format!("the machine has no memslot `{name}`")).help(help);
        return;
    };
    match action {
        Action::SlotMove { gpa, .. } => moved(*gpa, slot, machine, spans, notes),
        Action::SlotChange { pages: Some(pages), .. } if *pages > slot.pages => {
            notes
                .add(spans.value("pages"), format!("there is no memory for {pages} pages"))
                .help(format!("memslot `{name}` was declared with {}", slot.pages));
        }
        Action::DirtyPages { pages, .. } => dirty(pages, slot, spans, notes),
        _ => {}
    }
}

fn moved(gpa: u64, slot: &SlotSpec, machine: &MachineSpec, spans: &Spans, notes: &mut Notes) {
    if !gpa.is_multiple_of(PAGE) {
        notes
            .add(spans.value("gpa"), format!("{gpa:#x} is not page-aligned"))
            .help(format!("a memslot starts at a multiple of 4 KiB: {:#x}", gpa - gpa % PAGE));
    } else if range(gpa, slot).is_none_or(|range| in_ram(machine, &range)) {
        notes
            .add(spans.value("gpa"), "there the memslot would overlap RAM")
            .help("KVM refuses that with EEXIST; move it above RAM");
    }
}

fn dirty(pages: &[u32], slot: &SlotSpec, spans: &Spans, notes: &mut Notes) {
    if !slot.log_dirty {
        notes
            .add(spans.value("slot"), format!("memslot `{}` does not log dirty pages", slot.name))
            .help("give it log-dirty = true");
    }
    if slot.read_only && !pages.is_empty() {
        notes
            .add(
                spans.value("pages"),
                format!("memslot `{}` is read-only: the guest never dirties it", slot.name),
            )
            .help("expect no pages: pages = []");
    }
    for (index, page) in pages.iter().enumerate().filter(|(_, page)| **page >= slot.pages) {
        notes
            .add(
                spans.value(&format!("pages[{index}]")),
                format!("memslot `{}` has no page {page}", slot.name),
            )
            .help(format!("its pages are 0 to {}", slot.pages.saturating_sub(1)));
    }
}
