//! One run in a bed: its folder, what goes into each machine, and the session over them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bed_init::{CONFIG, Config, MODULES, RESULTS};

use super::again;
use super::channel::Relay;
use super::event::Journal;
use super::folder::RunFolder;
use super::initramfs::Initramfs;
use super::kernel::{Kernel, modules::Module};
use super::kind::{Emulator, Kind, Parts};
use super::params::Params;
use super::progress::Progress;
use super::runner_args::RunnerArgs;
use super::session::{self, Bed, Machine, Patience, Resume};
use super::shared::Shared;
use super::suite::Suite;
use crate::{interrupt, paint};

/// The console is the first serial line, a report of a dying kernel its last word, and nothing is slowed down by
/// mitigations against a neighbour that is not there. The watchdog allows for a host that is busy.
const KERNEL_ARGS: &[&str] = &[
    "console=ttyS0",
    "8250.nr_uarts=4",
    "oops=panic",
    "softlockup_panic=1",
    "watchdog_thresh=30",
    "mitigations=off",
    "nokaslr",
    "quiet",
];

/// What all runs of a command line share.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) emulator: Box<dyn Emulator>,
    pub(crate) kernel: Kernel,
    /// KVM's modules, in the order in which they are loaded, where a turn does not bring its own.
    pub(crate) modules: Vec<Module>,
    pub(crate) suite: Suite,
    pub(crate) runner: RunnerArgs,
    pub(crate) params: Params,
    pub(crate) kernel_args: Vec<String>,
    pub(crate) boot_timeout: Duration,
    /// How long nothing may come from a machine that runs cases, before `--timeout-scale`.
    pub(crate) silence: Duration,
    /// How long nothing may come while a case runs, whatever its limit is said to be, before `--timeout-scale`.
    pub(crate) longest_case: Duration,
    /// Whether the runner's text is shown while it comes.
    pub(crate) shown: bool,
    /// The variables that the runner gets.
    pub(crate) environment: Vec<(String, String)>,
}

/// KVM's modules, their parameters, and what the runner plays while they are loaded.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) modules: &'a [Module],
    pub(crate) params: Params,
    /// The folder of manifests; `waivers` below it goes along.
    pub(crate) manifests: &'a Path,
    pub(crate) selection: &'a [String],
}

/// A run, while it goes on.
struct Run<'a> {
    plan: &'a Plan,
    /// This run, and those that follow in the same machine.
    turns: &'a [Turn<'a>],
    shared: &'a Shared,
    folder: &'a RunFolder,
    journal: File,
    progress: Progress,
}

/// Runs the suite with these parameters on top of the plan's; the runner's exit status.
pub(crate) fn run(plan: &Plan, params: &Params, folder: &RunFolder) -> anyhow::Result<u8> {
    let turn = Turn {
        modules: &plan.modules,
        params: plan.params.and(params),
        manifests: &plan.suite.manifests,
        selection: &plan.runner.selection,
    };
    run_first(plan, &[turn], folder, &Shared::default())
}

/// Runs the first of these turns, in a machine that goes on with the others; the runner's exit status. What a machine
/// is left from the turn before is taken.
pub(crate) fn run_first(
    plan: &Plan,
    turns: &[Turn<'_>],
    folder: &RunFolder,
    shared: &Shared,
) -> anyhow::Result<u8> {
    let journal = folder.journal()?;
    let progress = if plan.shown { Progress::of(&plan.runner) } else { Progress::default() };
    let mut run = Run { plan, turns, shared, folder, journal, progress };
    let factor = plan.runner.timeout_scale.unwrap_or(1.0).max(1.0);
    let scaled =
        |time: Duration| Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX);
    let patience =
        Patience { boot: plan.boot_timeout, results: scaled(plan.silence), case: scaled(plan.longest_case) };
    let status = session::run(&mut run, patience, plan.runner.resume.is_some())?;
    if interrupt::caught() == Some(status) {
        let name = folder.path().file_name().unwrap_or_default().display();
        let signal = interrupt::name(status);
        let again = turns.first().map(|turn| run.again(turn)).unwrap_or_default();
        run.remark(&format!("ended    by {signal}; go on with: {again} --resume={name}"));
    }
    Ok(status)
}

