//! A run's journal becomes a certificate.

use std::path::Path;
use std::time::SystemTime;

use super::{
    Certificate, Format, Ground, LeftOut, OfProfile, OfRun, OfSuite, OfTest, OfWaiver, judge, text_digest,
};
use crate::case::Combo;
use crate::journal::Recovered;
use crate::waivers::Waiver;

/// Issues the certificate of a run that was of this profile, all of it, with the suite as it is now. `dirty` says
/// whether the suite's repository has changes. Without its digest; the error is for the user.
pub fn issue(
    run: &Recovered,
    ground: &Ground,
    of_run: OfRun,
    dirty: Option<bool>,
) -> Result<Certificate, String> {
    let Recovered { header, finished, .. } = run;
    if header.forced {
        return Err("this run played cases that the host cannot play; a certification does not".to_owned());
    }
    if let Some(shard) = &header.partition {
        return Err(format!("this run is the shard {shard} alone; a certificate is of a whole profile"));
    }
    let changed = ground.changes(&header.fingerprint);
    if !changed.is_empty() {
        return Err(format!("{} since this run", changed.join(", ")));
    }
    let wanted = ground.profile.tests(ground.cases, &header.host);
    let names: Vec<String> =
        wanted.tests.iter().map(|(index, combo)| combo.test_name(&ground.cases[*index].id)).collect();
    if header.selected != names {
        return Err(format!(
            "this run is not of the whole profile {}; run `cargo xtask certify --profile {0}`",
            ground.profile.name
        ));
    }
    let tests: Vec<OfTest> = wanted
        .tests
        .iter()
        .zip(names)
        .map(|((index, combo), name)| {
            let case = &ground.cases[*index].id;
            let outcome = finished.get(&name);
            let waiver = outcome.and_then(|outcome| ground.waivers.behind(case, outcome));
            OfTest {
                case: case.clone(),
                variation: variation(combo),
                verdict: outcome.map(|outcome| outcome.verdict),
                reason: outcome.map(|outcome| outcome.reason.clone()).unwrap_or_default(),
                waiver: waiver.map(|waiver| of_waiver(waiver, ground.manifests)),
            }
        })
        .collect();
    let (verdict, because) = judge(&tests, of_run.status);
    Ok(Certificate {
        format: Format::One,
        issued: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        verdict,
        because,
        profile: OfProfile {
            name: ground.profile.name.clone(),
            summary: ground.profile.summary.clone(),
            digest: text_digest(&ground.profile.text),
        },
        suite: OfSuite {
            version: header.version.clone(),
            // A machine that is booted for a run has no repository in it.
            revision: ground.revision.clone(),
            dirty,
            hashes: header.fingerprint.clone(),
        },
        host: header.host.clone(),
        run: OfRun { seed: header.seed, ..of_run },
        tests,
        left_out: left_out(ground, wanted.left_out),
        digest: String::new(),
    })
}

pub(super) fn variation(combo: &Combo) -> Option<String> {
    (!combo.is_plain()).then(|| combo.to_string())
}

pub(super) fn left_out(ground: &Ground, of_host: Vec<(String, String)>) -> Vec<LeftOut> {
    let without = ground.profile.without.iter().cloned();
    without.chain(of_host).map(|(test, reason)| LeftOut { test, reason }).collect()
}

fn of_waiver(waiver: &Waiver, manifests: &Path) -> OfWaiver {
    let place = waiver.place.strip_prefix(&manifests.display().to_string()).unwrap_or(&waiver.place);
    OfWaiver {
        reason: waiver.reason.clone(),
        link: waiver.link.clone(),
        place: place.trim_start_matches('/').to_owned(),
    }
}
