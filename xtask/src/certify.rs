//! `cargo xtask certify` and `cargo xtask verify`: run a profile, issue a certificate, hold one against the suite.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::bed::args::{BedArgs, Where};
use crate::bed::kind::Kind;
use crate::{bed, build, interrupt, test};

/// `cargo xtask certify`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to certify: the name of a file in test-manifests/profiles
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// Take known deviations for what they are: then a certificate needs that every test holds
    #[arg(long)]
    no_waivers: bool,
    /// The certificate; its page goes beside it [default: certificate.json in the run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where every random choice starts
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Factor on every time limit
    #[arg(long, value_name = "N")]
    timeout_scale: Option<f64>,
    #[command(flatten)]
    bed: BedArgs,
}

/// `cargo xtask verify`
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The certificate's JSON document
    #[arg(value_name = "FILE")]
    certificate: PathBuf,
    /// Run again, on the same host, and compare
    #[arg(long)]
    rerun: bool,
}

/// What a run for a certificate is told.
#[derive(Debug)]
struct Order {
    profile: String,
    no_waivers: bool,
    seed: Option<u64>,
    timeout_scale: Option<f64>,
    /// Where to run, as the user said it.
    words: Vec<OsString>,
    out: Option<PathBuf>,
}

/// Runs and issues; the exit status, as the runner's.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().skip(2).collect();
    args.bed.checked();
    let order = Order {
        profile: args.profile,
        no_waivers: args.no_waivers,
        seed: args.seed,
        timeout_scale: args.timeout_scale,
        words: BedArgs::own_words(&words),
        out: args.out,
    };
    Ok(certify(&order)?.1.into())
}

/// Verifies; the exit status: 0 verified, 1 it differs, else as the runner's.
pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    // Payloads that are not built have no hashes.
    build::run(&build::Args::default())?;
    let file = fs::canonicalize(&args.certificate).with_context(|| args.certificate.display().to_string())?;
    let status = code(test::suite_of("verify").arg(&file))?;
    if status != 0 || !args.rerun {
        return Ok(status.into());
    }
    let order = order(&fs::read(&file)?, &build::workspace().join("target").join("exitspec"))?;
    eprintln!("\nrunning again");
    let out = order.out.clone().unwrap_or_default();
    match certify(&order)? {
        (Issued::Yes, _) => Ok(code(test::suite_of("verify").arg(&file).arg("--against").arg(&out))?.into()),
        (Issued::No, status) => Ok(status.into()),
    }
}

/// What repeats the run of a certificate.
fn order(certificate: &[u8], folder: &Path) -> anyhow::Result<Order> {
    #[derive(Deserialize)]
    struct Certificate {
        profile: Profile,
        run: Run,
    }
    #[derive(Deserialize)]
    struct Profile {
        name: String,
    }
    #[derive(Deserialize)]
    struct Run {
        seed: u64,
        words: Vec<String>,
        waivers: bool,
    }
    let Certificate { profile, run } = serde_json::from_slice(certificate).context("it is no certificate")?;
    Ok(Order {
        out: Some(folder.join(format!("rerun-{}.json", profile.name))),
        profile: profile.name,
        no_waivers: !run.waivers,
        seed: Some(run.seed),
        timeout_scale: None,
        words: run.words.into_iter().map(OsString::from).collect(),
    })
}

/// Whether there is a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Issued {
    Yes,
    No,
}

fn certify(order: &Order) -> anyhow::Result<(Issued, u8)> {
    let (bed, _) = BedArgs::split(&order.words);
    if bed.matrix.is_some() || bed.place() == Where::All {
        bail!("a certificate is of one host: --matrix and --bed all are several");
    }
    let mut words = vec![OsString::from(format!("--profile={}", order.profile))];
    words.extend(order.no_waivers.then(|| "--no-waivers".into()));
    words.extend(order.seed.map(|seed| format!("--seed={seed}").into()));
    words.extend(order.timeout_scale.map(|scale| format!("--timeout-scale={scale}").into()));
    let before = bed::newest_run();
    let status = match bed.place() {
        Where::Amd => test::in_bed(Kind::Amd, &bed, &words)?,
        Where::Intel => test::in_bed(Kind::Intel, &bed, &words)?,
        Where::Local | Where::All => {
            build::run(&build::Args::default())?;
            let mut command = test::suite();
            command.args(&words);
            let _watch = interrupt::watch()?;
            exit_code(interrupt::status(command)?)?
        }
    };
    // Wrong usage, a host that cannot run it, nothing run: there is nothing to certify.
    if status > 1 {
        return Ok((Issued::No, status));
    }
    let run = bed::newest_run().filter(|run| Some(run) != before.as_ref());
    issue(order, &run.context("the run has left no results")?, status)
}

fn issue(order: &Order, run: &Path, status: u8) -> anyhow::Result<(Issued, u8)> {
    println!();
    let mut command = test::suite_of("certify");
    command.arg(run).arg(format!("--profile={}", order.profile)).arg(format!("--status={status}"));
    command.args(order.no_waivers.then_some("--no-waivers"));
    if let Some(out) = &order.out {
        command.arg("--out").arg(out);
    }
    let status = code(command.arg("--").args(&order.words))?;
    Ok((if status > 1 { Issued::No } else { Issued::Yes }, status))
}

/// Runs a command to its end; its exit status.
fn code(command: &mut Command) -> anyhow::Result<u8> {
    exit_code(command.status().context("cannot start cargo to run exitspec")?)
}

fn exit_code(ended: ExitStatus) -> anyhow::Result<u8> {
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    code.with_context(|| format!("exitspec failed ({ended})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_of_one_host() {
        for words in ["--bed=all", "--matrix=default,npt=0"] {
            let order = Order {
                profile: "none".into(),
                no_waivers: false,
                seed: None,
                timeout_scale: None,
                words: vec![words.into()],
                out: None,
            };
            assert!(certify(&order).unwrap_err().to_string().contains("one host"), "{words}");
        }
    }

    #[test]
    fn a_rerun_is_told_what_the_run_was_told() {
        let text = br#"{"profile": {"name": "smm", "x": 1}, "run": {"seed": 7, "words": ["--bed", "amd"], "waivers": false}}"#;
        let order = order(text, Path::new("/runs")).unwrap();
        assert_eq!((order.profile.as_str(), order.seed, order.no_waivers), ("smm", Some(7), true));
        assert_eq!(order.words, ["--bed", "amd"]);
        assert_eq!(order.out.unwrap(), Path::new("/runs/rerun-smm.json"));
    }
}
