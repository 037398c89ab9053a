//! The tools that read the reports, on reports with every verdict: the kernel's parser of KTAP, KernelCI's library,
//! Jenkins' schema of JUnit XML, the schema of SARIF, and cargo-nextest on the harness.
//!
//! They are fetched from Debian, PyPI and crates.io into `target/consumers`, once. What cannot be had is left out, which is
//! said; a tool that is there and finds a mistake is a failure.

mod nextest;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::bed::{self, apt};
use crate::build;

/// The versions that the reports were tried with.
const PYTHON: &[&str] = &["kcidb-io==141", "jsonschema==4.26.0", "xmlschema==4.3.2"];
const PYTEST: &str = "pytest==8.4.2";
const SARIF: &str = "serde-sarif = { version = \"=0.8.0\", default-features = false }";
/// The kernel whose parser of KTAP is asked.
const KERNEL: &str = "6.12";

/// The test that leaves the reports, and the variable that says where.
const TEST: &str = "no_verdict_is_lost_in_any_format";
const KEEP: &str = "EXITSPEC_KEEP_REPORTS";

/// `cargo xtask consumers`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail where a tool cannot be had, instead of leaving it out.
    #[arg(long)]
    require: bool,
}

/// As `cargo xtask ci` does it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    check(args.require)
}

/// A tool, or what it takes to run one.
struct Consumer {
    name: &'static str,
    /// Fetches it, unless it is there.
    get: fn(&Path) -> anyhow::Result<()>,
    /// The command that ends with an error if the report is not as it must be.
    check: fn(&Path) -> Command,
}

const CONSUMERS: &[Consumer] = &[
    Consumer { name: "KTAP: the kernel's kunit_parser.py", get: kunit, check: check_ktap },
    Consumer { name: "KCIDB: kcidb-io", get: python, check: check_kcidb },
    Consumer { name: "JUnit XML: Jenkins' schema", get: xsd, check: check_junit },
    Consumer { name: "SARIF: its schema", get: sarif_schema, check: check_sarif },
];

/// Lets each of them read its report. With `required`, one that cannot be had is an error.
pub(crate) fn check(required: bool) -> anyhow::Result<()> {
    let folder = build::workspace().join("target").join("consumers");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    make_reports(&folder)?;
    for consumer in CONSUMERS {
        match (consumer.get)(&folder) {
            Ok(()) => good(&mut (consumer.check)(&folder)).with_context(|| consumer.name)?,
            Err(why) if required => return Err(why).context(consumer.name),
            Err(why) => {
                println!("left out, since it cannot be had here: {}: {why:#}", consumer.name);
                continue;
            }
        }
        println!("{}: good", consumer.name);
    }
    nextest::check(required)
}

fn make_reports(folder: &Path) -> anyhow::Result<()> {
    let mut cargo = build::cargo();
    cargo.current_dir(build::workspace()).args([
        "test",
        "--quiet",
        "--package",
        "host-runner",
        "--test",
        "runner",
    ]);
    cargo.args(["--", "--exact", TEST]).env(KEEP, reports(folder));
    good(&mut cargo).context("the reports cannot be made")
}

fn reports(folder: &Path) -> PathBuf {
    folder.join("reports")
}

fn kunit(folder: &Path) -> anyhow::Result<()> {
    if !has_python() {
        bail!("python3 is not installed");
    }
    let home = folder.join("kunit");
    if home.join("kunit_parser.py").is_file() {
        return Ok(());
    }
    if !apt::is_here() {
        bail!("it is in the kernel's source, which is fetched by apt, and that is not here");
    }
    let place = tempfile::tempdir_in(folder).context("cannot make a folder to unpack in")?;
    let from =
        bed::kernel::small::part_of_source(KERNEL, "tools/testing/kunit", &bed::folder(), place.path())?;
    fs::rename(from, &home).with_context(|| format!("cannot make {}", home.display()))
}

fn check_ktap(folder: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg(script("kunit.py")).arg(folder.join("kunit")).arg(reports(folder).join("ktap.txt"));
    // A pass is one, and so is a waived deviation; the parser knows no other directive than SKIP.
    command.args(["3", "6", "0", "1", "0"]);
    command
}

