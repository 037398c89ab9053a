//! Whether a certificate is what it says: its digest, its verdict, and the suite that it is of.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::issue::{left_out, variation};
use super::{Certificate, digest, judge, text_digest};
use crate::case::Case;
use crate::journal::Fingerprint;
use crate::profile::Profile;
use crate::waivers::Waivers;

/// The suite as it is here, on which certificates stand.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The cases.
    pub cases: &'a [Case],
    /// The waivers that the certificate's host has.
    pub waivers: &'a Waivers,
    /// Where manifests are.
    pub manifests: &'a Path,
    /// Hashes of the suite's files.
    pub fingerprint: Fingerprint,
    /// The suite's commit.
    pub revision: Option<String>,
}

impl Ground<'_> {
    /// What of the suite is not as it was. The runner is left to itself: it is built anew on each machine and for
    /// each bed, and a certificate that is doubted is verified by running again.
    pub(super) fn changes(&self, was: &Fingerprint) -> Vec<String> {
        let now = Fingerprint { runner: was.runner.clone(), ..self.fingerprint.clone() };
        was.differences(&now)
    }
}

/// What is wrong with a certificate; empty if nothing is. `document` is the certificate as it was read.
pub fn check(certificate: &Certificate, document: &Value, ground: &Ground) -> Vec<String> {
    let mut wrong = Vec::new();
    let digest = digest::of(document);
    if digest != certificate.digest {
        wrong.push(format!(
            "it has been edited: its digest is {}, and its content has {digest}",
            certificate.digest
        ));
    }
    let (verdict, because) = judge(&certificate.tests, certificate.run.status);
    if (verdict, &because) != (certificate.verdict, &certificate.because) {
        wrong.push(format!("its verdict is {}, and from its tests follows {verdict}", certificate.verdict));
    }
    let profile = ground.profile;
    if certificate.profile.digest != text_digest(&profile.text)
        || certificate.profile.summary != profile.summary
    {
        wrong.push(format!("the profile {} has changed", profile.name));
    }
    wrong.extend(ground.changes(&certificate.suite.hashes));
    let wanted = profile.tests(ground.cases, &certificate.host);
    let tests = wanted.tests.iter().map(|(index, combo)| (&ground.cases[*index].id, variation(combo)));
    let complete = tests.eq(certificate.tests.iter().map(|test| (&test.case, test.variation.clone())));
    if !complete || certificate.left_out != left_out(ground, wanted.left_out) {
        wrong.push("its tests are not those that the profile needs on its host".to_owned());
    }
    wrong
}

/// What another certificate says otherwise: of the host, and of each test.
pub fn against(certificate: &Certificate, again: &Certificate) -> Vec<String> {
    let mut found = certificate.host.differences(&again.host);
    let verdicts = |of: &Certificate| -> BTreeMap<String, &'static str> {
        of.tests.iter().map(|test| (test.name(), test.word())).collect()
    };
    let (was, is) = (verdicts(certificate), verdicts(again));
    for (name, was) in &was {
        match is.get(name) {
            Some(is) if is == was => {}
            Some(is) => found.push(format!("{name}: {was} then, {is} now")),
            None => found.push(format!("{name}: {was} then, not needed now")),
        }
    }
    found.extend(
        is.iter()
            .filter(|(name, _)| !was.contains_key(*name))
            .map(|(name, is)| format!("{name}: {is} now, not needed then")),
    );
    if found.is_empty() && certificate.verdict != again.verdict {
        found.push(format!("it was {} then, and is {} now", certificate.verdict, again.verdict));
    }
    found
}
