//! The stage: payloads in memory, images laid out, the host's device open; plays a case from boot to verdict.
//!
//! What listing needs ([`Payloads`]) is apart from what only playing needs ([`Stage`]): the first
//! opens no device.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use exitspec_protocol::{Arg, Name, Params};
use kvm_ioctls::Kvm;

use crate::case::{Case, Combo, Pio, Places, Start, Vary, Vendor};
use crate::machine::{Host, Machine, Piece, speed};
use crate::manifest;
use crate::outcome::{Outcome, Verdict};
use crate::payload::{Image, Payload, PayloadError};
use crate::play::{TargetError, play};
use crate::suite::Play;
use crate::variation::{self, Varied};

/// The payloads of a directory.
pub struct Payloads(HashMap<String, Payload>);

impl Payloads {
    /// Loads every payload in `dir`: each file that is an ELF file by its name, without an extension.
    pub fn load(dir: &Path) -> Result<Self, PayloadError> {
        let mut payloads = HashMap::new();
        let entries = std::fs::read_dir(dir).map_err(|error| PayloadError::unreadable(dir, error))?;
        for entry in entries {
            let path = entry.map_err(|error| PayloadError::unreadable(dir, error))?.path();
            if path.extension().is_none() && path.is_file() && !hidden(&path) {
                let payload = Payload::load(&path)?;
                payloads.insert(payload.name().to_owned(), payload);
            }
        }
        Ok(Self(payloads))
    }

    fn get(&self, name: &str) -> Option<&Payload> {
        self.0.get(name)
    }

    /// Why a case with this payload is not played under these perturbations; one sentence.
    pub fn excluded(&self, payload: &str, combo: &Combo) -> Option<String> {
        let nowhere = self.get(payload).is_some_and(|payload| payload.emulable().is_empty());
        (nowhere && combo.varies().contains(&Vary::Emulate))
            .then(|| format!("not under emulate: payload `{payload}` has no place for a prefix"))
    }
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

impl manifest::Payloads for Payloads {
    fn payload(&self, name: &str) -> Result<&dyn manifest::PayloadInfo, String> {
        let found = self.get(name).map(|payload| payload as &dyn manifest::PayloadInfo);
        found.ok_or_else(|| {
            format!("there is no payload `{name}`; a payload is a file in guest-payloads/src/bin")
        })
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl manifest::PayloadInfo for Payload {
    fn has_scenario(&self, name: &str) -> bool {
        self.scenarios().any(|known| known == name)
    }
    fn scenarios(&self) -> Vec<String> {
        self.scenarios().map(str::to_owned).collect()
    }
    fn label_names(&self) -> Vec<String> {
        self.symbols().names().map(str::to_owned).collect()
    }
}

/// A payload's labels where no case says in which mode its code runs: in 64-bit mode.
impl Places for Payload {
    fn at(&self, label: &str) -> Option<u64> {
        self.symbols().lookup(label).ok()
    }
    fn after(&self, label: &str) -> Option<u64> {
        self.instruction_after(self.at(label)?, 64)
    }
}

/// A payload's labels as one case means them: its start mode says how wide instructions are.
struct CasePlaces<'a> {
    payload: &'a Payload,
    bitness: u32,
}

impl Places for CasePlaces<'_> {
    fn at(&self, label: &str) -> Option<u64> {
        self.payload.at(label)
    }
    fn after(&self, label: &str) -> Option<u64> {
        self.payload.instruction_after(self.at(label)?, self.bitness)
    }
    fn nearest(&self, address: u64) -> Option<(String, u64)> {
        let shown = |name| format!("{:#}", rustc_demangle::demangle(name));
        self.payload.symbols().nearest(address).map(|(name, offset)| (shown(name), offset))
    }
}

/// What memory holds at the start, for every payload and memory size that cases use.
pub struct Images(HashMap<(String, u32), Image>);

impl Images {
    /// Lays out the images of `cases`. Needs no device.
    pub fn new(payloads: &Payloads, cases: &[Case]) -> Result<Self, String> {
        let mut images = HashMap::new();
        for case in cases {
            let key = (case.payload.clone(), case.machine.memory_kib);
            if let Some(payload) = payloads.get(&case.payload)
                && !images.contains_key(&key)
            {
                let image = payload.image(u64::from(case.machine.memory_kib) << 10);
                images.insert(key, image.map_err(|error| format!("case `{}`: {error}", case.id))?);
            }
        }
        Ok(Self(images))
    }
}

/// Everything that cases share on one host.
pub struct Stage<'p> {
    payloads: &'p Payloads,
    images: &'p Images,
    host: Host,
    vendor: Vendor,
    pio: Pio,
    /// What every time budget is multiplied with: how much slower this host is than the reference, and
    /// what the user asked for.
    time_scale: f64,
}

