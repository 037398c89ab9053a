//! Recognizes the kernel's reports in its log, line by line.
//!
//! Formats: `kernel/panic.c` (WARNING, end trace), `arch/x86/kernel/{dumpstack,traps}.c` (Oops, BUG),
//! `mm/kasan/report.c`, `kernel/kcsan/report.c`, `lib/ubsan.c`, `kernel/locking/lockdep.c`,
//! `kernel/rcu/tree_stall.h`, `kernel/watchdog.c`; records: Documentation/ABI/testing/dev-kmsg.

/// The name of a case's process, which the kernel prints: its id is in there, so that a report of a thread, or of a
/// process that the case has moved on to, names the case when that thread or process is long gone.
pub fn comm(process: i32) -> String {
    format!("{COMM}{process}")
}

/// What that name begins with: it has at most 15 bytes (TASK_COMM_LEN), and an id up to seven.
const COMM: &str = "es-case-";

/// Lines kept of one report. A report with this many lines is complete.
const MOST_LINES: usize = 120;
/// Characters kept of one line.
const LONGEST_LINE: usize = 400;

/// A WARNING, BUG, Oops, stall, or report of a sanitizer or of lockdep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Its telling line.
    pub title: String,
    /// Its text, bounded.
    pub lines: Vec<String>,
    /// Ids of the threads and cases' processes that it names.
    pub pids: Vec<i32>,
}

impl Report {
    /// The title, then the lines.
    pub fn into_lines(self) -> Vec<String> {
        std::iter::once(self.title).chain(self.lines).collect()
    }
}

/// How a report ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// With `---[ end trace`.
    EndTrace,
    /// With a second line of `=`.
    Rule,
    /// No mark: with the next report, silence, or too many lines.
    Silence,
}

#[derive(Debug)]
struct Open {
    report: Report,
    until: Until,
    caller: Option<String>,
}

/// Collects reports from log records.
#[derive(Debug, Default)]
pub struct Collector {
    open: Option<Open>,
    /// The last line was a rule of `=`, which some reports begin with.
    rule: bool,
}

impl Collector {
    /// Takes one line of /dev/kmsg: `priority,sequence,microseconds,flags[,caller=T41];text`.
    /// Gives the report that this line completes, if it does.
    pub fn record(&mut self, line: &str) -> Option<Report> {
        // Dictionary lines, such as ` SUBSYSTEM=pci`, belong to the record before them.
        if line.starts_with(' ') {
            return None;
        }
        let (prefix, text) = line.split_once(';')?;
        let caller = prefix.split(',').find_map(|field| field.strip_prefix("caller="));
        self.line(text, caller)
    }

    /// Whether a report has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Ends the open report as it is.
    pub fn finish(&mut self) -> Option<Report> {
        self.rule = false;
        // "cut here" alone tells nothing.
        self.open.take().map(|open| open.report).filter(|report| !report.title.is_empty())
    }

    fn line(&mut self, text: &str, caller: Option<&str>) -> Option<Report> {
        let after_rule = std::mem::replace(&mut self.rule, is_rule(text));
        if text.contains("[ cut here ]") {
            return self.begin("", Until::EndTrace, text, caller);
        }
        let titled = is_title(text);
        match &mut self.open {
            // Another CPU's lines in between; CONFIG_PRINTK_CALLER tells them apart.
            Some(open) if !titled && caller.is_some() && open.caller.as_deref() != caller => None,
            Some(open) if titled && !open.report.title.is_empty() && !continues(&open.report, text) => {
                let until = if after_rule { Until::Rule } else { until(text) };
                self.begin(text, until, text, caller)
            }
            Some(open) => {
                if titled && open.report.title.is_empty() {
                    clip(text).clone_into(&mut open.report.title);
                }
                open.add(text);
                let done = match open.until {
                    Until::EndTrace => text.contains("---[ end trace"),
                    Until::Rule => is_rule(text),
                    Until::Silence => false,
                };
                (done || open.report.lines.len() >= MOST_LINES).then(|| self.finish()).flatten()
            }
            None if titled => {
                let until = if after_rule { Until::Rule } else { until(text) };
                self.begin(text, until, text, caller)
            }
            None => None,
        }
    }