impl Run<'_> {
    fn config(&self, resume: Option<&Resume>) -> Config {
        // What was lost was in the run that boots.
        let turns =
            self.turns.iter().enumerate().map(|(n, turn)| self.turn(n, turn, resume.filter(|_| n == 0)));
        Config {
            turns: turns.collect(),
            device: "/dev/kvm".to_owned(),
            environment: self.plan.environment.iter().cloned().collect(),
            text: "/dev/ttyS1".to_owned(),
            results: RESULTS.to_owned(),
            power_off: self.plan.kind.power_off(),
        }
    }

    fn turn(&self, number: usize, turn: &Turn<'_>, resume: Option<&Resume>) -> bed_init::Turn {
        let params = self.machines_params(turn);
        let modules = turn.modules.iter().map(|module| bed_init::Module {
            name: module.name.clone(),
            file: format!("{number}/{}.ko", module.name),
            params: params.of(&module.name),
        });
        let names: Vec<&str> = turn.modules.iter().map(|module| module.name.as_str()).collect();
        bed_init::Turn {
            modules: modules.collect(),
            builtin_params: params.besides(&names),
            command: self.command(number, turn, resume),
        }
    }

    /// Where a turn's manifests are in the machine: turns may have the same.
    fn manifests(&self, number: usize, turn: &Turn<'_>) -> String {
        match self.turns.iter().position(|other| other.manifests == turn.manifests).unwrap_or(number) {
            0 => "suite/manifests".to_owned(),
            first => format!("suite/manifests-{first}"),
        }
    }

    fn command(&self, number: usize, turn: &Turn<'_>, resume: Option<&Resume>) -> Vec<String> {
        let runner = &self.plan.runner;
        let mut command: Vec<String> =
            ["/exitspec", "test", "--payloads=/suite/payloads"].map(str::to_owned).into();
        command.push(format!("--manifests=/{}", self.manifests(number, turn)));
        command.extend(["--run-dir=/tmp/runs".to_owned(), format!("--bed={}", self.plan.kind)]);
        command.push(format!("--mirror={RESULTS}"));
        command.push(format!(
            "--timeout-scale={}",
            self.plan.kind.slower() * runner.timeout_scale.unwrap_or(1.0)
        ));
        let color = match runner.color.as_deref() {
            None | Some("auto") if self.plan.shown && paint::colours(&std::io::stdout()) => "always",
            None | Some("auto") => "never",
            Some(other) => other,
        };
        command.push(format!("--color={color}"));
        command.push(format!("--again={}", self.again(turn)));
        command.extend(self.progress.is_shown().then(|| "--watched".to_owned()));
        command
            .extend((0..self.plan.suite.waivers.len()).map(|n| format!("--waivers=/suite/waivers-{n}.toml")));
        command.extend(runner.rest.iter().cloned());
        match resume {
            None => command.extend(turn.selection.iter().cloned()),
            Some(Resume { lost }) => {
                command.push("--resume=/bed/results.jsonl".to_owned());
                if let Some(lost) = lost {
                    command.push(format!("--lost={}", lost.how.word()));
                    command.push(format!("--running={}", lost.case));
                    command.push("--console=/bed/console.txt".to_owned());
                }
            }
        }
        command
    }

    /// The user's parameters, and what the machine needs where they say nothing.
    fn machines_params(&self, turn: &Turn<'_>) -> Params {
        self.plan.kind.params().and(&turn.params)
    }

    /// The user's parameters of this run.
    fn params(&self) -> Params {
        self.turns.first().map(|turn| turn.params.clone()).unwrap_or_default()
    }

    /// The command that repeats this run.
    fn again(&self, turn: &Turn<'_>) -> String {
        let Plan { kind, kernel, kernel_args, .. } = self.plan;
        again::command(kind.name(), &kernel.name, kernel.given.as_deref(), kernel_args, &turn.params)
    }

    /// Everything that the machine needs, as a file without a name: nothing is left behind, however this ends.
    fn initramfs(&self, resume: Option<&Resume>) -> anyhow::Result<File> {
        let cannot = "cannot write the initramfs";
        let suite = &self.plan.suite;
        let file = tempfile::tempfile().context(cannot)?;
        let mut archive = Initramfs::begin(BufWriter::new(file)).context(cannot)?;
        archive.copy("init", 0o755, &suite.init)?;
        archive.copy("exitspec", 0o755, &suite.runner)?;
        let is_toml = |name: &Path| name.extension().is_some_and(|ending| ending == "toml");
        let mut there = BTreeSet::new();
        for (number, turn) in self.turns.iter().enumerate() {
            let place = self.manifests(number, turn);
            if !there.insert(place.clone()) {
                continue;
            }
            archive.copy_folder(&place, turn.manifests, is_toml)?;
            for below in ["waivers", "profiles"] {
                let folder = turn.manifests.join(below);
                if folder.is_dir() {
                    archive.copy_folder(&format!("{place}/{below}"), &folder, is_toml)?;
                }
            }
        }
        // What else cargo leaves there has a dot in its name.
        archive.copy_folder("suite/payloads", &suite.payloads, |name| {
            name.extension().is_none() && !is_hidden(name)
        })?;
        for (n, path) in suite.waivers.iter().enumerate() {
            archive.copy(&format!("suite/waivers-{n}.toml"), 0o644, path)?;
        }
        for (number, turn) in self.turns.iter().enumerate() {
            for module in turn.modules {
                let path = format!("{MODULES}/{number}/{}.ko", module.name);
                archive.file(&path, 0o644, &module.content).context(cannot)?;
            }
        }
        if let Some(Resume { lost }) = resume {
            archive.copy("bed/results.jsonl", 0o644, &self.folder.journal_path())?;
            let console = lost.as_ref().map(|lost| lost.console.join("\n")).unwrap_or_default();
            archive.file("bed/console.txt", 0o644, console.as_bytes()).context(cannot)?;
        }
        let config = serde_json::to_vec(&self.config(resume)).context(cannot)?;
        archive.file(CONFIG, 0o644, &config).context(cannot)?;
        archive.end().context(cannot)?.into_inner().map_err(std::io::Error::from).context(cannot)
    }
}

