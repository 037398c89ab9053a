//! What runs inside a bed: the runner, linked statically, and what it needs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::build;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Programs and files that go into a bed.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    /// The first program.
    pub(crate) init: PathBuf,
    /// The runner.
    pub(crate) runner: PathBuf,
    /// The folder of manifests; `waivers` below it goes along.
    pub(crate) manifests: PathBuf,
    /// The folder of payloads.
    pub(crate) payloads: PathBuf,
    /// Waivers that the user names.
    pub(crate) waivers: Option<PathBuf>,
}

/// Builds programs of this workspace without a need for libraries: `what` as cargo takes it.
pub(crate) fn build(what: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(build::workspace()).args(["build", "--quiet", "--release", "--target", TARGET]);
    command.arg("--target-dir").arg(target_dir()).args(what);
    // This variable wins over every other way to set flags, so a developer's own cannot leak in.
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // They are copied into each machine.
    command.env("CARGO_PROFILE_RELEASE_STRIP", "true").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    let status = command.status().context("cannot start cargo to build the runner for a bed")?;
    if !status.success() {
        bail!("the runner for a bed does not build ({status}); cargo's messages above say why");
    }
    Ok(())
}

/// Where a program of [`build`] is.
pub(crate) fn program(name: &str) -> PathBuf {
    target_dir().join(TARGET).join("release").join(name)
}

fn target_dir() -> PathBuf {
    build::workspace().join("target").join("bed")
}

/// The runner's command line, as far as a bed has to understand it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunnerArgs {
    /// What is handed through.
    pub(crate) rest: Vec<String>,
    pub(crate) manifests: Option<PathBuf>,
    pub(crate) payloads: Option<PathBuf>,
    pub(crate) waivers: Option<PathBuf>,
    /// `--resume`, and the run if it names one.
    pub(crate) resume: Option<Option<String>>,
    /// `--timeout-scale`; what is no number stays in `rest` for the runner to refuse.
    pub(crate) timeout_scale: Option<f64>,
    pub(crate) color: Option<String>,
}

impl RunnerArgs {
    /// Takes apart what the user wants from the runner.
    pub(crate) fn of(words: &[OsString]) -> anyhow::Result<Self> {
        let mut args = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let word = word.to_str().with_context(|| format!("{}: not UTF-8", word.display()))?;
            if word == "--" {
                args.rest.push(word.to_owned());
                let all = words.map(|word| word.to_string_lossy().into_owned());
                args.rest.extend(all);
                break;
            }
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            if name == "--resume" {
                args.resume = Some(value.map(str::to_owned));
                continue;
            }
            let mut value = || -> anyhow::Result<String> {
                let next = || words.next().and_then(|word| word.to_str());
                value.or_else(next).map(str::to_owned).with_context(|| format!("{name} needs a value"))
            };
            match name {
                "--manifests" => args.manifests = Some(value()?.into()),
                "--payloads" => args.payloads = Some(value()?.into()),
                "--waivers" => args.waivers = Some(value()?.into()),
                "--color" => args.color = Some(value()?),
                "--timeout-scale" => {
                    let text = value()?;
                    args.timeout_scale = text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale > 0.0);
                    if args.timeout_scale.is_none() {
                        bail!("--timeout-scale {text}: expected a number above 0");
                    }
                }
                "--device" | "--run-dir" | "--logfile" | "--kernel-log" | "--mirror" | "--lost" | "--console" => {
                    bail!("{name} has no meaning in a bed; its text, results and console are in the run's folder")
                }
                _ => args.rest.push(word.to_owned()),
            }
        }
        Ok(args)
    }
}

/// Fails early where a folder is missing.
pub(crate) fn folder(path: &Path) -> anyhow::Result<()> {
    if !path.is_dir() {
        bail!("{}: there is no such folder", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<RunnerArgs> {
        RunnerArgs::of(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn files_and_factors_are_taken_out_and_the_rest_goes_through() {
        let args = parse("smm --skip x --waivers=w.toml --resume=run --timeout-scale 2 --exact --color never -q");
        let args = args.unwrap();
        assert_eq!(args.rest, ["smm", "--skip", "x", "--exact", "-q"]);
        assert_eq!(args.waivers, Some("w.toml".into()));
        assert_eq!(args.resume, Some(Some("run".into())));
        assert_eq!(args.timeout_scale, Some(2.0));
        assert_eq!(args.color.as_deref(), Some("never"));
        assert_eq!(parse("--resume port-io").unwrap().resume, Some(None));
        assert_eq!(parse("-- --resume").unwrap().rest, ["--", "--resume"]);
    }

    #[test]
    fn what_cannot_work_in_a_bed_is_refused() {
        for wrong in ["--logfile x", "--device=/dev/kvm", "--waivers", "--timeout-scale 0", "--timeout-scale x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
