//! Whether the VM that a case describes can be built.

use std::ops::Range;

use crate::case::{FLICKER_GPA, Irqchip, MachineSpec, MsrRange, SlotSpec};
use crate::manifest::header::Draft;
use crate::manifest::mistake::Notes;
use crate::manifest::table::Spans;

pub(super) const PAGE: u64 = 4096;
/// RAM, KiB.
const MEMORY_KIB: std::ops::RangeInclusive<u32> = 4096..=65536;
/// vCPUs of a VM.
pub(super) const VCPUS: std::ops::RangeInclusive<u32> = 1..=4;
/// Memslots beside RAM.
const MAX_SLOTS: usize = 32;
/// Pages of a memslot.
const SLOT_PAGES: std::ops::RangeInclusive<u32> = 1..=4096;
/// Ranges of an MSR filter (KVM_MSR_FILTER_MAX_RANGES).
const MAX_MSR_RANGES: usize = 16;
/// MSRs of a range (KVM_MSR_FILTER_MAX_BITMAP_SIZE).
const MAX_MSRS: u32 = 0x600 * 8;
/// Longest wait, milliseconds.
const MAX_RUN_MS: u32 = 600_000;
/// Most reports between two steps.
const MAX_REPORTS: u32 = 1 << 20;

/// Judges `machine`, `budget` and `requires`.
pub(super) fn check(draft: &Draft, notes: &mut Notes) {
    let (case, spans) = (&draft.case, &draft.spans);
    if draft.sound.machine {
        let machine = &case.machine;
        if !MEMORY_KIB.contains(&machine.memory_kib) || !machine.memory_kib.is_multiple_of(4) {
            notes
                .add(
                    spans.value("machine.memory-kib"),
                    format!("{} KiB of RAM cannot be had", machine.memory_kib),
                )
                .help("4096 to 65536, a multiple of 4");
        }
        if !VCPUS.contains(&machine.vcpus) {
            notes
                .add(spans.value("machine.vcpus"), format!("{} vCPUs cannot be had", machine.vcpus))
                .help("1 to 4");
        }
        if machine.pit && machine.irqchip != Irqchip::Kernel {
            notes
                .add(
                    spans.value("machine.pit"),
                    "KVM_CREATE_PIT2 needs the interrupt controllers of KVM_CREATE_IRQCHIP",
                )
                .help("give the case machine = { irqchip = \"kernel\", pit = true }");
        }
        slots(machine, spans, notes);
        zones(machine, spans, notes);
        if let Some(filter) = &machine.msr_filter {
            msr_ranges(&filter.ranges, "machine.msr-filter.ranges", spans, notes);
        }
    }
    if case.budget.run_ms == 0 || case.budget.run_ms > MAX_RUN_MS {
        notes
            .add(spans.value("budget.run-ms"), "nothing can be awaited in that time")
            .help(format!("1 to {MAX_RUN_MS} milliseconds"));
    }
    if case.budget.reports == 0 || case.budget.reports > MAX_REPORTS {
        notes
            .add(spans.value("budget.reports"), "a guest must be allowed some reports, and not without end")
            .help(format!("1 to {MAX_REPORTS}"));
    }
    for name in case.requires.params.keys().filter(|name| !name.contains('.')) {
        notes
            .add(
                spans.key(&format!("requires.params.{name}")),
                format!("`{name}` does not say whose parameter it is"),
            )
            .help(format!("write module and parameter: \"kvm.{name}\""));
    }
    if case.requires.cpus == Some(0) {
        notes.add(spans.value("requires.cpus"), "every host has a CPU").help("leave it out, or require 2");
    }
}

