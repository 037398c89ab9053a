//! `make` in a kernel's source: its words go to a log, of which a failure shows the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// What the small kernel is made of.
pub(super) const FRAGMENT: &str = include_str!("../../../kernel/bed.config");

/// A source and where it is built.
#[derive(Debug)]
pub(super) struct Make<'a> {
    pub(super) tree: &'a Path,
    /// Another folder for everything that is built; `None`: the tree itself.
    pub(super) output: Option<&'a Path>,
    /// Where logs and the fragment go.
    pub(super) place: &'a Path,
}

impl Make<'_> {
    /// Runs make.
    pub(super) fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let log = self.place.join("build.log");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| log.display().to_string())?;
        run(self.tree, (&log, &file), |command| {
            command.args(self.output.map(|to| format!("O={}", to.display())));
            command.args(arguments).env("KCONFIG_ALLCONFIG", self.fragment());
        })
    }

    /// Runs make with as many jobs as there are CPUs.
    pub(super) fn build(&self, targets: &[&str]) -> anyhow::Result<()> {
        let parallel = in_parallel();
        let parallel = parallel.each_ref().map(String::as_str);
        self.run(&[&parallel, targets].concat())
    }

    /// Makes the small kernel's configuration; the symbols that `series` does not take.
    pub(super) fn configure(&self, series: &str) -> anyhow::Result<Vec<&'static str>> {
        let fragment = self.fragment();
        fs::write(&fragment, FRAGMENT).with_context(|| fragment.display().to_string())?;
        self.run(&["-s", "allnoconfig"])?;
        let config = self.output.unwrap_or(self.tree).join(".config");
        let config = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
        Ok(not_taken(FRAGMENT, &config, series))
    }

    /// Where the configuration's source is while it builds.
    pub(super) fn fragment(&self) -> PathBuf {
        self.place.join("fragment")
    }
}

/// As many jobs as there are CPUs, and only what goes wrong.
pub(super) fn in_parallel() -> [String; 2] {
    ["-s".to_owned(), format!("-j{}", std::thread::available_parallelism().map_or(1, std::num::NonZero::get))]
}

/// Runs make in a tree, with what `asked` adds; the end of what it said if it fails. It and whatever it starts have
/// the log open for as long as they run.
pub(super) fn run(
    tree: &Path,
    (log, file): (&Path, &File),
    asked: impl FnOnce(&mut Command),
) -> anyhow::Result<()> {
    let mut command = Command::new("make");
    command.current_dir(tree).arg("ARCH=x86_64");
    asked(&mut command);
    // The same source gives the same kernel, whoever builds it.
    command.env("KBUILD_BUILD_USER", "exitspec").env("KBUILD_BUILD_HOST", "bed");
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
    if !command.status().context("cannot start make")?.success() {
        let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n    ");
        bail!("the kernel does not build; {} ends with\n    {last}", log.display());
    }
    Ok(())
}

/// The symbols of the fragment that a configuration has otherwise.
fn not_taken<'a>(fragment: &'a str, config: &str, series: &str) -> Vec<&'a str> {
    let numbers = |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    let taken = |line: &&str| {
        let (setting, remark) = line.split_once('#').unwrap_or((line, ""));
        let setting = setting.trim();
        let Some((symbol, value)) = setting.split_once('=') else { return true };
        let since = remark.trim().strip_prefix("from ").and_then(|rest| rest.split(' ').next());
        if since.is_some_and(|since| numbers(series) < numbers(since)) {
            return true;
        }
        let mut lines = config.lines();
        if value == "n" {
            let set = format!("{symbol}=");
            !lines.any(|line| line.starts_with(&set))
        } else {
            lines.any(|line| line == setting)
        }
    };
    let lost = fragment.lines().filter(|line| line.starts_with("CONFIG_")).filter(|line| !taken(line));
    lost.filter_map(|line| line.split('=').next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_that_is_not_taken_is_named() {
        let fragment =
            "# text\nCONFIG_A=y\nCONFIG_B=m   # why\nCONFIG_C=n\nCONFIG_D=4\nCONFIG_E=y # from 6.3 on; x\n";
        let good = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=4\nCONFIG_E=y\n";
        assert!(not_taken(fragment, good, "6.12").is_empty());
        let without = good.replace("CONFIG_E=y\n", "");
        assert!(not_taken(fragment, &without, "5.10").is_empty());
        assert!(not_taken(fragment, &without, "6.2").is_empty());
        assert_eq!(not_taken(fragment, &without, "6.12"), ["CONFIG_E"]);
        let bad = "CONFIG_A=m\nCONFIG_BB=m\nCONFIG_C=y\nCONFIG_D=44\nCONFIG_E=y\n";
        assert_eq!(not_taken(fragment, bad, "6.12"), ["CONFIG_A", "CONFIG_B", "CONFIG_C", "CONFIG_D"]);
    }
}
