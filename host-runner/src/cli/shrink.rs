//! Which of the points at which a variation did something it takes to see a deviation again.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002): parts of the points are left out as long as the same is seen.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::outcome::{Outcome, Verdict};
use crate::variation::REMEMBERED;

/// How often a test is played again at most.
const PLAYS: u32 = 40;
/// How long that may take: whoever waits for the verdict takes a longer silence for a machine that hangs.
const TIME: Duration = Duration::from_secs(20);

/// Plays a failed test again, at ever fewer points, and notes in its evidence what that shows. `play` plays it at these
/// points alone, or for `None` the case as it is; once it gives no outcome, the run is over and nothing is noted.
pub(super) fn shrink(outcome: &mut Outcome, mut play: impl FnMut(Option<&[u32]>) -> Option<Outcome>) {
    let Some(evidence) = &outcome.evidence else { return };
    let (all, wanted) = (evidence.perturbed.clone(), head(&outcome.reason).to_owned());
    let end = Instant::now() + TIME;
    let over = Cell::new(false);
    let mut is_seen = |points: Option<&[u32]>| {
        let again = play(points);
        over.set(over.get() || again.is_none());
        again.is_some_and(|again| again.verdict == Verdict::Fail && head(&again.reason) == wanted)
    };
    let first = if all.len() < REMEMBERED { "" } else { "the first " };
    let text = if is_seen(None) {
        "the case deviates so without any perturbation as well".to_owned()
    } else if all.is_empty() {
        "the case as it is does not deviate so".to_owned()
    } else if is_seen(Some(&all)) {
        let least = least(&all, &mut |points| Instant::now() < end && is_seen(Some(points)));
        let shown = least.iter().take(16).map(u32::to_string).collect::<Vec<_>>().join(", ");
        let more = if least.len() > 16 { ", ..." } else { "" };
        format!(
            "at {} of {first}{} points it takes to see this: before run {shown}{more} of a vCPU",
            least.len(),
            all.len()
        )
    } else {
        let again = (0..8).take_while(|_| Instant::now() < end).map(|_| u32::from(is_seen(Some(&all))));
        let (times, seen) = again.fold((1, 0), |(times, seen), one| (times + 1, seen + one));
        format!(
            "at {first}{} points; played again with the same choices, it deviates {seen} times of {times}",
            all.len()
        )
    };
    if let Some(evidence) = &mut outcome.evidence
        && !over.get()
    {
        evidence.shrunk = Some(text);
    }
}

/// What tells one deviation from another: what was expected, and not the numbers that came.
fn head(reason: &str) -> &str {
    reason.split(", observed").next().unwrap_or(reason)
}

/// The smallest set of points that is found to fail.
fn least(all: &[u32], fails: &mut dyn FnMut(&[u32]) -> bool) -> Vec<u32> {
    let (mut points, mut parts, mut plays) = (all.to_vec(), 2, 0);
    while points.len() > 1 && plays < PLAYS {
        let size = points.len().div_ceil(parts);
        let smaller = (0..points.len()).step_by(size).find_map(|start| {
            plays += 1;
            let end = (start + size).min(points.len());
            let without = [&points[..start], &points[end..]].concat();
            (plays <= PLAYS && !without.is_empty() && fails(&without)).then_some(without)
        });
        match smaller {
            Some(smaller) => {
                points = smaller;
                parts = (parts - 1).max(2);
            }
            None if parts >= points.len() => break,
            None => parts = (parts * 2).min(points.len()),
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Evidence;

    fn shrunk(perturbed: &[u32], deviates: impl FnMut(&[u32]) -> bool) -> String {
        let mut deviates = deviates;
        let evidence = Evidence { perturbed: perturbed.to_vec(), ..Evidence::default() };
        let mut outcome = Outcome { evidence: Some(Box::new(evidence)), ..Outcome::new(Verdict::Fail, "x") };
        shrink(&mut outcome, |points| {
            let verdict = if deviates(points.unwrap_or(&[])) { Verdict::Fail } else { Verdict::Pass };
            Some(Outcome::new(verdict, "x"))
        });
        outcome.evidence.unwrap().shrunk.unwrap()
    }

    #[test]
    fn the_points_that_matter_are_found() {
        let all: Vec<u32> = (1..=20).collect();
        let text = shrunk(&all, |points| points.contains(&7));
        assert!(text.starts_with("at 1 of 20 points") && text.contains("before run 7 of"), "{text}");
        let text = shrunk(&all, |points| points.contains(&3) && points.contains(&18));
        assert!(text.contains("at 2 of 20") && text.contains("3, 18"), "{text}");
    }

    #[test]
    fn what_does_not_repeat_is_said_with_its_frequency() {
        let mut plays = 0;
        let text = shrunk(&[1, 2], |_| {
            plays += 1;
            plays % 5 == 0
        });
        assert!(text.contains("deviates 2 times of 9"), "{text}");
        assert!(shrunk(&[1], |_| true).contains("without any perturbation"));
    }

    #[test]
    fn points_that_were_not_remembered_are_not_passed_over_in_silence() {
        let all: Vec<u32> = (1..=4096).collect();
        assert!(shrunk(&all, |points| points.contains(&7)).contains("of the first 4096 points"));
        assert!(shrunk(&all[1..], |points| points.contains(&7)).contains("of 4095 points"));
        let never = shrunk(&all, |_| false);
        assert!(never.starts_with("at the first 4096 points; played again"), "{never}");
    }

    #[test]
    fn a_run_that_is_over_has_shown_nothing() {
        let evidence = Evidence { perturbed: vec![1, 2], ..Evidence::default() };
        let mut outcome = Outcome { evidence: Some(Box::new(evidence)), ..Outcome::new(Verdict::Fail, "x") };
        let mut plays = 0;
        shrink(&mut outcome, |_| {
            plays += 1;
            (plays < 2).then(|| Outcome::new(Verdict::Pass, "x"))
        });
        assert_eq!(outcome.evidence.unwrap().shrunk, None);
    }

    #[test]
    fn it_ends() {
        let all: Vec<u32> = (1..=4096).collect();
        let mut plays = 0;
        shrunk(&all, |points| {
            plays += 1;
            points.len() > 1
        });
        assert!(plays <= PLAYS + 3, "{plays}");
    }
}
