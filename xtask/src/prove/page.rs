//! `docs/detection.md`, from the bugs and what was found. The same input gives the same page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::bugs::Proof;
use super::peer::Peers;
use super::report::{Found, counts, families, ran};
use super::unproved::Unproved;
use super::verdict::{Judged, Verdict};
use crate::bed::kind::Kind;

/// What is the same in every page.
const HEAD: &str = include_str!("head.md");
/// So many cases are named in a cell.
const SHOWN: usize = 4;
/// The width of a line of text.
const WIDTH: usize = 120;

/// Everything that the page tells.
pub(crate) struct Page<'a> {
    pub(crate) found: &'a Found<'a>,
    /// The releases of Linux that were under test.
    pub(crate) releases: BTreeSet<String>,
    /// The ids of all cases.
    pub(crate) cases: &'a BTreeSet<String>,
    pub(crate) unproved: &'a [Unproved],
    pub(crate) peers: &'a Peers,
}

impl Page<'_> {
    /// The page.
    pub(crate) fn text(&self) -> String {
        let mut page = HEAD.to_owned();
        self.summary(&mut page);
        self.bugs(&mut page);
        self.unobservable(&mut page);
        self.other_direction(&mut page);
        page
    }

    fn summary(&self, page: &mut String) {
        let counts = counts(self.found);
        let number = |verdict| counts.get(&verdict).copied().unwrap_or(0);
        let observable = self.found.len() - number(Verdict::Unobservable);
        let ran = ran(self.found);
        let releases: Vec<&str> = self.releases.iter().map(String::as_str).collect();
        let releases = if releases.is_empty() { "nothing yet".to_owned() } else { releases.join(", ") };
        line(
            page,
            &format!(
                "\n## What was found\n\nTested: {releases}. Of {} bugs {} can show, and {} of these have run: {} are caught ({}).",
                self.found.len(),
                observable,
                ran,
                number(Verdict::Caught),
                percent(number(Verdict::Caught), ran)
            ),
        );
        let (asked, caught) = self.peers.count();
        if asked > 0 {
            line(
                page,
                &format!(
                    "\nKVM's own selftests, those that pass on the unmodified modules, were shown {asked} of the bugs and catch {caught} ({}). \
                     They are made for other things as well; this says what the suite adds.",
                    percent(caught, asked)
                ),
            );
        }
        let shown: Vec<Verdict> = counts.keys().copied().collect();
        let words: Vec<&str> = shown.iter().map(|verdict| verdict.words()).collect();
        line(page, &format!("\n| family | bugs | {} |", words.join(" | ")));
        line(page, &format!("|---|{}", "---|".repeat(shown.len() + 1)));
        for (family, bugs) in families(self.found) {
            let each = shown.iter().map(|verdict| {
                let number = bugs.iter().filter(|(_, judged)| judged.verdict == *verdict).count();
                if number == 0 { String::new() } else { number.to_string() }
            });
            line(page, &format!("| {family} | {} | {} |", bugs.len(), each.collect::<Vec<_>>().join(" | ")));
        }
        let totals: Vec<String> = counts.values().map(usize::to_string).collect();
        line(page, &format!("| all | {} | {} |", self.found.len(), totals.join(" | ")));
    }

    fn bugs(&self, page: &mut String) {
        line(page, "\n## The bugs");
        let peers = !self.peers.is_empty();
        for (family, bugs) in families(self.found) {
            let (name, rule) = if peers { (" KVM's selftests |", "---|") } else { ("", "") };
            line(
                page,
                &format!("\n### {family}\n\n| bug | breaks | amd | intel |{name}\n|---|---|---|---|{rule}"),
            );
            for (bug, judged) in bugs {
                let undoes = bug.undoes.as_ref().map(|undoes| format!(". *Undoes {}*", text(undoes)));
                let [amd, intel] = Kind::ALL
                    .map(|bed| if bug.beds.contains(&bed) { cell(judged, bed) } else { String::new() });
                let breaks = text(&bug.breaks) + &undoes.unwrap_or_default();
                let peer = if peers { format!(" {} |", self.peers.cell(bug)) } else { String::new() };
                line(page, &format!("| `{}` | {breaks} | {amd} | {intel} |{peer}", bug.id));
            }
        }
    }

    fn unobservable(&self, page: &mut String) {
        let mut any = false;
        for (bug, _) in self.found {
            if let Proof::Unobservable(argument) = &bug.proof {
                if !std::mem::replace(&mut any, true) {
                    line(page, "\n## What nobody can see\n");
                }
                line(page, &format!("- `{}`: {}", bug.id, text(argument)));
            }
        }
    }

    fn other_direction(&self, page: &mut String) {
        let mut proved = BTreeSet::new();
        for (_, judged) in self.found {
            for case in Kind::ALL.into_iter().flat_map(|bed| judged.caught_by(bed)) {
                proved.insert(case.split('~').next().unwrap_or_default());
            }
        }
        line(
            page,
            &format!(
                "\n## The other direction\n\n{} of {} cases have been seen to catch a bug ({}). Each of the others has a reason why no bug of KVM can \
                 show it, or waits for one.",
                proved.len(),
                self.cases.len(),
                percent(proved.len(), self.cases.len())
            ),
        );
        for reason in self.unproved {
            let names: Vec<String> = reason.patterns.iter().map(|name| format!("`{name}`")).collect();
            line(page, &format!("\n- {}: {}", names.join(", "), text(&reason.reason)));
        }
        let mut families: BTreeMap<&str, (usize, usize, Vec<&str>)> = BTreeMap::new();
        for case in self.cases {
            let (family, name) = case.split_once('.').unwrap_or((case, ""));
            let (all, caught, open) = families.entry(family).or_default();
            *all += 1;
            if proved.contains(case.as_str()) {
                *caught += 1;
            } else if !self.unproved.iter().any(|reason| reason.names(case)) {
                open.push(name);
            }
        }
        line(page, "\n| family | cases | catch a bug | none yet |\n|---|---|---|---|");
        for (family, (all, caught, open)) in &families {
            line(page, &format!("| {family} | {all} | {caught} | {} |", open.len()));
        }
        if families.values().any(|(_, _, open)| !open.is_empty()) {
            line(page, "\nNo bug yet:");
        }
        for (family, (_, _, open)) in families.iter().filter(|(_, (_, _, open))| !open.is_empty()) {
            line(page, &format!("\n{}", wrapped(&format!("- `{family}`: {}", open.join(", ")))));
        }
    }
}

