//! Whether the steps of a case can follow each other.
//!
//! Walks them once for every kind of host on which the case may run, since `on` changes which steps
//! there are. A `repeat` is walked twice, so that its end meets its beginning.

use super::step::{MAX_TIMES, cpu};
use crate::case::{Action, Churn, GuestStep, On, Pio, Vendor, What};
use crate::exit::ExitPattern;
use crate::manifest::header::Draft;
use crate::manifest::mistake::Notes;
use crate::manifest::step::Written;

/// A kind of host.
type Host = (Vendor, Pio);

/// Why a vCPU cannot go on by KVM_RUN alone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    /// Its scenario is over.
    Done,
    /// This exit leaves nothing to run.
    Exit(&'static str),
}

/// What the steps so far did.
#[derive(Debug, Default)]
struct State {
    /// By vCPU.
    stopped: Vec<(usize, Stop)>,
    /// vCPUs that something makes return EINTR.
    interrupted: Vec<usize>,
    kicked: bool,
    disturbed: bool,
}

/// Judges the steps of a case as a whole.
pub(super) fn check(draft: &Draft, notes: &mut Notes) {
    if draft.sound.steps && !draft.steps.iter().any(runs) {
        notes
            .add(draft.spans.key("steps"), "this case never runs the guest: it has no `exit` or `guest` step")
            .help("end it with { guest = \"done\" }");
    }
    repetitions(&draft.steps, 1, notes);
    if !draft.sound.requires {
        return;
    }
    let hosts = hosts(draft);
    for written in &draft.steps {
        plays(written, &hosts, notes);
    }
    // With steps missing, every order is wrong.
    if draft.sound.steps {
        for host in hosts {
            walk(&draft.steps, host, &mut State::default(), notes);
        }
    }
}

/// The kinds of host that the case's requirements leave.
fn hosts(draft: &Draft) -> Vec<Host> {
    let requires = &draft.case.requires;
    let mut hosts = Vec::new();
    for vendor in [Vendor::Intel, Vendor::Amd, Vendor::Software] {
        for pio in [Pio::Fast, Pio::Emulated] {
            let vendor_fits = requires.vendor.is_empty() || requires.vendor.contains(&vendor);
            if vendor_fits && requires.pio.is_none_or(|required| required == pio) {
                hosts.push((vendor, pio));
            }
        }
    }
    hosts
}

fn includes(on: Option<On>, host: Host) -> bool {
    on.is_none_or(|on| on.includes(host.0, host.1))
}

fn runs(written: &Written) -> bool {
    matches!(written.step.what, What::Exit(_) | What::Guest(_)) || written.inner.iter().any(runs)
}

/// A step that no host plays is a mistake.
fn plays(written: &Written, hosts: &[Host], notes: &mut Notes) {
    let left: Vec<Host> = hosts.iter().copied().filter(|host| includes(written.step.on, *host)).collect();
    if left.is_empty() {
        notes
            .add(
                written.spans.value("on"),
                "this step never plays: `requires` or an outer `on` leaves no such host",
            )
            .help("remove the step, or widen `requires`");
        return;
    }
    written.inner.iter().for_each(|inner| plays(inner, &left, notes));
}

/// Repetitions within repetitions multiply.
fn repetitions(steps: &[Written], outer: u64, notes: &mut Notes) {
    for written in steps {
        let (key, times) = match &written.step.what {
            What::Repeat(times, _) => ("repeat", *times),
            What::Exit(exit) => ("times", exit.times),
            _ => continue,
        };
        let total = outer.saturating_mul(u64::from(times));
        if (2..=u64::from(MAX_TIMES)).contains(&outer) && times <= MAX_TIMES && total > u64::from(MAX_TIMES) {
            notes
                .add(
                    written.spans.value(key),
                    format!("with the repetitions around it this plays {total} times"),
                )
                .help(format!("at most {MAX_TIMES} in all"));
        }
        repetitions(&written.inner, total, notes);
    }
}

fn walk(steps: &[Written], host: Host, state: &mut State, notes: &mut Notes) {
    for written in steps.iter().filter(|written| includes(written.step.on, host)) {
        match &written.step.what {
            What::Exit(exit) => {
                guest_runs(exit.cpu, written, state, notes);
                if matches!(exit.pattern, ExitPattern::Intr(_))
                    && !state.kicked
                    && !state.interrupted.contains(&exit.cpu)
                {
                    notes
                        .add(
                            written.spans.value("exit"),
                            format!("nothing before makes KVM_RUN of vCPU {} return EINTR", exit.cpu),
                        )
                        .help("put { do = \"signal\" } or { do = \"immediate-exit\" } before it");
                }
                let last = match exit.pattern {
                    ExitPattern::Shutdown(_)
                    | ExitPattern::InternalError(_)
                    | ExitPattern::FailEntry(_)
                    | ExitPattern::SystemEvent(_) => exit.pattern.name(),
                    _ => continue,
                };
                state.stopped.push((exit.cpu, Stop::Exit(last)));
            }
            What::Guest(guest) => {
                let (GuestStep::Done(cpu) | GuestStep::Value { cpu, .. }) = guest;
                guest_runs(*cpu, written, state, notes);
                if matches!(guest, GuestStep::Done(_)) {
                    state.stopped.push((*cpu, Stop::Done));
                }
            }
            What::Set(_) | What::Check(_) | What::Keep(..) => host_acts(cpu(&written.step.what), state),
            What::Do(action) => act(action, written, state, notes),
            What::Repeat(times, _) => {
                for _ in 0..(*times).min(2) {
                    walk(&written.inner, host, state, notes);
                }
            }
        }
    }
}

/// The guest runs on `cpu`: it must be able to.
fn guest_runs(cpu: usize, written: &Written, state: &mut State, notes: &mut Notes) {
    let Some((_, stop)) = state.stopped.iter().find(|(stopped, _)| *stopped == cpu) else { return };
    match stop {
        Stop::Done => {
            let message = format!("vCPU {cpu} runs after guest = \"done\", which ends its scenario");
            notes
                .add(&written.spans.whole, message)
                .help("make \"done\" the vCPU's last step, or do = \"restart\" before this");
        }
        Stop::Exit(exit) => {
            let message = format!("vCPU {cpu} runs on after exit `{exit}`, as if nothing had happened");
            notes
                .add(&written.spans.whole, message)
                .help("say what the host does about it (set, keep, check or do), or that the exit comes again: times = 2");
        }
    }
    // One mistake is enough for all the steps that follow.
    state.stopped.retain(|(stopped, _)| *stopped != cpu);
}

/// The host does something about an exit, to one vCPU or to all.
fn host_acts(cpu: Option<usize>, state: &mut State) {
    state.stopped.retain(|(stopped, stop)| *stop == Stop::Done || cpu.is_some_and(|cpu| cpu != *stopped));
}

fn act(action: &Action, written: &Written, state: &mut State, notes: &mut Notes) {
    host_acts(cpu(&written.step.what), state);
    match action {
        Action::Restart { cpu, .. } => state.stopped.retain(|(stopped, _)| stopped != cpu),
        Action::Signal { cpu, .. } | Action::ImmediateExit { cpu } if !state.interrupted.contains(cpu) => {
            state.interrupted.push(*cpu);
        }
        Action::Disturb { with } => {
            state.disturbed = true;
            state.kicked |= with.contains(&Churn::Kick);
        }
        Action::Quiet => {
            if !state.disturbed {
                notes
                    .add(written.spans.value("do"), "there is nothing to quiet")
                    .help("`quiet` ends a `disturb` before it");
            }
            state.disturbed = false;
        }
        _ => {}
    }
}