impl Bed for Run<'_> {
    fn boot(&mut self, _number: usize, resume: Option<&Resume>) -> anyhow::Result<Box<dyn Machine>> {
        // Only a run that has not begun finds one.
        match self.shared.next() {
            Some(Ok((machine, logs))) => {
                logs.iter().try_for_each(|(name, log)| self.folder.share_log(name, log))?;
                return Ok(machine);
            }
            Some(Err(why)) => self.remark(&format!("the machine cannot go on: {why}; booting again")),
            None => {}
        }
        let mut words: Vec<String> = KERNEL_ARGS.iter().map(|word| (*word).to_owned()).collect();
        words.extend(self.plan.kernel_args.iter().cloned());
        // For what is built in. The kernel ignores them for modules, whose parameters are given when they are
        // loaded.
        words.extend(self.turns.first().map(|turn| self.machines_params(turn).words()).unwrap_or_default());
        let (console, to_console) = self.folder.log("console")?;
        let (text, to_text) = self.folder.log("text")?;
        let machine = self.plan.emulator.boot(Parts {
            kernel: &self.plan.kernel,
            words,
            initramfs: self.initramfs(resume)?,
            console: to_console,
            text: Relay::to(to_text, self.plan.shown).beside(self.progress.clone()),
        })?;
        Ok(self.shared.first(machine, self.turns.len(), vec![("console", console), ("text", text)]))
    }

    fn journal(&mut self) -> &mut dyn Write {
        &mut self.journal
    }

    fn remark(&mut self, text: &str) {
        // Of several machines at once it must say which.
        let (shown, params) = (self.plan.shown, self.params());
        self.progress.aside(
            || {
                if shown { eprintln!("{text}") } else { eprintln!("bed      {params}: {text}") }
            },
        );
    }

    fn told(&mut self, event: &Journal) {
        self.progress.take(event);
    }
}

/// Says where the results of a run are.
pub(crate) fn say_where(folder: &RunFolder) {
    let path = folder.journal_path();
    // As the user would type it from here.
    let here = std::env::current_dir().ok();
    let path = here.and_then(|here| path.strip_prefix(here).ok().map(PathBuf::from)).unwrap_or(path);
    eprintln!("results  {}", path.display());
}

fn is_hidden(name: &Path) -> bool {
    name.as_os_str().as_encoded_bytes().starts_with(b".")
}

/// The newest run, of whatever bed.
pub(crate) fn newest() -> Option<PathBuf> {
    std::fs::canonicalize(runs().join("latest")).ok()
}

/// Where the runs are.
pub(crate) fn runs() -> PathBuf {
    crate::build::workspace().join("target").join("exitspec")
}