impl<'p> Stage<'p> {
    /// Asks KVM what it supports.
    pub fn new(
        payloads: &'p Payloads,
        images: &'p Images,
        kvm: Kvm,
        (vendor, pio): (Vendor, Pio),
        time_scale: f64,
        forget: Option<Piece>,
    ) -> Result<Self, String> {
        let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES);
        let cpuid = cpuid.map_err(|error| format!("KVM_GET_SUPPORTED_CPUID: {error}"))?;
        let host = Host { kvm, cpuid, intel: vendor == Vendor::Intel, forget };
        Ok(Self { payloads, images, host, vendor, pio, time_scale })
    }

    /// How much longer than at reference speed things take here; see [`speed`].
    pub fn measure(&self) -> Result<f64, String> {
        speed::time_scale(&self.host).map_err(|error| error.to_string())
    }

    /// Boots a case and judges it.
    pub fn play(&self, play: &Play) -> Outcome {
        match self.try_play(play) {
            Ok(outcome) => outcome,
            Err(TargetError::Ioctl { what, error }) => {
                Outcome::new(Verdict::Fail, format!("the VM cannot be built: {what}: {error}"))
            }
            Err(error) => Outcome::new(Verdict::Error, format!("the VM cannot be built: {error}")),
        }
    }

    fn try_play(&self, test: &Play) -> Result<Outcome, TargetError> {
        let Play { case, combo, seed, only } = *test;
        let missing =
            |what: &str| TargetError::Harness(format!("{what} of payload `{}` is missing", case.payload));
        let payload = self.payloads.get(&case.payload).ok_or_else(|| missing("the file"))?;
        let key = (case.payload.clone(), case.machine.memory_kib);
        let image = self.images.0.get(&key).ok_or_else(|| missing("the image"))?;
        let bitness = match case.machine.start {
            Start::Long => 64,
            Start::Protected => 32,
            Start::Real => 16,
        };
        let places = CasePlaces { payload, bitness };
        let entry = match case.machine.start {
            Start::Long => 0,
            Start::Protected | Start::Real => {
                places.at(&case.scenario).ok_or_else(|| missing(&format!("label `{}`", case.scenario)))?
            }
        };
        let budget = Duration::from_millis(case.budget.run_ms.into())
            .mul_f64(self.time_scale * f64::from(variation::slowness(combo)));
        let params = params(case, image.start.cr3)?;
        let spec = variation::machine(case, combo);
        let mut machine = Machine::new(&self.host, &spec, image, &params, entry, budget)?;
        if combo.is_plain() {
            return Ok(play(case, self.vendor, self.pio, &mut machine, &places));
        }
        let mut varied = Varied::new(&mut machine, combo, &combo.test_name(&case.id), seed, only);
        let pio = variation::pio(combo, self.pio);
        let mut outcome = play(case, self.vendor, pio, &mut varied, &places);
        if let Some(evidence) = &mut outcome.evidence {
            evidence.perturbed = varied.acted();
        }
        Ok(outcome)
    }
}

/// What the payload is told: its scenario and arguments, and where its page tables are.
fn params(case: &Case, page_tables: u64) -> Result<[u8; Params::SIZE], TargetError> {
    let name = |text: &str| {
        Name::new(text)
            .ok_or_else(|| TargetError::Harness(format!("`{text}` is longer than {} bytes", Name::MAX)))
    };
    let mut params = Params::new(name(&case.scenario)?);
    params.page_tables = page_tables;
    for (slot, (text, value)) in params.args.iter_mut().zip(&case.args) {
        *slot = Arg { name: name(text)?, value: *value };
        params.arg_count += 1;
    }
    Ok(params.to_bytes())
}
