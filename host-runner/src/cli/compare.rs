//! The verb `compare`: the verdicts of several runs side by side.

use std::path::Path;

use super::args::CompareArgs;
use super::places::runs_folder;
use super::{End, Stop};
use crate::journal::{Recovered, Runs};
use crate::report::{Column, Rows, Table, Variations};

pub(super) fn run(args: &CompareArgs) -> Result<End, Stop> {
    let runs = Runs::in_folder(&args.run_dir.clone().unwrap_or_else(runs_folder));
    let columns: Vec<Column> = args.runs.iter().map(|run| column(&runs, run)).collect::<Result<_, _>>()?;
    if args.variations {
        for Column { name, outcomes, .. } in &columns {
            let rows = if args.all { Rows::All } else { Rows::Deviating };
            println!("{name}\n{}", Variations::new(outcomes, rows));
        }
        return Ok(if Table::new(columns, false).conforms() { End::Conforming } else { End::Deviations });
    }
    let table = Table::new(columns, args.all);
    print!("{table}");
    Ok(if table.conforms() { End::Conforming } else { End::Deviations })
}

fn column(runs: &Runs, run: &str) -> Result<Column, Stop> {
    let path = runs.find(Some(run)).map_err(|error| Stop::Usage(error.to_string()))?;
    let usage = |error: std::io::Error| Stop::Usage(format!("{}: {error}", path.display()));
    let Recovered { header, finished, .. } = Recovered::read(&path).map_err(usage)?;
    let name = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    Ok(Column { name, host: header.host, selected: header.selected, outcomes: finished })
}
