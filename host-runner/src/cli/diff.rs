//! The verb `diff`: what changed from one run to another, and nothing else.

use super::args::{DiffArgs, DiffFormat};
use super::begin::usage;
use super::places::runs_folder;
use super::{End, Stop};
use crate::journal::{Recovered, Runs};
use crate::report::Changes;

pub(super) fn run(args: &DiffArgs) -> Result<End, Stop> {
    let runs = Runs::in_folder(&args.run_dir.clone().unwrap_or_else(runs_folder));
    let read = |run: &str| {
        let path = runs.find(Some(run)).map_err(|error| Stop::Usage(error.to_string()))?;
        Recovered::read(&path).map_err(|error| usage(&path, &error))
    };
    let changes = Changes::between(&read(&args.before)?, &read(&args.after)?);
    match args.format {
        DiffFormat::Text => print!("{changes}"),
        DiffFormat::Json => {
            let text = serde_json::to_string_pretty(&changes);
            println!("{}", text.map_err(|error| Stop::Usage(error.to_string()))?);
        }
    }
    Ok(if changes.is_empty() { End::Conforming } else { End::Deviations })
}
