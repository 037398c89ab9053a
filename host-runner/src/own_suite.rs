//! ExitSpec's own suite: the manifests and payloads of a folder each, played on the KVM device.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kvm_ioctls::Kvm;

use crate::case::{Case, Combo};
use crate::host::HostFacts;
use crate::machine::Piece;
use crate::manifest;
use crate::outcome::{Outcome, Verdict};
use crate::report::Paint;
use crate::stage::{Images, Payloads, Stage};
use crate::suite::{Play, RunContext, Sources, Suite};

/// Manifests and payloads, loaded.
struct OwnSuite {
    cases: Vec<Case>,
    /// What only playing needs; absent when payloads that are not built are taken on trust.
    ground: Option<(Payloads, Images)>,
}

/// Reads manifests and payloads; see [`crate::suite::Load`].
pub fn load(sources: &Sources) -> Result<Box<dyn Suite>, String> {
    let payloads = if sources.listing && !sources.payloads.exists() {
        None
    } else {
        Some(Payloads::load(&sources.payloads).map_err(|error| error.to_string())?)
    };
    let known = payloads.as_ref().map(|payloads| payloads as &dyn manifest::Payloads);
    let cases = manifest::load_dir(&sources.manifests, known)
        .map_err(|mistakes| mistakes.render(Paint::automatic(&std::io::stderr()).is_on()))?;
    let ground = match payloads {
        Some(payloads) => Images::new(&payloads, &cases).map(|images| Some((payloads, images)))?,
        None => None,
    };
    Ok(Box::new(OwnSuite { cases, ground }))
}

impl Suite for OwnSuite {
    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn excluded(&self, case: &Case, combo: &Combo) -> Option<String> {
        self.ground.as_ref().and_then(|(payloads, _)| payloads.excluded(&case.payload, combo))
    }

    fn run(&self, play: &Play, context: &RunContext) -> Outcome {
        // Opened here, in the case's own process: no state of KVM outlives the case.
        match self.stage(&context.device, &context.host, context.timeout_scale, context.forget) {
            Ok(stage) => stage.play(play),
            Err(text) => Outcome::new(Verdict::Error, text),
        }
    }

    fn slowness(&self, device: &Path, host: &HostFacts) -> Result<f64, String> {
        self.stage(device, host, 1.0, None)?.measure()
    }
}

impl OwnSuite {
    fn stage(
        &self,
        device: &Path,
        host: &HostFacts,
        time_scale: f64,
        forget: Option<Piece>,
    ) -> Result<Stage<'_>, String> {
        let (payloads, images) = self.ground.as_ref().ok_or("the payloads were not loaded")?;
        let shown = device.display();
        let path = CString::new(device.as_os_str().as_bytes()).map_err(|_| format!("{shown} is no path"))?;
        let kvm = Kvm::new_with_path(path).map_err(|errno| format!("{shown}: {errno}"))?;
        Stage::new(payloads, images, kvm, (host.vendor, host.pio), time_scale, forget)
    }
}
