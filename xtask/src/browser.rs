//! `cargo xtask browser`: loads the HTML report in a real browser, with and without its script.
//!
//! The runner's own tests look at the page as a parser sees it. What only a browser can tell is here: that the page's
//! policy lets its script run, that filters hide what they should, that nothing of a guest's runs, and that there is
//! something to see, on a screen, a phone and paper. The pictures stay in `target/browser` for people.

mod journal;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, ensure};

use crate::bed::apt::{self, Apt, Sources};
use crate::{build, test};

/// Programs that are a Chromium without a window, or can be.
const NAMES: [&str; 5] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
/// Debian's package of the first.
const PACKAGE: &str = "chromium-headless-shell";

/// `cargo xtask browser`: checks in the browser that is here, or gets one; an error if there is none.
pub(crate) fn run() -> anyhow::Result<()> {
    check(&find()?)?;
    println!("the report works in a browser; pictures of it are in {}", folder().display());
    Ok(())
}

/// The browser of this machine, installed if need be and possible. An error says why there is none.
pub(crate) fn find() -> anyhow::Result<PathBuf> {
    let here = || NAMES.iter().find_map(|name| apt::find_program(name));
    if let Some(browser) = here() {
        return Ok(browser);
    }
    if !apt::is_here() || !nix::unistd::geteuid().is_root() {
        return Err(anyhow!("there is no Chromium; install one: sudo apt-get install {PACKAGE}"));
    }
    let install = |sources: &Sources| Apt::open(sources, &folder())?.install(&[PACKAGE], None);
    install(&Sources::Host).or_else(|_| install(&Sources::HostAnd(None)))?;
    here().with_context(|| format!("{PACKAGE} has none of the programs that are looked for"))
}

/// Makes a report and loads it in this browser.
pub(crate) fn check(browser: &Path) -> anyhow::Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (results, page) = (folder.join("results.jsonl"), folder.join("report.html"));
    fs::write(&results, journal::text()).with_context(|| format!("cannot write {}", results.display()))?;
    let mut report = test::runner();
    report.args(["report", "--format", "html", "--from"]).arg(&results).arg("--output").arg(&page);
    let status = report.status().context("cannot start cargo to make a report")?;
    ensure!(status.success(), "`exitspec report` fails ({status})");
    let browser = Browser { program: browser, folder: &folder };
    with_script(&browser, &page)?;
    without_script(&browser, &page)?;
    pictures(&browser, &page)
}

fn folder() -> PathBuf {
    build::workspace().join("target/browser")
}

