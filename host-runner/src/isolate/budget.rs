//! How long a case's process may live before it is killed.

use std::time::Duration;

use crate::case::{Case, Step, What};

/// Beyond what the case's own waits may take: starting, tearing down, a busy host.
const SLACK: Duration = Duration::from_secs(30);
/// No case is worth more, however often it repeats.
const LONGEST: Duration = Duration::from_mins(10);

/// The outer bound: every wait of the case at its longest, and 30 s more; at most ten minutes; times
/// `scale`. Within it the machine enforces `run_ms` itself, so this ends only what is truly stuck.
pub fn time_limit(case: &Case, scale: f64) -> Duration {
    let waits = waits(&case.steps).saturating_mul(case.budget.run_ms.into());
    let own = Duration::from_millis(waits).min(LONGEST);
    // A factor that overflows means "as good as for ever".
    Duration::try_from_secs_f64((SLACK + own).as_secs_f64() * scale).unwrap_or(Duration::MAX)
}

fn waits(steps: &[Step]) -> u64 {
    let of = |step: &Step| match &step.what {
        What::Exit(exit) => exit.times.max(1).into(),
        What::Guest(_) => 1,
        What::Repeat(times, inner) => waits(inner).saturating_mul((*times).into()),
        What::Set(_) | What::Check(_) | What::Keep(..) | What::Do(_) => 0,
    };
    steps.iter().map(of).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Basis, Budget, GuestStep, MachineSpec, Place, Requires};

    fn limit(steps: Vec<What>, scale: f64) -> Duration {
        let step = |what| Step { what, on: None, why: None, place: Place::default() };
        let case = Case {
            id: "a.b".into(),
            summary: String::new(),
            basis: Basis::Arch,
            reference: Vec::new(),
            detects: String::new(),
            payload: String::new(),
            scenario: String::new(),
            args: [].into(),
            requires: Requires::default(),
            machine: MachineSpec::default(),
            budget: Budget { run_ms: 1000, ..Budget::default() },
            except: [].into(),
            steps: steps.into_iter().map(step).collect(),
            place: Place::default(),
        };
        time_limit(&case, scale)
    }

    #[test]
    fn waits_add_up_and_are_bounded() {
        let done = || What::Guest(GuestStep::Done(0));
        let inner = Step { what: done(), on: None, why: None, place: Place::default() };
        assert_eq!(limit(vec![], 1.0), Duration::from_secs(30));
        assert_eq!(limit(vec![done(), What::Repeat(4, vec![inner.clone()])], 2.0), Duration::from_secs(70));
        let for_ever = What::Repeat(u32::MAX, vec![inner]);
        assert_eq!(limit(vec![for_ever], 1.0), Duration::from_secs(630));
        assert_eq!(limit(vec![], f64::MAX), Duration::MAX);
    }
}
