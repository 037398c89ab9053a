//! The perturbations under which a case can be played, by name. What they do is in [`variation`](crate::variation).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that the host does to every guest alike, and that no guest may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Vary {
    /// At every exit the whole VM is saved, and restored into a new one.
    SaveRestore,
    /// As `save-restore`, through bytes and into another process, memory included.
    LiveMigration,
    /// KVM_RUN is interrupted: `immediate_exit`, and signals before and while it runs.
    Kick,
    /// The vCPUs' threads hop between the host's CPUs.
    Migrate,
    /// Each KVM_RUN comes from another thread.
    Threads,
    /// The guest's pages and the APIC-access page are dropped, paged out, made huge and split.
    PageChurn,
    /// Dirty logging goes on and off, and every page that changed must be reported.
    DirtyLog,
    /// As `dirty-log`, by the dirty ring.
    DirtyRing,
    /// An unrelated memslot comes and goes, and the guest's memory moves to other host addresses.
    MemslotChurn,
    /// KVM_GUESTDBG_SINGLESTEP over the whole guest.
    SingleStep,
    /// KVM_CAP_SPLIT_IRQCHIP, where the case has no interrupt controller and does not care.
    IrqchipSplit,
    /// KVM_CREATE_IRQCHIP, where the case has no interrupt controller and does not care.
    IrqchipKernel,
    /// CPUID without what the case does not need.
    CpuidMin,
    /// Unrelated coalesced zones and ioeventfds exist.
    Coalesce,
    /// KVM emulates instructions that the CPU would run.
    Emulate,
}

impl Vary {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::SaveRestore,
        Self::LiveMigration,
        Self::Kick,
        Self::Migrate,
        Self::Threads,
        Self::PageChurn,
        Self::DirtyLog,
        Self::DirtyRing,
        Self::MemslotChurn,
        Self::SingleStep,
        Self::IrqchipSplit,
        Self::IrqchipKernel,
        Self::CpuidMin,
        Self::Coalesce,
        Self::Emulate,
    ];

    /// The name on command lines and in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SaveRestore => "save-restore",
            Self::LiveMigration => "live-migration",
            Self::Kick => "kick",
            Self::Migrate => "migrate",
            Self::Threads => "threads",
            Self::PageChurn => "page-churn",
            Self::DirtyLog => "dirty-log",
            Self::DirtyRing => "dirty-ring",
            Self::MemslotChurn => "memslot-churn",
            Self::SingleStep => "single-step",
            Self::IrqchipSplit => "irqchip-split",
            Self::IrqchipKernel => "irqchip-kernel",
            Self::CpuidMin => "cpuid-min",
            Self::Coalesce => "coalesce",
            Self::Emulate => "emulate",
        }
    }
}

impl fmt::Display for Vary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Vary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|vary| vary.name() == text);
        found.ok_or_else(|| format!("there is no variation `{text}`; there are {}", names()))
    }
}

/// The perturbations of one test: none is the case as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Combo(Vec<Vary>);

impl Combo {
    /// The case as it is.
    pub const PLAIN: Self = Self(Vec::new());

    /// These together, in the order of [`Vary::ALL`], each once.
    pub fn new(mut varies: Vec<Vary>) -> Self {
        varies.sort_unstable();
        varies.dedup();
        Self(varies)
    }

    /// The perturbations.
    pub fn varies(&self) -> &[Vary] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_plain(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the test of this case: `port-io.in~kick+migrate`.
    pub fn test_name(&self, case: &str) -> String {
        if self.is_plain() { case.to_owned() } else { format!("{case}~{self}") }
    }

    /// What [`test_name`](Self::test_name) was made of; `None` if it cannot have been.
    pub fn of_test(name: &str) -> Option<(&str, Self)> {
        let Some((case, names)) = name.split_once('~') else { return Some((name, Self::PLAIN)) };
        let varies = names.split('+').map(str::parse).collect::<Result<Vec<_>, _>>().ok()?;
        Some((case, Self::new(varies)))
    }

    /// What is played when these are asked for: each alone, and with `depth` 2 every two of them together.
    pub fn of(varies: &[Vary], depth: u8) -> Vec<Self> {
        let mut combos: Vec<Self> = varies.iter().map(|vary| Self::new(vec![*vary])).collect();
        if depth > 1 {
            for (index, first) in varies.iter().enumerate() {
                combos.extend(varies[index + 1..].iter().map(|second| Self::new(vec![*first, *second])));
            }
        }
        combos
    }
}

impl fmt::Display for Combo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(|vary| vary.name()).collect::<Vec<_>>().join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for vary in Vary::ALL {
            assert_eq!(vary.name().parse(), Ok(vary));
            assert_eq!(serde_json::to_value(vary).unwrap(), vary.name());
        }
        assert!("kicks".parse::<Vary>().unwrap_err().contains("single-step"));
    }

    #[test]
    fn a_test_is_a_case_and_its_perturbations() {
        let both = Combo::new(vec![Vary::Migrate, Vary::Kick, Vary::Kick]);
        assert_eq!(both.test_name("a.b"), "a.b~kick+migrate");
        assert_eq!(Combo::of_test("a.b~migrate+kick"), Some(("a.b", both)));
        assert_eq!(Combo::of_test("a.b"), Some(("a.b", Combo::PLAIN)));
        assert_eq!(Combo::PLAIN.test_name("a.b"), "a.b");
        assert_eq!(Combo::of_test("a.b~kicks"), None);
    }

    #[test]
    fn depth_two_has_every_pair_once() {
        let three = [Vary::Kick, Vary::Migrate, Vary::Threads];
        let names = |depth| Combo::of(&three, depth).iter().map(Combo::to_string).collect::<Vec<_>>();
        assert_eq!(names(1), ["kick", "migrate", "threads"]);
        assert_eq!(names(2)[3..], ["kick+migrate", "kick+threads", "migrate+threads"]);
    }
}
