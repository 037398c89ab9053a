//! The part of the suite that some cases are in: their families' manifests, and the waivers of those.
//!
//! An emulated CPU reads manifests for longer than it plays a case, so a machine gets no others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;
use toml::{Table, Value};

use super::cases::family;

/// Parts of a suite, made when they are first needed.
#[derive(Debug)]
pub(crate) struct Parts {
    manifests: PathBuf,
    home: Option<TempDir>,
    made: BTreeMap<BTreeSet<String>, PathBuf>,
}

impl Parts {
    /// Parts of the suite in this folder.
    pub(crate) fn of(manifests: PathBuf) -> Self {
        Self { manifests, home: None, made: BTreeMap::new() }
    }

    /// A folder with the manifests of these cases' families, and their waivers.
    pub(crate) fn with(&mut self, cases: &[String]) -> anyhow::Result<PathBuf> {
        let families: BTreeSet<String> = cases.iter().map(|case| family(case).to_owned()).collect();
        if let Some(place) = self.made.get(&families) {
            return Ok(place.clone());
        }
        let home = match self.home.take() {
            Some(home) => home,
            None => tempfile::tempdir().context("cannot make a folder for manifests")?,
        };
        let place = self.home.insert(home).path().join(self.made.len().to_string());
        make(&self.manifests, &families, &place)
            .with_context(|| format!("cannot copy manifests to {}", place.display()))?;
        self.made.insert(families, place.clone());
        Ok(place)
    }
}

fn make(manifests: &Path, families: &BTreeSet<String>, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to.join("waivers"))?;
    for family in families {
        let name = format!("{family}.toml");
        fs::copy(manifests.join(&name), to.join(&name)).context(name)?;
    }
    let waivers = manifests.join("waivers");
    if waivers.is_dir() {
        for entry in fs::read_dir(&waivers)? {
            let path = entry?.path();
            let named = || path.display().to_string();
            if path.extension().is_some_and(|ending| ending == "toml") {
                let text = fs::read_to_string(&path).with_context(named)?;
                let text = waivers_of(&text, families).with_context(named)?;
                fs::write(to.join("waivers").join(path.file_name().unwrap_or_default()), text)?;
            }
        }
    }
    Ok(())
}

/// The waivers for cases of these families: the runner refuses one for a case that it does not have.
fn waivers_of(text: &str, families: &BTreeSet<String>) -> anyhow::Result<String> {
    let here = |id: &Value| id.as_str().is_some_and(|id| id == "*" || families.contains(family(id)));
    let mut file: Table = text.parse()?;
    if let Some(Value::Array(waivers)) = file.get_mut("waiver") {
        waivers.retain_mut(|waiver| {
            let Value::Table(waiver) = waiver else { return true };
            if !waiver.get("case").is_none_or(here) {
                waiver.remove("case");
            }
            if let Some(Value::Array(cases)) = waiver.get_mut("cases") {
                cases.retain(here);
                if cases.is_empty() {
                    waiver.remove("cases");
                }
            }
            waiver.contains_key("case") || waiver.contains_key("cases")
        });
    }
    Ok(toml::to_string(&file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_part_has_its_families_and_the_same_families_are_one_part() {
        let suite = tempfile::tempdir().unwrap();
        fs::create_dir(suite.path().join("waivers")).unwrap();
        for name in ["smm", "kick", "smm-rsm", "waivers/bed-amd"] {
            fs::write(suite.path().join(format!("{name}.toml")), "").unwrap();
        }
        let mut parts = Parts::of(suite.path().to_owned());
        let cases = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let one = parts.with(&cases(&["smm.a", "smm.b~kick"])).unwrap();
        assert_eq!(names(&one), ["smm.toml", "waivers"]);
        assert_eq!(names(&one.join("waivers")), ["bed-amd.toml"]);
        assert_eq!(parts.with(&cases(&["smm.c"])).unwrap(), one);
        let two = parts.with(&cases(&["kick.a", "smm.a"])).unwrap();
        assert_eq!(names(&two), ["kick.toml", "smm.toml", "waivers"]);
        let error = format!("{:#}", parts.with(&cases(&["none.a"])).unwrap_err());
        assert!(error.contains("none.toml"), "{error}");
    }

    #[test]
    fn waivers_for_other_families_are_left_out() {
        let text = r#"
            waiver = [
                { case = "smm.a", reason = "1" },
                { case = "smm-rsm.a", reason = "2" },
                { cases = ["kick.a", "smm.b", "smm.*"], reason = "3" },
                { cases = ["kick.a"], reason = "4" },
                { case = "*", reason = "5" },
                { case = "kick.*", reason = "6" },
            ]
        "#;
        let families = ["smm".to_owned()].into();
        let part: Table = waivers_of(text, &families).unwrap().parse().unwrap();
        let expected: Table = r#"
            waiver = [
                { case = "smm.a", reason = "1" },
                { cases = ["smm.b", "smm.*"], reason = "3" },
                { case = "*", reason = "5" },
            ]
        "#
        .parse()
        .unwrap();
        assert_eq!(part, expected);
    }
}
