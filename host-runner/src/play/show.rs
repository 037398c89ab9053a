//! Steps in words: what each expects or does, on one line.

use crate::case::{Action, BankExpect, BankSet, ExitStep, GuestStep, What};

/// One line for a step.
pub fn step(what: &What) -> String {
    match what {
        What::Exit(step) => exit(step),
        What::Guest(GuestStep::Done(cpu)) => on_cpu("guest done".into(), *cpu),
        What::Guest(GuestStep::Value { cpu, name, is }) => on_cpu(format!("guest {name} = {is}"), *cpu),
        What::Set(BankSet { cpu, bank, values, errno, at_run }) => {
            let late = if *at_run { " here or by KVM_RUN" } else { "" };
            let refused =
                errno.as_ref().map_or_else(String::new, |errno| format!(", refused with {errno}{late}"));
            on_cpu(format!("set {}{}{refused}", bank.name(), list(values)), *cpu)
        }
        What::Check(BankExpect { cpu, bank, values }) => {
            on_cpu(format!("check {}{}", bank.name(), list(values)), *cpu)
        }
        What::Keep(cpu, bank) => on_cpu(format!("keep {}", bank.name()), *cpu),
        What::Do(action) => format!("do {}", action_name(action)),
        What::Repeat(times, steps) => format!("repeat {times} times {} steps", steps.len()),
    }
}

fn exit(step: &ExitStep) -> String {
    let memory: String = step.memory.iter().map(|memory| format!(" [{}]={}", memory.at, memory.is)).collect();
    let some = |count: u32, text: String| if count > 1 { text } else { String::new() };
    let times = some(step.times, format!(", {} times", step.times));
    let threads = some(step.threads, format!(", from {} threads", step.threads));
    on_cpu(format!("exit {}{}{memory}{times}{threads}", step.pattern, list(&step.regs)), step.cpu)
}

fn list<T: std::fmt::Display>(values: &[(String, T)]) -> String {
    values.iter().map(|(name, value)| format!(" {name}={value}")).collect()
}

fn on_cpu(line: String, cpu: usize) -> String {
    if cpu == 0 { line } else { format!("{line} (vCPU {cpu})") }
}

fn refusal(line: String, errno: Option<&str>) -> String {
    match errno {
        Some(errno) => format!("{line}, refused with {errno}"),
        None => line,
    }
}

fn action_name(action: &Action) -> String {
    match action {
        Action::Restart { at, .. } => format!("restart {at}"),
        Action::Interrupt { vector, .. } => format!("interrupt {vector:#x}"),
        Action::Nmi { .. } => "nmi".into(),
        Action::Smi { .. } => "smi".into(),
        Action::Msi { data, .. } => format!("msi {data:#x}"),
        Action::IrqLine { gsi, level, .. } => format!("irq-line {gsi} {level}"),
        Action::Signal { .. } => "signal".into(),
        Action::ImmediateExit { .. } => "immediate-exit".into(),
        Action::GuestDebug { single_step, breakpoints, .. } => {
            format!("guest-debug single-step={single_step} breakpoints={}", breakpoints.len())
        }
        Action::WriteMemory { at, data, .. } => format!("write-memory {at} {data}"),
        Action::SlotCreate { slot, .. } => format!("slot-create {slot}"),
        Action::SlotDelete { slot, .. } => format!("slot-delete {slot}"),
        Action::SlotMove { slot, gpa } => format!("slot-move {slot} to {gpa:#x}"),
        Action::SlotChange { slot, errno, .. } => refusal(format!("slot-change {slot}"), errno.as_deref()),
        Action::MsrFilter { default, ranges, errno, .. } => {
            let line = format!("msr-filter of {} ranges, default {default:?}", ranges.len()).to_lowercase();
            refusal(line, errno.as_deref())
        }
        Action::DirtyPages { slot, pages } => format!("dirty-pages {slot} {pages:?}"),
        Action::CoalescedRing { data, .. } => format!("coalesced-ring of {}", data.len()),
        Action::NewThread { cpu } => format!("new-thread for vCPU {cpu}"),
        Action::Background { cpu } => format!("background vCPU {cpu}"),
        Action::SaveRestore => "save-restore".into(),
        Action::Disturb { with } => format!("disturb with {with:?}").to_lowercase(),
        Action::Quiet => "quiet".into(),
    }
}