fn line(page: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(page, "{text}");
}

/// What a bed says of a bug.
fn cell(judged: &Judged, bed: Kind) -> String {
    let caught = judged.caught_by(bed);
    let verdict = match judged.verdict {
        Verdict::Caught => String::new(),
        Verdict::Unobservable => return "unobservable".to_owned(),
        _ if !judged.beds.contains_key(&bed) && judged.verdict != Verdict::Unbuildable => {
            return "not run".to_owned();
        }
        other => format!("**{}** ", other.words()),
    };
    if !judged.beds.contains_key(&bed) {
        return if verdict.is_empty() { "not run".to_owned() } else { verdict.trim().to_owned() };
    }
    let shown: Vec<String> = caught.iter().take(SHOWN).map(|case| format!("`{case}`")).collect();
    let more = caught.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!("{verdict}{}{more}", shown.join(", "));
    if text.is_empty() { "holds".to_owned() } else { text.trim().to_owned() }
}

/// Text within a cell.
fn text(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").trim_end_matches('.').to_owned()
}

fn percent(part: usize, whole: usize) -> String {
    // To be caught is not rounded up.
    part.checked_mul(100).and_then(|part| part.checked_div(whole)).map_or("-".into(), |n| format!("{n} %"))
}

/// Text in lines of a width, the further ones indented as a list's.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if lines[last].len() + word.len() + 1 > WIDTH {
            lines.push(format!("  {word}"));
        } else {
            let space = if lines[last].is_empty() { "" } else { " " };
            lines[last].extend([space, word]);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
