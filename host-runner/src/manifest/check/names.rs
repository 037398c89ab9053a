//! Whether the names of capabilities, CPUID features and quirks mean anything.

use crate::host::{caps, cpuid, switches};
use crate::manifest::header::Draft;
use crate::manifest::mistake::Notes;
use crate::manifest::wording::nearest;

/// Judges every such name of a case.
pub(super) fn check(draft: &Draft, notes: &mut Notes) {
    let case = &draft.case;
    let (requires, machine) = (&case.requires, &case.machine);
    let mut judge = |path: &str, what: &str, used: &[String], known: Vec<String>| {
        for (index, name) in used.iter().enumerate().filter(|(_, name)| !known.contains(name)) {
            let help = match nearest(name, known.iter().map(String::as_str)) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("names are listed in docs/manifest.md; one of them is `{}`", known[0]),
            };
            let span = draft.spans.value(&format!("{path}[{index}]"));
            notes.add(span, format!("there is no {what} `{name}`")).help(help);
        }
    };
    let owned = |names: &mut dyn Iterator<Item = &'static str>| names.map(str::to_owned).collect::<Vec<_>>();
    judge("requires.caps", "capability", &requires.caps, caps::names().collect());
    judge("requires.cpuid", "CPUID feature", &requires.cpuid, owned(&mut cpuid::names()));
    judge("machine.cpuid-hide", "CPUID feature", &machine.cpuid_hide, owned(&mut cpuid::names()));
    let enabled = owned(&mut switches::enable_names());
    judge("machine.enable-caps", "capability to enable", &machine.enable_caps, enabled);
    judge("machine.disable-quirks", "quirk", &machine.disable_quirks, owned(&mut switches::quirk_names()));
}
