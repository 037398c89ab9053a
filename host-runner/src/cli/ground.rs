//! What every run stands on: the suite, the host, the waivers, the kernel log, the workers.

use std::sync::Arc;
use std::time::Duration;

use super::Stop;
use super::args::TestArgs;
use super::places::Places;
use crate::case::{Case, Combo};
use crate::host::{Cache, HostFacts};
use crate::isolate::{Played, Pool, time_limit};
use crate::kernel_log::KernelLog;
use crate::machine::Piece;
use crate::manifest;
use crate::outcome::{Outcome, Verdict};
use crate::profile::Profile;
use crate::report::Paint;
use crate::suite::{Load, RunContext, Suite};
use crate::variation;
use crate::waivers::Waivers;

/// What is known before any device is opened.
pub(super) struct Survey {
    pub(super) places: Places,
    pub(super) suite: Arc<dyn Suite>,
    pub(super) host: HostFacts,
    pub(super) waivers: Waivers,
    pub(super) profile: Option<Profile>,
}

impl Survey {
    pub(super) fn take(args: &TestArgs, load: Load) -> Result<Self, Stop> {
        let places = Places::of(&args.places, args.list);
        let suite: Arc<dyn Suite> = load(&places.sources).map_err(Stop::Usage)?.into();
        let mut host = HostFacts::read();
        if let Some(bed) = &args.bed {
            host.bed.clone_from(bed);
        }
        let waivers = waivers(args, &places, &host, &*suite)?;
        let profile = match &args.profile {
            Some(name) => Some(profile(&places, name, &*suite)?),
            None => None,
        };
        Ok(Self { places, suite, host, waivers, profile })
    }

    /// What the device can do, as an earlier run remembered it.
    pub(super) fn remember_device(&mut self) {
        self.host.device = Cache::in_folder(&self.places.runs).load(&self.host);
    }

    /// Asks the device; remarks are what went wrong and does not matter to the verdicts.
    pub(super) fn ask_device(&mut self, remarks: &mut Vec<String>) -> Result<(), Stop> {
        self.host.device = Some(self.suite.device(&self.places.device, &self.host)?);
        if let Some(profile) = &self.profile
            && let Some(reason) = profile.unfit(&self.host)
        {
            return Err(Stop::Unfit { profile: profile.name.clone(), reason });
        }
        if let Err(error) = Cache::in_folder(&self.places.runs).store(&self.host) {
            remarks.push(format!("what this host can do could not be remembered for --list: {error}"));
        }
        Ok(())
    }
}

/// What plays.
pub(super) struct Ground {
    pub(super) pool: Pool,
    pub(super) kernel_log: KernelLog,
    pub(super) timeout_scale: f64,
}

impl Ground {
    /// Opens the kernel log, measures the host, and prepares workers, who are told what to `forget`.
    pub(super) fn prepare(
        args: &TestArgs,
        survey: &Survey,
        forget: Option<Piece>,
        remarks: &mut Vec<String>,
    ) -> Self {
        let Survey { places, suite, host, .. } = survey;
        let kernel_log = KernelLog::open(&args.kernel_log).unwrap_or_else(|error| {
            let path = args.kernel_log.display();
            remarks.push(format!("the kernel log is not watched: {path}: {error}; run as root to watch it"));
            KernelLog::unwatched()
        });
        let slowness = suite.slowness(&places.device, host).unwrap_or_else(|error| {
            remarks
                .push(format!("the host's speed could not be measured, time limits are not scaled: {error}"));
            1.0
        });
        let timeout_scale = args.timeout_scale * slowness;
        let device = places.device.clone();
        let context = RunContext { host: host.clone(), device, timeout_scale, forget };
        Self { pool: Pool::new(places.worker_arguments(), context), kernel_log, timeout_scale }
    }

    /// How long a case's process may live under these perturbations.
    pub(super) fn limit(&self, case: &Case, combo: &Combo) -> Duration {
        time_limit(case, self.timeout_scale * f64::from(variation::slowness(combo)))
    }

    /// Plays a test once, `name` being what this play is called; what the kernel says of it is part of the outcome.
    /// There is none if the run is interrupted meanwhile.
    pub(super) fn play(&self, name: &str, what: &Played, limit: Duration) -> Option<Outcome> {
        self.kernel_log.begin(name);
        let outcome = self.pool.play(what, limit, &mut |pid| self.kernel_log.started(name, pid));
        let reports = self.kernel_log.end(name);
        outcome.map(|outcome| with_kernel_log(outcome, reports))
    }
}

/// A report of the kernel fails a case that would have passed, and is evidence for any other.
fn with_kernel_log(mut outcome: Outcome, reports: Vec<Vec<String>>) -> Outcome {
    let Some(title) = reports.first().and_then(|report| report.first()) else { return outcome };
    if matches!(outcome.verdict, Verdict::Pass | Verdict::Error) {
        outcome.verdict = Verdict::Fail;
        outcome.reason = format!("the kernel reported: {title}");
    }
    outcome.evidence.get_or_insert_default().kernel_log = reports.into_iter().flatten().collect();
    outcome
}

/// A profile by name.
pub(super) fn profile(places: &Places, name: &str, suite: &dyn Suite) -> Result<Profile, Stop> {
    let found = manifest::load_profile(&places.sources.manifests, name, suite.cases());
    found.map_err(|mistakes| Stop::Usage(mistakes.render(Paint::automatic(&std::io::stderr()).is_on())))
}

fn waivers(args: &TestArgs, places: &Places, host: &HostFacts, suite: &dyn Suite) -> Result<Waivers, Stop> {
    let mut waivers = Waivers::default();
    if args.no_waivers {
        return Ok(waivers);
    }
    let ids = || suite.cases().iter().map(|case| case.id.as_str());
    for path in &args.waivers {
        waivers.add(path, true, ids(), host).map_err(Stop::Usage)?;
    }
    if args.waivers.is_empty() { own_waivers(places, host, suite) } else { Ok(waivers) }
}

/// The waivers that the suite has for a host.
pub(super) fn own_waivers(places: &Places, host: &HostFacts, suite: &dyn Suite) -> Result<Waivers, Stop> {
    let mut waivers = Waivers::default();
    let folder = places.sources.manifests.join("waivers");
    for name in [format!("{}.toml", host.backend), format!("bed-{}.toml", host.bed)] {
        let ids = suite.cases().iter().map(|case| case.id.as_str());
        waivers.add(&folder.join(name), false, ids, host).map_err(Stop::Usage)?;
    }
    Ok(waivers)
}