    fn begin(&mut self, title: &str, until: Until, text: &str, caller: Option<&str>) -> Option<Report> {
        let before = self.finish();
        let title = clip(title).to_owned();
        let report = Report { title, ..Report::default() };
        let mut open = Open { report, until, caller: caller.map(str::to_owned) };
        // `caller=T41` is a task; `caller=C1` is a CPU in interrupt context.
        let task = caller.and_then(|caller| caller.strip_prefix('T')).and_then(|id| id.parse::<i32>().ok());
        open.report.pids.extend(task);
        open.add(text);
        self.open = Some(open);
        before
    }
}

impl Open {
    fn add(&mut self, text: &str) {
        self.report.lines.push(clip(text).to_owned());
        for pid in pids(text) {
            if !self.report.pids.contains(&pid) {
                self.report.pids.push(pid);
            }
        }
    }
}

/// What a report's telling line starts with.
const TITLES: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "Oops - ",
    "general protection fault",
    "invalid opcode: ",
    "divide error: ",
    "double fault: ",
    "int3: ",
    "stack segment: ",
    "UBSAN: ",
    "INFO: rcu",
    "rcu: INFO: ",
    "INFO: task ",
    "INFO: possible ",
    "INFO: trying to register non-static key",
    "watchdog: BUG: ",
    "unchecked MSR access error: ",
    "Kernel panic - not syncing",
];

fn is_title(text: &str) -> bool {
    // User processes that fault are logged as `traps: name[pid] general protection fault`: not ours.
    TITLES.iter().any(|title| text.starts_with(title))
}

fn until(title: &str) -> Until {
    let traced = ["kernel BUG at ", "Oops", "general protection", "invalid opcode", "divide error", "int3"];
    let page_fault = title.starts_with("BUG: unable to handle") || title.starts_with("BUG: kernel NULL");
    if page_fault || traced.iter().any(|start| title.starts_with(start)) {
        Until::EndTrace
    } else {
        Until::Silence
    }
}

/// An Oops has several telling lines: `BUG: unable to handle page fault`, then `Oops: 0000 [#1]`.
fn continues(report: &Report, text: &str) -> bool {
    let second = ["Oops", "invalid opcode", "general protection", "divide error", "int3"];
    second.iter().any(|start| text.starts_with(start)) && report.lines.len() < 8
}

fn is_rule(text: &str) -> bool {
    text.len() >= 16 && text.bytes().all(|byte| byte == b'=')
}

fn clip(text: &str) -> &str {
    text.char_indices().nth(LONGEST_LINE).map_or(text, |(end, _)| &text[..end])
}

/// Thread ids in a line: `PID: 41 Comm:`, `by task 41`, `by task name/41`, `CPU#1: name/41`,
/// `name/41 is trying to acquire`; and the one in the name of a case's process.
fn pids(text: &str) -> Vec<i32> {
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse::<i32>().ok()
    };
    let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
    // A name may hold slashes and spaces (`kworker/0:1`), so the id follows the last slash of what
    // the sentence leaves to it.
    let named = |text: &str| text.rsplit_once('/').and_then(|(_, id)| number(id));
    let task = after("by task ")
        .and_then(|rest| number(rest).or_else(|| named(rest.split(" on cpu").next().unwrap_or(rest))));
    let cpu = after("CPU#").and_then(|rest| rest.split_once(": ")).and_then(|(_, name)| named(name));
    let lockdep = text.split_once(" is trying to ").and_then(|(name, _)| named(name));
    let comm = after(COMM).and_then(number);
    [after("PID: ").and_then(number), task, cpu, lockdep, comm].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