/// What the filters leave, and where links lead.
fn with_script(browser: &Browser<'_>, page: &Path) -> anyhow::Result<()> {
    // The parts of the address, and the cases that are left by it.
    let views: [(&str, &[&str]); 6] = [
        ("", &[]),
        ("#?verdict=fail", &["alpha.deviates", "alpha.holds"]),
        ("#?verdict=fail&column=1", &["alpha.deviates"]),
        ("#?text=STALE", &["beta.stale"]),
        ("#?family=beta&verdict=lost", &["beta.lost"]),
        ("#?verdict=pass&family=beta", &[]),
    ];
    for (view, expected) in views {
        let document = browser.document(page, view)?;
        ensure!(document.contains("<title>ExitSpec: Linux 6.12.0"), "{view}: a guest has run a script");
        ensure!(!document.contains("<img"), "{view}: what a guest says is markup");
        ensure!(document.contains(r#"<form id="filter" role="search""#), "{view}: the filter is not shown");
        ensure!(
            document.contains(r#"<button type="button" class="copy">"#),
            "{view}: commands cannot be copied"
        );
        let left = rows_left(&document);
        let all = left.len() == 9;
        let count =
            if view.is_empty() { ">9 cases<".to_owned() } else { format!(">{} of 9 cases<", expected.len()) };
        ensure!(document.contains(&count), "{view}: the number of cases that are left is not told");
        ensure!(if view.is_empty() { all } else { left == expected }, "{view}: the filter leaves {left:?}");
    }
    let closed = browser.document(page, "")?;
    let opened = browser.document(page, "#waived-1")?;
    let waived =
        |document: &str| document.contains(r#"<details class="waived" data-case="alpha.waived" open="""#);
    ensure!(!waived(&closed) && waived(&opened), "a link into what is closed does not open it");
    Ok(())
}

/// The cases whose rows in the matrix are not hidden.
fn rows_left(document: &str) -> Vec<&str> {
    let matrix = document.split_once("<section id=\"matrix\"").map_or("", |(_, rest)| rest);
    let matrix = matrix.split_once("</section>").map_or("", |(matrix, _)| matrix);
    let rows = matrix.split(r#"<tr><th scope="row">"#).skip(1).filter_map(|row| row.split_once("</th>"));
    rows.map(|(name, _)| name).filter(|name| name.contains('.')).collect()
}

/// The same page without its script, as a mail program or a strict browser shows it.
fn without_script(browser: &Browser<'_>, page: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(page).context("cannot read the report")?;
    let (before, rest) = text.split_once("<script>").context("the page has no script")?;
    let (_, after) = rest.split_once("</script>").context("the page's script does not end")?;
    let plain = browser.folder.join("report-without-script.html");
    fs::write(&plain, format!("{before}{after}")).context("cannot write the page without its script")?;
    let document = browser.document(&plain, "")?;
    ensure!(document.contains(r#"<form id="filter" hidden"#), "a filter is shown that does nothing");
    let names = journal::TESTS.iter().map(|(name, _)| *name).chain([journal::LOST]);
    for name in names.filter(|name| !name.contains('~')) {
        ensure!(document.contains(name), "{name} is not in the page without its script");
    }
    for part in
        ["the reset wins", "here they part", "cargo xtask test --exact alpha.deviates", "WARNING: CPU: 0"]
    {
        ensure!(document.contains(part), "`{part}` is not in the page without its script");
    }
    Ok(())
}

/// A screen, a phone, a dark one, and paper.
fn pictures(browser: &Browser<'_>, page: &Path) -> anyhow::Result<()> {
    let views: [(&str, &[&str]); 4] = [
        ("desktop.png", &["--window-size=1280,2400"]),
        ("phone.png", &["--window-size=390,2400"]),
        ("dark.png", &["--window-size=1280,2400", "--blink-settings=preferredColorScheme=0"]),
        ("paper.pdf", &["--no-pdf-header-footer"]),
    ];
    for (name, options) in views {
        let file = browser.folder.join(name);
        let _ = fs::remove_file(&file);
        let kind = if name.ends_with("pdf") { "--print-to-pdf" } else { "--screenshot" };
        let mut command = browser.command(page, "");
        command.args(options).arg(format!("{kind}={}", file.display()));
        let status = command.status().context("cannot start the browser")?;
        let size = fs::metadata(&file).map_or(0, |file| file.len());
        // An empty page of these sizes is some 10 kB.
        ensure!(status.success() && size > 20_000, "{name} shows nothing: {size} bytes");
    }
    Ok(())
}

struct Browser<'a> {
    program: &'a Path,
    folder: &'a Path,
}

impl Browser<'_> {
    fn command(&self, page: &Path, view: &str) -> Command {
        let mut command = Command::new(self.program);
        command.args(["--headless", "--disable-gpu", "--hide-scrollbars", "--timeout=30000"]);
        command.arg(format!("--user-data-dir={}", self.folder.join("profile").display()));
        if nix::unistd::geteuid().is_root() {
            // Chromium refuses to start as root otherwise; the page is ours.
            command.arg("--no-sandbox");
        }
        command.arg(format!("file://{}{view}", page.display()));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The document as it is when its script has run.
    fn document(&self, page: &Path, view: &str) -> anyhow::Result<String> {
        let output =
            self.command(page, view).arg("--dump-dom").output().context("cannot start the browser")?;
        ensure!(output.status.success(), "the browser fails ({})", output.status);
        String::from_utf8(output.stdout).context("the browser's document is not text")
    }
}
