//! What ExitSpec costs beyond KVM: the same guest through the stage and through bare ioctls, in one run.
//!
//! `cargo bench` prints criterion's figures and, last, the ratios that docs/performance.md states: pairs
//! measured in turn, so that a machine whose speed drifts does not favour either.

#![expect(clippy::expect_used, reason = "a benchmark that cannot measure has nothing to say but why")]

#[path = "support/bare.rs"]
mod bare;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bare::Bare;
use criterion::Criterion;
use exitspec::case::{Case, Combo, Pio, Vendor};
use exitspec::manifest;
use exitspec::outcome::Verdict;
use exitspec::payload::{Image, Payload};
use exitspec::stage::{Images, Payloads, Stage};
use exitspec::suite::Play;
use exitspec_protocol::{Name, Params};
use kvm_ioctls::Kvm;

/// Exits of the loop in one measurement.
const EXITS: u32 = 1_000_000;
/// Cases in one measurement of pairs.
const CASES: u32 = 100;
/// Pairs measured.
const PAIRS: usize = 7;

fn manifest(exits: u32) -> String {
    format!(
        r#"
[family]
name = "bench"
summary = "What the bench plays."
payload = "bench"

[[case]]
id = "bench.two-exits"
summary = "Two exits."
basis = "impl"
reference = ["docs/performance.md"]
detects = "Nothing: it is timed."
scenario = "two_exits"
steps = [
  {{ exit = "io", direction = "out", port = 0x80, size = 1, data = 1 }},
  {{ guest = "done" }},
]

[[case]]
id = "bench.exit-loop"
summary = "Exits without end."
basis = "impl"
reference = ["docs/performance.md"]
detects = "Nothing: it is timed."
scenario = "exit_loop"
steps = [{{ exit = "io", direction = "out", port = 0x80, size = 1, data = 1, times = {exits} }}]
"#
    )
}

struct Bench<'p> {
    stage: Stage<'p>,
    cases: Vec<Case>,
    bare: Bare,
    image: Image,
}

impl Bench<'_> {
    fn case(&self, id: &str) -> &Case {
        self.cases.iter().find(|case| case.id == id).expect("a case of the bench's manifest")
    }

    fn ours(&self, id: &str) {
        let outcome =
            self.stage.play(&Play { case: self.case(id), combo: &Combo::PLAIN, seed: 1, only: None });
        assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.reason);
    }

    fn bare(&self, scenario: &str, exits: u32) {
        let params = Params::new(Name::new(scenario).expect("a short name")).to_bytes();
        let mut vm = self.bare.boot(&self.image, &params);
        for _ in 0..exits {
            vm.run_to_io();
        }
    }
}

fn main() {
    let payload_dir =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/x86_64-unknown-linux-gnu/guest");
    let Ok(kvm) = Kvm::new() else {
        println!("no usable /dev/kvm: nothing to measure");
        return;
    };
    let payloads =
        Payloads::load(&payload_dir).unwrap_or_else(|error| panic!("{error}; run `cargo xtask build`"));
    let cases = manifest::parse("bench.toml", &manifest(EXITS), Some(&payloads));
    let cases = cases.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let cpuid =
        kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).expect("KVM_GET_SUPPORTED_CPUID");
    let bare = Bare::new(&cpuid);
    let image = Payload::load(&payload_dir.join("bench")).and_then(|payload| payload.image(4 << 20));
    let image = image.unwrap_or_else(|error| panic!("{error}"));
    let images = Images::new(&payloads, &cases).expect("the images");
    let stage =
        Stage::new(&payloads, &images, kvm, (Vendor::Software, Pio::Emulated), 1.0, None).expect("the stage");
    let bench = Bench { stage, cases, bare, image };

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("case");
    group.bench_function("bare", |b| b.iter(|| bench.bare("two_exits", 2)));
    group.bench_function("exitspec", |b| b.iter(|| bench.ours("bench.two-exits")));
    group.finish();
    criterion.final_summary();
    // `cargo test --benches` and `cargo bench -- --test` only want to know that it runs.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }

    println!("\npairs in turn, {PAIRS} of each; median (least to most)");
    let case = pairs(
        || (0..CASES).for_each(|_| bench.ours("bench.two-exits")),
        || (0..CASES).for_each(|_| bench.bare("two_exits", 2)),
    );
    println!("time per case, exitspec / bare:      {case}   goal: at most 1.15");
    let rate = pairs(|| bench.bare("exit_loop", EXITS), || bench.ours("bench.exit-loop"));
    println!("exit rate over {EXITS} exits, exitspec / bare: {rate}   goal: at least 0.95");
    let suite = pairs(|| suite(&payload_dir, 1), || suite(&payload_dir, 2));
    println!("suite, one worker / two workers:     {suite}   goal: at least 1.7 on two cores");
}

/// The whole suite by the runner itself.
fn suite(payloads: &Path, workers: u32) {
    let manifests: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-manifests");
    let run_dir = std::env::temp_dir().join(format!("exitspec-bench-{}", std::process::id()));
    let status = Command::new(env!("CARGO_BIN_EXE_exitspec"))
        .arg("--manifests")
        .arg(manifests)
        .arg("--payloads")
        .arg(payloads)
        .arg("--run-dir")
        .arg(&run_dir)
        .arg(format!("--test-threads={workers}"))
        .output();
    // The suite's verdict is no matter of this bench; that it ran is.
    let code = status.expect("the runner").status.code();
    assert!(matches!(code, Some(0 | 1)), "the runner ended with {code:?}");
    let _ = std::fs::remove_dir_all(run_dir);
}

/// Median, minimum and maximum of `a`'s time over `b`'s, measured in turn.
fn pairs(a: impl Fn(), b: impl Fn()) -> String {
    let time = |work: &dyn Fn()| {
        let start = Instant::now();
        work();
        start.elapsed().max(Duration::from_nanos(1))
    };
    a();
    b();
    let mut ratios: Vec<f64> = (0..PAIRS).map(|_| time(&a).as_secs_f64() / time(&b).as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    format!("{:.3} ({:.3} to {:.3})", ratios[PAIRS / 2], ratios[0], ratios[PAIRS - 1])
}
