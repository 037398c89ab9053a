//! ExitSpec's own suite: the manifests and payloads of a folder each, played on the KVM device.

use std::ffi::CString;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::slice;

use kvm_ioctls::Kvm;

use crate::case::Case;
use crate::manifest;
use crate::outcome::{Outcome, Verdict};
use crate::stage::{Payloads, Stage};
use crate::suite::{RunContext, Sources, Suite};

/// Manifests and payloads, loaded.
struct OwnSuite {
    cases: Vec<Case>,
    payloads: Option<Payloads>,
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
        .map_err(|mistakes| mistakes.render(std::io::stderr().is_terminal()))?;
    Ok(Box::new(OwnSuite { cases, payloads }))
}

impl Suite for OwnSuite {
    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn run(&self, case: &Case, context: &RunContext) -> Outcome {
        let error = |what: String| Outcome::new(Verdict::Error, what);
        let Some(payloads) = &self.payloads else { return error("the payloads were not loaded".into()) };
        let device = context.device.display();
        let Ok(path) = CString::new(context.device.as_os_str().as_bytes()) else {
            return error(format!("{device} is no path"));
        };
        // Opened here, in the case's own process: no state of KVM outlives the case.
        let kvm = match Kvm::new_with_path(path) {
            Ok(kvm) => kvm,
            Err(errno) => return error(format!("{device}: {errno}")),
        };
        let host = &context.host;
        let stage =
            Stage::new(payloads, slice::from_ref(case), kvm, host.vendor, host.pio, context.timeout_scale);
        match stage {
            Ok(stage) => stage.play(case),
            Err(text) => error(text),
        }
    }
}