fn python(folder: &Path) -> anyhow::Result<()> {
    let home = folder.join("venv");
    if home.join("complete").is_file() {
        return Ok(());
    }
    if !has_python() {
        bail!("python3 is not installed");
    }
    output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    output(pip(folder).args(["install", "--quiet"]).args(PYTHON))?;
    fs::write(home.join("complete"), PYTHON.join("\n")).context("cannot write target/consumers/venv")
}

fn check_kcidb(folder: &Path) -> Command {
    let mut command = Command::new(folder.join("venv/bin/python"));
    command.arg(script("kcidb.py")).arg(reports(folder).join("kcidb.json"));
    command.arg(r#"{"PASS": 3, "FAIL": 5, "ERROR": 1, "SKIP": 1}"#);
    command
}

/// Where pytest's source has Jenkins' schema.
const XSD: &str = "testing/example_scripts/junit-10.xsd";

fn xsd(folder: &Path) -> anyhow::Result<()> {
    python(folder)?;
    if folder.join("junit-10.xsd").is_file() {
        return Ok(());
    }
    let place = tempfile::tempdir_in(folder).context("cannot make a folder to unpack in")?;
    let mut command = pip(folder);
    command.args(["download", "--quiet", "--no-deps", "--no-binary", ":all:", PYTEST, "--dest"]);
    output(command.arg(place.path()))?;
    let name = PYTEST.replace("==", "-");
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(place.path().join(format!("{name}.tar.gz"))).arg("-C").arg(place.path());
    output(tar.arg(format!("{name}/{XSD}")))?;
    fs::rename(place.path().join(name).join(XSD), folder.join("junit-10.xsd"))
        .context("pytest's source lacks it")
}

fn check_junit(folder: &Path) -> Command {
    let mut command = Command::new(folder.join("venv/bin/python"));
    command.arg(script("junit.py")).arg(folder.join("junit-10.xsd")).arg(reports(folder).join("junit.xml"));
    command
}

fn sarif_schema(folder: &Path) -> anyhow::Result<()> {
    python(folder)?;
    if folder.join("sarif.json").is_file() {
        return Ok(());
    }
    // A package of its own, so that cargo fetches the crate and nothing here depends on it.
    let home = folder.join("sarif");
    let manifest = format!(
        "[package]\nname = \"fetch\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n[dependencies]\n{SARIF}\n[workspace]\n"
    );
    let write = || {
        fs::create_dir_all(&home)?;
        fs::write(home.join("lib.rs"), "")?;
        fs::write(home.join("Cargo.toml"), manifest)
    };
    write().with_context(|| format!("cannot write in {}", home.display()))?;
    let mut cargo = build::cargo();
    let found = output(cargo.current_dir(&home).args(["metadata", "--quiet", "--format-version", "1"]))?;
    let found: serde_json::Value =
        serde_json::from_slice(&found).context("what cargo says of serde-sarif")?;
    let mut packages = found["packages"].as_array().into_iter().flatten();
    let package = packages.find(|package| package["name"] == "serde-sarif");
    let place =
        package.and_then(|package| package["manifest_path"].as_str()).context("cargo has no serde-sarif")?;
    fs::copy(Path::new(place).with_file_name("src").join("schema.json"), folder.join("sarif.json"))
        .map(drop)
        .context("serde-sarif lacks the schema")
}

fn check_sarif(folder: &Path) -> Command {
    let mut command = Command::new(folder.join("venv/bin/python"));
    command.arg(script("sarif.py")).arg(folder.join("sarif.json")).arg(reports(folder).join("report.sarif"));
    command
}

fn has_python() -> bool {
    apt::find_program("python3").is_some()
}

fn pip(folder: &Path) -> Command {
    let mut command = Command::new(folder.join("venv/bin/python"));
    command.args(["-m", "pip", "--disable-pip-version-check"]);
    command
}

fn script(name: &str) -> PathBuf {
    build::workspace().join("xtask").join("consumers").join(name)
}

/// Runs a command; an error, with what it said, unless it ends well.
fn good(command: &mut Command) -> anyhow::Result<()> {
    output(command).map(drop)
}

/// What a command prints.
fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{name} ({}):\n{}\n{}", output.status, out.trim_end(), err.trim_end());
    }
    Ok(output.stdout)
}
