//! The verdict on a run in one sentence.

use std::collections::BTreeMap;

use super::mark::Mark;
use super::model::Model;
use super::text::count;
use crate::report::STRAY;

/// What a run comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Conforms,
    Deviates,
    Unclear,
}

impl Tone {
    /// The class in the page.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Conforms => "conforms",
            Self::Deviates => "deviates",
            Self::Unclear => "unclear",
        }
    }
}

/// The verdict on a run.
#[derive(Debug)]
pub(super) struct Sentence {
    pub(super) tone: Tone,
    /// `Linux 6.12.117 on AMD EPYC, kvm_amd,`
    pub(super) host: String,
    /// `deviates from 3 of 712 cases.`
    pub(super) verdict: String,
    /// More that should be known, in sentences.
    pub(super) more: Vec<String>,
}

/// The verdict on the run at this place. A case counts once, by the worst that was seen of it.
pub(super) fn sentence(model: &Model<'_>, run: usize) -> Option<Sentence> {
    let told = model.runs.get(run)?;
    let mut worst: BTreeMap<&str, Mark> = BTreeMap::new();
    for column in model.columns.iter().filter(|column| column.run == run) {
        for (case, cell) in &column.cells {
            let mark = worst.entry(case).or_insert(cell.mark);
            *mark = (*mark).max(cell.mark);
        }
    }
    // It stands among the cases, and is none.
    let stray = worst.remove(STRAY).is_some();
    let of = |marks: &[Mark]| worst.values().filter(|mark| marks.contains(mark)).count();
    let deviating = of(&[Mark::Fail, Mark::Timeout, Mark::Crash]);
    let (errors, stale, waived) = (of(&[Mark::Error]), of(&[Mark::Xpass]), of(&[Mark::Xfail]));
    let (skipped, open) = (of(&[Mark::Skip]), of(&[Mark::Lost, Mark::Unplayed]));
    let played = worst.len() - skipped - open;
    let cases = |number| count(number, "case", "cases");
    let interrupted = told.is_interrupted();
    let soon = if interrupted { ", as far as they were played" } else { "" };
    let (tone, verdict) = if deviating > 0 {
        (Tone::Deviates, format!("deviates from {deviating} of {}{soon}.", cases(played)))
    } else if stray {
        (Tone::Deviates, "deviates: its kernel reported a fault between cases.".to_owned())
    } else if interrupted {
        (Tone::Unclear, "cannot be judged: the run was interrupted.".to_owned())
    } else if errors > 0 {
        (Tone::Unclear, format!("cannot be judged: the suite is at fault in {}.", cases(errors)))
    } else if played == 0 {
        (Tone::Unclear, "cannot be judged: no case was played.".to_owned())
    } else {
        let known = if waived > 0 { ", known deviations aside" } else { "" };
        (Tone::Conforms, format!("conforms in {}{known}.", cases(played - waived)))
    };
    let mut more = Vec::new();
    if deviating > 0 && errors > 0 {
        more.push(format!("In {} the suite is at fault.", cases(errors)));
    }
    if stray && deviating > 0 {
        more.push("Its kernel reported a fault between cases.".to_owned());
    }
    if waived > 0 {
        more.push(format!("{} as waivers say.", count(waived, "case deviates", "cases deviate")));
    }
    if stale > 0 {
        let one = "waiver is stale: its case holds";
        more.push(format!(
            "{}, which makes the run red.",
            count(stale, one, "waivers are stale: their cases hold")
        ));
    }
    if skipped > 0 {
        more.push(format!("{} skipped, for stated reasons.", count(skipped, "case was", "cases were")));
    }
    let host = &told.header.host;
    let bed = if host.bed == crate::host::LOCAL { String::new() } else { format!(" (bed {})", host.bed) };
    let host = format!("Linux {} on {}, {}{bed},", host.kernel, host.cpu.trim(), host.backend);
    Some(Sentence { tone, host, verdict, more })
}