/// The guest-physical addresses of a slot.
pub(super) fn range(gpa: u64, slot: &SlotSpec) -> Option<Range<u64>> {
    Some(gpa..gpa.checked_add(u64::from(slot.pages) * PAGE)?)
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Whether a range is RAM's.
pub(super) fn in_ram(machine: &MachineSpec, range: &Range<u64>) -> bool {
    overlap(range, &(0..u64::from(machine.memory_kib) * 1024))
}

fn slots(machine: &MachineSpec, spans: &Spans, notes: &mut Notes) {
    if machine.slots.len() > MAX_SLOTS {
        notes
            .add(spans.value("machine.slots"), format!("{} memslots", machine.slots.len()))
            .help(format!("at most {MAX_SLOTS}"));
        return;
    }
    for (index, slot) in machine.slots.iter().enumerate() {
        let path = |key: &str| format!("machine.slots[{index}].{key}");
        if slot.name.is_empty() {
            notes
                .add(spans.value(&path("name")), "a memslot needs a name")
                .help("steps speak of it by its name");
        }
        if !SLOT_PAGES.contains(&slot.pages) {
            notes
                .add(spans.value(&path("pages")), format!("a memslot of {} pages cannot be had", slot.pages))
                .help("1 to 4096 pages of 4 KiB");
            continue;
        }
        if !slot.gpa.is_multiple_of(PAGE) {
            let down = slot.gpa - slot.gpa % PAGE;
            notes
                .add(spans.value(&path("gpa")), format!("{:#x} is not page-aligned", slot.gpa))
                .help(format!("a memslot starts at a multiple of 4 KiB: {down:#x}"));
            continue;
        }
        let Some(mine) = range(slot.gpa, slot).filter(|range| range.end <= 1 << 52) else {
            notes
                .add(spans.value(&path("gpa")), "this memslot ends beyond every guest-physical address")
                .help("x86 has at most 52 address bits");
            continue;
        };
        if slot.smram && !machine.smm {
            notes
                .add(spans.value(&path("smram")), "without SMM nobody can reach this memslot")
                .help("give the case machine = { smm = true }");
        }
        if overlap(&mine, &(FLICKER_GPA..FLICKER_GPA + PAGE)) {
            notes
                .add(spans.value(&path("gpa")), format!("`disturb` with slots uses {FLICKER_GPA:#x} itself"))
                .help("put it elsewhere");
        }
        if in_ram(machine, &mine) {
            let end = u64::from(machine.memory_kib) * 1024;
            notes
                .add(
                    spans.value(&path("gpa")),
                    format!("memslot `{}` overlaps RAM, which ends at {end:#x}", slot.name),
                )
                .help(format!("put it at {end:#x} or above"));
        }
        for (before, other) in machine.slots.iter().enumerate().take(index) {
            if other.name == slot.name && !slot.name.is_empty() {
                notes
                    .add(spans.value(&path("name")), format!("there are two memslots `{}`", slot.name))
                    .help("give each a name of its own")
                    .also(spans.value(&format!("machine.slots[{before}].name")), "the other one");
            }
            // Slots that are not there from the start may take turns at one address.
            let together = slot.present && other.present;
            if together && range(other.gpa, other).is_some_and(|theirs| overlap(&mine, &theirs)) {
                notes
                    .add(
                        spans.value(&path("gpa")),
                        format!("memslot `{}` overlaps memslot `{}`", slot.name, other.name),
                    )
                    .help("KVM refuses that with EEXIST; move one, or let one start with present = false")
                    .also(spans.value(&format!("machine.slots[{before}].gpa")), "the other one");
            }
        }
    }
}

/// Judges the ranges of an MSR filter, which are written at `path`. What KVM refuses is the case's own affair.
pub(super) fn msr_ranges(ranges: &[MsrRange], path: &str, spans: &Spans, notes: &mut Notes) {
    if ranges.len() > MAX_MSR_RANGES {
        notes
            .add(spans.value(path), format!("{} ranges of MSRs", ranges.len()))
            .help(format!("a filter has at most {MAX_MSR_RANGES}"));
    }
    for (index, range) in ranges.iter().enumerate() {
        if range.count > MAX_MSRS {
            notes
                .add(
                    spans.value(&format!("{path}[{index}].count")),
                    format!("a range of {} MSRs", range.count),
                )
                .help(format!("at most {MAX_MSRS}: a bitmap of 0x600 bytes"));
        }
        for (at, msr) in range.allow.iter().enumerate() {
            if msr.wrapping_sub(range.base) >= range.count {
                notes
                    .add(
                        spans.value(&format!("{path}[{index}].allow[{at}]")),
                        format!("MSR {msr:#x} is not in the range"),
                    )
                    .help(format!("it has {} MSRs from {:#x}", range.count, range.base));
            }
        }
    }
}

fn zones(machine: &MachineSpec, spans: &Spans, notes: &mut Notes) {
    for (index, zone) in machine.coalesced.iter().enumerate() {
        let end = zone.start.checked_add(u64::from(zone.size));
        let limit = if zone.pio { 1 << 16 } else { 1 << 52 };
        if zone.size == 0 || end.is_none_or(|end| end > limit) {
            let what = if zone.pio { "ports 0 to 0xffff" } else { "52-bit guest-physical addresses" };
            notes
                .add(
                    spans.value(&format!("machine.coalesced[{index}]")),
                    "no access falls into this zone, or it ends nowhere",
                )
                .help(format!("a zone has a size, and lies in {what}"));
        }
    }
}
