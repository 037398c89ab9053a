//! `emulate`: KVM's emulator executes instructions that the CPU, or another path of KVM, would.
//!
//! Guests have NOPs before such instructions ([`EMULABLE_NOP`](exitspec_protocol::EMULABLE_NOP)). In their place KVM's
//! forced-emulation prefix raises #UD, at which KVM moves RIP behind the prefix, to the instruction, and emulates that.

use std::collections::BTreeMap;

use super::{Variation, uses};
use crate::case::{Case, MachineSpec, Pio, Requires};

/// All prefixes, before the guest starts.
pub(super) struct Emulate;

impl Variation for Emulate {
    fn conflict(&self, case: &Case) -> Option<&'static str> {
        if case.requires.pio == Some(Pio::Fast) {
            return Some("the case is about port I/O that is not emulated");
        }
        uses::debugging(case)
            .then_some("a prefix and its instruction are one step, where the case counts two")
    }

    fn requires(&self) -> Requires {
        // Another bit of it (KVM_FEP_CLEAR_RFLAGS_RF) changes the guest's RFLAGS.
        let params = BTreeMap::from([("kvm.force_emulation_prefix".to_owned(), "1".to_owned())]);
        Requires { params, ..Requires::default() }
    }

    fn slowness(&self) -> u32 {
        4
    }

    fn machine(&self, _: &Case, spec: &mut MachineSpec) {
        spec.forced_emulation = true;
    }

    fn pio(&self) -> Option<Pio> {
        Some(Pio::Emulated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Combo, Vary};
    use crate::host::{HostFacts, missing};
    use crate::{manifest, variation};

    fn case(requires: &str, steps: &str) -> Case {
        let text = format!(
            "[[case]]\nid = \"m.c\"\nsummary = \"s\"\nbasis = \"arch\"\nreference = [\"r\"]\ndetects = \"d\"\n\
             payload = \"p\"\nscenario = \"s\"\nrequires = {{ {requires} }}\nsteps = [{steps}{{ guest = \"done\" }}]\n"
        );
        manifest::parse("m.toml", &text, None).unwrap().remove(0)
    }

    #[test]
    fn it_needs_the_parameter_of_kvm() {
        let why = |value: Option<&str>| {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("sys/module/kvm/parameters");
            std::fs::create_dir_all(&folder).unwrap();
            if let Some(value) = value {
                std::fs::write(folder.join("force_emulation_prefix"), value).unwrap();
            }
            missing(&Emulate.requires(), &HostFacts::read_under(root.path()))
        };
        assert_eq!(why(Some("1\n")), None);
        // It was a boolean once (before Linux 6.2).
        assert_eq!(why(Some("Y\n")), None);
        assert_eq!(why(Some("0\n")).unwrap(), "needs kvm.force_emulation_prefix=1, and it is 0");
        assert_eq!(why(Some("3\n")).unwrap(), "needs kvm.force_emulation_prefix=1, and it is 3");
        assert!(why(None).unwrap().contains("no such module parameter"));
    }

    #[test]
    fn port_io_is_emulated_then_and_a_case_for_the_fast_path_is_left_out() {
        let (emulate, kick) = (Combo::new(vec![Vary::Emulate, Vary::Kick]), Combo::new(vec![Vary::Kick]));
        assert_eq!(variation::pio(&emulate, Pio::Fast), Pio::Emulated);
        assert_eq!(variation::pio(&kick, Pio::Fast), Pio::Fast);
        assert_eq!(Emulate.conflict(&case("", "")), None);
        assert!(Emulate.conflict(&case("pio = \"fast\"", "")).unwrap().contains("not emulated"));
        assert!(variation::machine(&case("", ""), &emulate).forced_emulation);
        assert!(!variation::machine(&case("", ""), &kick).forced_emulation);
    }
}
