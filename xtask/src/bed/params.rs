//! Parameters of KVM's modules, as the user gives them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::kind::Kind;

/// What stands for the module of a bare name until the bed is known.
const BARE: &str = "";

/// Parameters by module; the later of two for the same name wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Params(BTreeMap<(String, String), String>);

impl Params {
    /// These and those; those win.
    pub(crate) fn and(&self, those: &Self) -> Self {
        let mut both = self.clone();
        both.0.extend(those.0.clone());
        both
    }

    /// The same for a kind of bed: bare names are its module's. Fails on another bed's.
    pub(crate) fn of_bed(self, kind: Kind) -> anyhow::Result<Self> {
        let mut params = BTreeMap::new();
        for ((module, name), value) in self.0 {
            let own = if module == BARE { kind.module().to_owned() } else { module };
            if own != "kvm" && own != kind.module() {
                anyhow::bail!(
                    "{own}.{name} is no parameter of the bed {kind}: there are kvm and {}",
                    kind.module()
                );
            }
            params.insert((own, name), value);
        }
        Ok(Self(params))
    }

    /// The parameters of one module, as insmod takes them.
    pub(crate) fn of(&self, module: &str) -> String {
        let own = self.0.iter().filter(|((owner, _), _)| owner == module);
        own.map(|((_, name), value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// Fails if this module has no such parameter; the kernel would only ignore it.
    pub(crate) fn check(&self, module: &str, known: &[String]) -> anyhow::Result<()> {
        for (owner, name) in self.0.keys() {
            if owner == module && !known.contains(name) {
                anyhow::bail!("{module} has no parameter {name}; it has {}", known.join(", "));
            }
        }
        Ok(())
    }

    /// Those of other modules than these, as `kvm_amd.npt`.
    pub(crate) fn besides(&self, modules: &[&str]) -> Vec<String> {
        let others = self.0.keys().filter(|(module, _)| !modules.contains(&module.as_str()));
        others.map(|(module, name)| format!("{module}.{name}")).collect()
    }

    /// The parameters of every module, as the kernel's command line takes them for what is built in.
    pub(crate) fn words(&self) -> Vec<String> {
        self.0.iter().map(|((module, name), value)| format!("{module}.{name}={value}")).collect()
    }
}

impl FromStr for Params {
    type Err = String;

    /// `npt=0,kvm.ignore_msrs=1`; `+` does for the comma, and `default` is no parameter at all.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut params = BTreeMap::new();
        for word in text.split([',', '+']).filter(|word| *word != "default") {
            let (name, value) =
                word.split_once('=').ok_or_else(|| format!("`{word}`: expected NAME=VALUE"))?;
            let (module, name) = name.split_once('.').unwrap_or((BARE, name));
            let module = module.replace('-', "_");
            if ![BARE, "kvm", "kvm_amd", "kvm_intel"].contains(&module.as_str()) {
                return Err(format!("`{word}`: expected a parameter of kvm, kvm_amd or kvm_intel"));
            }
            // They end up in a command line where a space or a quote would begin something else.
            let fits = |text: &str| {
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-:.".contains(&b))
            };
            if !fits(name) || !fits(value) {
                return Err(format!("`{word}`: names and values are letters, digits and _"));
            }
            params.insert((module, name.to_owned()), value.to_owned());
        }
        Ok(Self(params))
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("default");
        }
        let words = self.0.iter().map(|((module, name), value)| {
            // A bed has only one module besides kvm.
            if module == "kvm" { format!("kvm.{name}={value}") } else { format!("{name}={value}") }
        });
        f.write_str(&words.collect::<Vec<_>>().join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_are_the_beds_and_the_later_wins() {
        let params: Params = "npt=0,kvm.ignore_msrs=1+kvm-amd.vgif=0,npt=1".parse().unwrap();
        assert!(params.clone().of_bed(Kind::Intel).is_err());
        let params = params.of_bed(Kind::Amd).unwrap();
        let intel = "ept=0".parse::<Params>().unwrap().of_bed(Kind::Intel).unwrap();
        assert_eq!(intel.of("kvm_intel"), "ept=0");
        assert_eq!(intel.to_string(), "ept=0");
        assert_eq!(params.of("kvm_amd"), "npt=1 vgif=0");
        assert_eq!(params.of("kvm"), "ignore_msrs=1");
        assert_eq!(params.of("ccp"), "");
        assert_eq!(params.words(), ["kvm.ignore_msrs=1", "kvm_amd.npt=1", "kvm_amd.vgif=0"]);
        assert_eq!(params.besides(&["kvm_amd", "ccp"]), ["kvm.ignore_msrs"]);
        assert_eq!(params.besides(&[]).len(), 3);
        let both = params.and(&"kvm_amd.vgif=1".parse().unwrap());
        assert_eq!(both.to_string(), "kvm.ignore_msrs=1+npt=1+vgif=1");
        let again: Params = both.to_string().parse().unwrap();
        assert_eq!(again.of_bed(Kind::Amd).unwrap(), both);
        assert_eq!("default".parse(), Ok(Params::default()));
        let known = ["npt".to_owned(), "vgif".to_owned()];
        assert!(params.check("kvm_amd", &known).is_ok());
        assert!(params.check("kvm_amd", &known[..1]).unwrap_err().to_string().contains("no parameter vgif"));
    }

    #[test]
    fn what_is_no_parameter_is_refused() {
        for wrong in ["", "npt", "npt=", "=0", "npt=0 panic=1", "npt=\"0\"", "ccp.x=0", "npt=0,,vgif=0"] {
            assert!(wrong.parse::<Params>().is_err(), "{wrong}");
        }
    }
}
