//! Whatever saving and restoring a VM leaves out, a case notices: the suite's own cases on the real device.
//!
//! Needs `/dev/kvm` and the payloads of `cargo xtask build`; without the device there is nothing to test. What a software
//! backend cannot show is told, and shown by `exitspec test --vary save-restore --forget PIECE` in a bed.

use std::path::Path;

use clap::ValueEnum as _;
use exitspec::case::{Case, Combo, Vary};
use exitspec::host::{DeviceFacts, HostFacts, missing};
use exitspec::machine::Piece;
use exitspec::manifest;
use exitspec::outcome::{Outcome, Verdict};
use exitspec::stage::{Images, Payloads, Stage};
use exitspec::suite::Play;
use kvm_ioctls::Kvm;

/// The case that notices when a piece is forgotten, and whether a software backend can play it.
fn noticed_by(piece: Piece) -> (&'static str, bool) {
    match piece {
        Piece::Regs => ("state.rflags", true),
        Piece::Sregs => ("state.descriptor-tables", true),
        // The bed intel: kvm_pvm has no 32-bit paging, and AMD's CPUs keep no PDPTRs under nested paging.
        Piece::Pdptrs => ("state.pdptrs", false),
        Piece::Xsave => ("state.sse-registers", true),
        // The bed amd, as Bochs' CPU and kvm_pvm offer no XSAVE.
        Piece::Xcrs => ("state.xcr0", false),
        Piece::DebugRegs => ("state.debug-registers", true),
        Piece::Msrs => ("state.syscall-msrs", true),
        Piece::Mtrrs => ("state.variable-mtrrs", true),
        Piece::MachineCheck => ("state.machine-check-bank", true),
        // Both beds: kvm_pvm shows the host's TSC.
        Piece::Tsc => ("state.tsc-as-written", false),
        Piece::Events => ("events.injected-exception", true),
        // Both beds: kvm_pvm has no nested virtualization.
        Piece::Nested => ("nested-state.save-restore-in-l2", false),
        Piece::MpState => ("state-chips.between-init-and-sipi", true),
        Piece::Lapic => ("state-chips.local-apic-registers", true),
        Piece::TscDeadline => ("state-chips.tsc-deadline-timer", true),
        Piece::RunFields => ("state.cr8", true),
        Piece::Irqchip => ("state-chips.pic-registers", true),
        Piece::Pit => ("state-chips.pit-channel", true),
        Piece::Clock => ("state.kvmclock", true),
    }
}

/// The suite on this host.
struct Suite {
    payloads: Payloads,
    images: Images,
    cases: Vec<Case>,
    host: HostFacts,
}

impl Suite {
    /// `None` without a usable device.
    fn load() -> Option<Self> {
        let mut host = HostFacts::read();
        match DeviceFacts::read(Path::new("/dev/kvm"), &host) {
            Ok(device) => host.device = Some(device),
            Err(why) => {
                eprintln!("nothing to test: {why}");
                return None;
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let payloads = Payloads::load(&root.join("target/guest/x86_64-unknown-linux-gnu/guest"))
            .unwrap_or_else(|error| panic!("{error}"));
        let cases = manifest::load_dir(&root.join("test-manifests"), Some(&payloads))
            .unwrap_or_else(|mistakes| panic!("{}", mistakes.render(false)));
        let images = Images::new(&payloads, &cases).unwrap_or_else(|error| panic!("{error}"));
        Some(Self { payloads, images, cases, host })
    }

    fn play(&self, case: &Case, forget: Option<Piece>) -> Outcome {
        let kvm = Kvm::new().unwrap_or_else(|error| panic!("/dev/kvm: {error}"));
        let by = (self.host.vendor, self.host.pio);
        let stage = Stage::new(&self.payloads, &self.images, kvm, by, 1.0, forget)
            .unwrap_or_else(|error| panic!("{error}"));
        stage.play(&Play { case, combo: &Combo::new(vec![Vary::SaveRestore]), seed: 1, only: None })
    }
}

#[test]
fn whatever_is_forgotten_a_case_notices() {
    let Some(suite) = Suite::load() else { return };
    for &piece in Piece::value_variants() {
        let (id, everywhere) = noticed_by(piece);
        let case = suite.cases.iter().find(|case| case.id == id);
        let case = case.unwrap_or_else(|| panic!("{piece:?}: there is no case {id}"));
        if suite.host.backend == "kvm_pvm" && !everywhere {
            eprintln!("{piece:?}: {id} needs a bed");
            continue;
        }
        if let Some(why) = missing(&case.requires, &suite.host) {
            eprintln!("{piece:?}: {id} cannot be played here ({why})");
            continue;
        }
        let kept = suite.play(case, None);
        assert_eq!(kept.verdict, Verdict::Pass, "{id} with everything restored: {}", kept.reason);
        let lost = suite.play(case, Some(piece));
        assert!(
            matches!(lost.verdict, Verdict::Fail | Verdict::Timeout),
            "{id} does not notice that {piece:?} is forgotten: {:?} {}",
            lost.verdict,
            lost.reason
        );
    }
}
