//! The verb `report`: one or several runs in the formats that other tools read, made from their journals.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::args::ReportArgs;
use super::places::runs_folder;
use super::{End, Stop};
use crate::journal::Runs;
use crate::manifest;
use crate::report::{Results, github, html, json, junit, kcidb, ktap, sarif};

/// A format of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A page for people: one file that needs neither network nor scripts
    Html,
    /// JUnit XML, which most CI systems show
    Junit,
    /// KTAP version 1, which kernel CI reads
    Ktap,
    /// JSON for KernelCI's database, schema 5.3
    Kcidb,
    /// SARIF 2.1.0, for code scanning: findings at the manifests' lines
    Sarif,
    /// GitHub's workflow commands, which annotate the manifests' lines
    Github,
    /// Everything, as one JSON document; `--schema` prints its schema
    Json,
}

impl Format {
    /// The file's name where several formats are written.
    const fn file(self) -> &'static str {
        match self {
            Self::Html => "report.html",
            Self::Junit => "junit.xml",
            Self::Ktap => "ktap.txt",
            Self::Kcidb => "kcidb.json",
            Self::Sarif => "report.sarif",
            Self::Github => "github.txt",
            Self::Json => "report.json",
        }
    }

    /// The report.
    fn text(self, results: &Results, about: &About) -> Result<String, String> {
        match self {
            Self::Html => Ok(html::page(results)),
            Self::Junit => junit::text(results),
            Self::Ktap => Ok(ktap::text(results)),
            Self::Kcidb => kcidb::text(results, &about.origin),
            Self::Sarif => sarif::text(results, &about.sources),
            Self::Github => Ok(github::text(results, &about.sources)),
            Self::Json => json::text(results),
        }
    }
}

/// Where the manifests are in the repository of ExitSpec itself.
pub(super) const SOURCES: &str = "test-manifests";
/// Who reports, if nobody says.
pub(super) const ORIGIN: &str = "exitspec";

/// What reports say besides the results.
pub(super) struct About {
    /// Where the manifests are in their repository, for reports that point into it.
    pub(super) sources: String,
    /// Who reports, for formats that collect from many.
    pub(super) origin: String,
}

pub(super) fn run(args: &ReportArgs) -> Result<End, Stop> {
    if args.schema {
        println!("{:#}", json::schema());
        return Ok(End::Conforming);
    }
    let runs = Runs::in_folder(&args.run_dir.clone().unwrap_or_else(runs_folder));
    let newest = ["latest".to_owned()];
    // Mistakes alone need no run.
    let wanted = if args.from.is_empty() && args.manifests.is_none() { &newest[..] } else { &args.from };
    let journals = wanted.iter().map(|run| runs.find(Some(run))).collect::<Result<Vec<_>, _>>();
    let mut results = journals.and_then(|journals| Results::read(&journals)).map_err(usage)?;
    if let Some(folder) = &args.manifests
        && let Err(mistakes) = manifest::load_dir(folder, None)
    {
        results.mistakes = mistakes.iter().cloned().collect();
    }
    let about = About { sources: args.sources.clone(), origin: args.origin.clone() };
    match (&args.format[..], &args.output) {
        ([format], output) => {
            let text = format.text(&results, &about).map_err(Stop::Usage)?;
            match output.as_deref().filter(|path| *path != Path::new("-")) {
                Some(path) => fs::write(path, text).map_err(|error| named(path, &error))?,
                None => std::io::stdout().write_all(text.as_bytes()).map_err(usage)?,
            }
        }
        (_, None) => {
            return Err(Stop::Usage("name one --format, or by --output a folder for several".to_owned()));
        }
        (formats, Some(folder)) => write_all(formats, &results, &about, folder)?,
    }
    Ok(End::Conforming)
}

/// Writes each format into its file in a folder; all of them if none is named.
pub(super) fn write_all(
    formats: &[Format],
    results: &Results,
    about: &About,
    folder: &Path,
) -> Result<(), Stop> {
    fs::create_dir_all(folder).map_err(|error| named(folder, &error))?;
    let formats = if formats.is_empty() { Format::value_variants() } else { formats };
    for format in formats {
        let path: PathBuf = folder.join(format.file());
        let text = format.text(results, about).map_err(Stop::Usage)?;
        fs::write(&path, text).map_err(|error| named(&path, &error))?;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn usage(error: std::io::Error) -> Stop {
    Stop::Usage(error.to_string())
}

fn named(path: &Path, error: &std::io::Error) -> Stop {
    Stop::Usage(format!("{}: {error}", path.display()))
}
