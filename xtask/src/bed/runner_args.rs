//! The runner's command line, as far as a bed has to understand it.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};

/// The runner's words, sorted by what becomes of them in a bed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RunnerArgs {
    /// What is handed through in every boot.
    pub(crate) rest: Vec<String>,
    /// Which cases to run. A boot that goes on with a run takes them from its journal.
    pub(crate) selection: Vec<String>,
    pub(crate) manifests: Option<PathBuf>,
    pub(crate) payloads: Option<PathBuf>,
    pub(crate) waivers: Vec<PathBuf>,
    /// `--resume`, and the run if it names one.
    pub(crate) resume: Option<Resumed>,
    /// `--timeout-scale`
    pub(crate) timeout_scale: Option<f64>,
    pub(crate) color: Option<String>,
    /// `--report-dir`, which is no folder of the machine's.
    pub(crate) report_dir: Option<PathBuf>,
}

/// The run to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resumed {
    Newest,
    Named(String),
}

impl RunnerArgs {
    /// Takes apart what the user wants from the runner.
    pub(crate) fn of(words: &[OsString]) -> anyhow::Result<Self> {
        let mut args = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let word = word.to_str().with_context(|| format!("{}: not UTF-8", word.display()))?;
            if word == "--" {
                args.selection.push(word.to_owned());
                args.selection.extend(words.map(|word| word.to_string_lossy().into_owned()));
                break;
            }
            let (name, attached) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let mut value = || -> anyhow::Result<String> {
                let next = || words.next().and_then(|word| word.to_str());
                attached.or_else(next).map(str::to_owned).with_context(|| format!("{name} needs a value"))
            };
            match name {
                "--manifests" => args.manifests = Some(value()?.into()),
                "--payloads" => args.payloads = Some(value()?.into()),
                "--waivers" => args.waivers.push(value()?.into()),
                "--report-dir" => args.report_dir = Some(value()?.into()),
                "--color" => args.color = Some(value()?),
                "--resume" => {
                    args.resume =
                        Some(attached.map_or(Resumed::Newest, |run| Resumed::Named(run.to_owned())));
                }
                "--timeout-scale" => {
                    let text = value()?;
                    let scale = text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale > 0.0);
                    args.timeout_scale = Some(
                        scale
                            .with_context(|| format!("--timeout-scale {text}: expected a number above 0"))?,
                    );
                }
                "--device" | "--run-dir" | "--logfile" | "--kernel-log" | "--mirror" | "--lost"
                | "--console" => {
                    bail!(
                        "{name} has no meaning in a bed; its text, results and console are in the run's folder"
                    )
                }
                "--skip" | "--partition" | "--profile" => {
                    args.selection.push(format!("{name}={}", value()?));
                }
                "--test-threads" => {
                    let threads = value()?;
                    if threads != "1" {
                        bail!(
                            "--test-threads {threads}: a bed has one CPU, and a case that kills it must be known; only 1 is possible"
                        );
                    }
                }
                // The only option with a value that may follow a single dash.
                "-Z" => args.rest.push(format!("-Z{}", value()?)),
                "--format" | "--seed" | "--vary" | "--vary-depth" | "--forget" => {
                    args.rest.push(format!("{name}={}", value()?));
                }
                "--exact" | "--ignored" | "--include-ignored" => args.selection.push(word.to_owned()),
                _ if word.starts_with('-') => args.rest.push(word.to_owned()),
                _ => args.selection.push(word.to_owned()),
            }
        }
        if args.resume.is_some() && !args.selection.is_empty() {
            bail!("--resume goes on with the cases of its run; it takes no filters");
        }
        Ok(args)
    }
}

impl RunnerArgs {
    /// Whether each case has to be told of in some form.
    pub(crate) fn asks_for_lines(&self) -> bool {
        let asks = ["-v", "--verbose", "-q", "--quiet", "--nocapture"];
        self.rest.iter().any(|word| asks.contains(&word.as_str()) || word.starts_with("--format="))
    }

    /// Whether standard output is for lines of JSON alone.
    pub(crate) fn wants_json(&self) -> bool {
        self.rest.iter().any(|word| word == "--format=json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<RunnerArgs> {
        RunnerArgs::of(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn files_and_factors_are_taken_out_and_the_rest_goes_through() {
        let args = parse(
            "smm --skip x --waivers=w.toml --seed 3 --waivers v.toml --timeout-scale 2 --exact --color never -q",
        );
        let args = args.unwrap();
        assert_eq!(args.selection, ["smm", "--skip=x", "--exact"]);
        assert_eq!(args.rest, ["--seed=3", "-q"]);
        assert_eq!(args.waivers, [PathBuf::from("w.toml"), "v.toml".into()]);
        assert_eq!(args.timeout_scale, Some(2.0));
        assert_eq!(args.color.as_deref(), Some("never"));
        let args = parse("-Z unstable-options --format json --test-threads=1 smm").unwrap();
        assert_eq!(args.selection, ["smm"]);
        assert_eq!(args.rest, ["-Zunstable-options", "--format=json"]);
        assert!(args.wants_json() && !parse("--format=terse smm").unwrap().wants_json());
        let args = parse("--vary kick,threads --vary-depth 2 --forget tsc state").unwrap();
        assert_eq!(args.selection, ["state"]);
        assert_eq!(args.rest, ["--vary=kick,threads", "--vary-depth=2", "--forget=tsc"]);
        // A boot that goes on with a run takes these from its journal.
        let args = parse("--partition count:2/5 --profile=smm").unwrap();
        assert_eq!(args.selection, ["--partition=count:2/5", "--profile=smm"]);
        assert!(args.rest.is_empty());
        let args = parse("--report-dir=a smm").unwrap();
        assert_eq!((args.report_dir, args.rest.len()), (Some(PathBuf::from("a")), 0));
        assert_eq!(parse("--resume").unwrap().resume, Some(Resumed::Newest));
        assert_eq!(parse("--resume=run").unwrap().resume, Some(Resumed::Named("run".into())));
        assert_eq!(parse("-- --resume").unwrap().selection, ["--", "--resume"]);
    }

    #[test]
    fn what_cannot_work_in_a_bed_is_refused() {
        for wrong in [
            "--logfile x",
            "--device=/dev/kvm",
            "--waivers",
            "--timeout-scale 0",
            "--timeout-scale x",
            "--resume smm",
            "--test-threads 2",
            "--test-threads=x",
            "-Z",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
