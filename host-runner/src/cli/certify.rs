//! The verbs `certify` and `verify`: a run becomes a certificate, and a certificate is held against the suite.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::args::{CertifyArgs, PlaceArgs, VerifyArgs};
use super::begin::{fingerprint, usage};
use super::ground::{own_waivers, profile};
use super::places::Places;
use super::{End, Stop};
use crate::certificate::{self, Certificate, Ground, OfRun, Overall};
use crate::host::HostFacts;
use crate::journal::{Fingerprint, Recovered, Runs, dirty, revision};
use crate::profile::Profile;
use crate::report::shown;
use crate::suite::{Load, Suite};
use crate::waivers::Waivers;

/// The suite, as far as nothing is booted.
struct Library {
    places: Places,
    suite: Box<dyn Suite>,
    profile: Profile,
    waivers: Waivers,
    fingerprint: Fingerprint,
}

impl Library {
    /// What there is for this host; `waived` tells whether its waivers count.
    fn open(args: &PlaceArgs, load: Load, name: &str, host: &HostFacts, waived: bool) -> Result<Self, Stop> {
        let places = Places::of(args, true);
        let suite = load(&places.sources).map_err(Stop::Usage)?;
        let profile = profile(&places, name, &*suite)?;
        let waivers = if waived { own_waivers(&places, host, &*suite)? } else { Waivers::default() };
        let fingerprint = fingerprint(&places, &*suite, &waivers)?;
        Ok(Self { places, suite, profile, waivers, fingerprint })
    }

    fn ground(&self) -> Ground<'_> {
        let manifests = &self.places.sources.manifests;
        Ground {
            profile: &self.profile,
            cases: self.suite.cases(),
            waivers: &self.waivers,
            manifests,
            fingerprint: self.fingerprint.clone(),
            revision: revision(manifests),
        }
    }
}

pub(super) fn certify(args: &CertifyArgs, load: Load) -> Result<End, Stop> {
    let runs = Places::of(&args.places, true).runs;
    let journal =
        Runs::in_folder(&runs).find(Some(&args.run)).map_err(|error| Stop::Usage(error.to_string()))?;
    let run = Recovered::read(&journal).map_err(|error| usage(&journal, &error))?;
    let host = &run.header.host;
    let mut library = Library::open(&args.places, load, &args.profile, host, !args.no_waivers)?;
    let of_run = OfRun {
        seed: run.header.seed,
        words: args.words.clone(),
        status: args.status,
        waivers: !args.no_waivers,
    };
    // The journal may be named by a path, and then the error should say which.
    let refused = |why: String| Stop::Usage(format!("{}: {why}", journal.display()));
    library.fingerprint.runner.clone_from(&run.header.fingerprint.runner);
    let dirty = dirty(&library.places.sources.manifests);
    let issued = certificate::issue(&run, &library.ground(), of_run, dirty).map_err(refused)?;
    let issued = certificate::sealed(issued).map_err(|error| refused(error.to_string()))?;
    let path = args.out.clone().unwrap_or_else(|| journal.with_file_name("certificate.json"));
    let text = serde_json::to_string_pretty(&issued).map_err(|error| refused(error.to_string()))? + "\n";
    let page = path.with_extension("html");
    for (path, text) in [(&path, text), (&page, certificate::page(&issued))] {
        fs::write(path, text).map_err(|error| usage(path, &error))?;
    }
    say(&issued);
    println!("certificate  {}\npage         {}", path.display(), page.display());
    Ok(if issued.verdict == Overall::DoesNotConform { End::Deviations } else { End::Conforming })
}

pub(super) fn verify(args: &VerifyArgs, load: Load) -> Result<End, Stop> {
    let (found, document) = read(&args.certificate)?;
    let library = Library::open(&args.places, load, &found.profile.name, &found.host, found.run.waivers)?;
    let ground = library.ground();
    let mut wrong = certificate::check(&found, &document, &ground);
    if let Some(path) = &args.against {
        let (again, document) = read(path)?;
        let of_again = certificate::check(&again, &document, &ground);
        wrong.extend(of_again.into_iter().map(|what| format!("{}: {what}", path.display())));
        wrong.extend(certificate::against(&found, &again));
    }
    say(&found);
    if found.suite.revision != ground.revision {
        let of = |revision: &Option<String>| revision.clone().unwrap_or_else(|| "no commit".to_owned());
        println!(
            "note         it is of {}, and this is {}",
            shown(&of(&found.suite.revision)),
            of(&ground.revision)
        );
    }
    for what in &wrong {
        println!("differs      {}", shown(what));
    }
    println!("{}", if wrong.is_empty() { "verified" } else { "not verified" });
    Ok(if wrong.is_empty() { End::Conforming } else { End::Deviations })
}

/// What a certificate says, in short.
fn say(certificate: &Certificate) {
    println!("profile      {}: {}", shown(&certificate.profile.name), shown(&certificate.profile.summary));
    println!("host         {}", shown(&certificate.host.to_string()));
    let waived = certificate.tests.iter().filter(|test| test.waiver.is_some()).count();
    println!("verdict      {}: {} tests, {waived} waived", certificate.verdict, certificate.tests.len());
    for reason in &certificate.because {
        println!("             {}", shown(reason));
    }
    if certificate.suite.dirty == Some(true) {
        println!("note         the suite had changes that are not committed");
    }
}

/// A certificate, and the document that it was read from.
fn read(path: &Path) -> Result<(Certificate, Value), Stop> {
    let text = fs::read(path).map_err(|error| usage(path, &error))?;
    let no =
        |error: serde_json::Error| usage(path, &io::Error::other(format!("it is no certificate: {error}")));
    let document: Value = serde_json::from_slice(&text).map_err(no)?;
    // From the text again, so that the error says where.
    Ok((serde_json::from_slice(&text).map_err(no)?, document))
}
