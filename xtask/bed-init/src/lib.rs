//! What a bed's first program and the one who boots it say to each other.
//!
//! The configuration goes in as a file of the initramfs; what happened comes out as lines of JSON on the
//! results channel, between the runner's own. Plain types only; nothing here opens or starts anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the configuration is in the initramfs.
pub const CONFIG: &str = "/bed/config.json";
/// The terminal for results when the configuration cannot be read.
pub const RESULTS: &str = "/dev/ttyS2";
/// Where the modules are in the initramfs.
pub const MODULES: &str = "/bed/modules";

/// The first byte of a line of text that the runner wrote to its standard error.
pub const ERROR_MARK: u8 = 2;

/// What the first program has to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// What runs, one after the other. The first that cannot begin is the last.
    pub turns: Vec<Turn>,
    /// The device that must be there when modules are loaded.
    pub device: String,
    /// The runner's environment.
    pub environment: BTreeMap<String, String>,
    /// The terminal that takes what the runner prints.
    pub text: String,
    /// The terminal that takes results, and [`Event`]s.
    pub results: String,
    /// How the machine goes off.
    #[serde(default)]
    pub power_off: PowerOff,
}

/// Modules, and a runner that runs while they are loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The modules, in the order in which they are loaded; those of the turn before are unloaded then.
    pub modules: Vec<Module>,
    /// Parameters of what is built into the kernel, as `kvm_amd.npt`: they must exist, since the kernel ignores what
    /// it does not know on its command line.
    #[serde(default)]
    pub builtin_params: Vec<String>,
    /// The runner and its arguments.
    pub command: Vec<String>,
}

/// How a machine is switched off from inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerOff {
    /// As the kernel does it.
    #[default]
    Acpi,
    /// By the port that Bochs has for it ("Extensions to the PC architecture", port 0x8900), whatever the kernel
    /// knows of ACPI.
    Bochs,
}

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Its file below [`MODULES`].
    pub file: String,
    /// Its parameters, as insmod takes them: `npt=0 vgif=0`.
    pub params: String,
}

/// A line of the first program on the results channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The modules are loaded, the device is there, the runner is about to start.
    BedUp {
        /// Which of the turns, from 0.
        turn: usize,
    },
    /// The bed cannot be used; the machine goes off.
    BedError {
        /// What does not work.
        message: String,
    },
    /// The runner has ended; the next turn begins, or the machine goes off.
    Exit {
        /// Its exit status.
        status: u8,
    },
}

impl Event {
    /// The line, with its end.
    pub fn line(&self) -> String {
        let text = serde_json::to_string(self);
        // A type of strings and numbers always has a form in JSON.
        text.map_or_else(|_| String::new(), |text| text + "\n")
    }

    /// The event in a line; `None` for the runner's own lines.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_form_that_the_documentation_promises() {
        assert_eq!(Event::BedUp { turn: 2 }.line(), "{\"event\":\"bed-up\",\"turn\":2}\n");
        assert_eq!(Event::Exit { status: 1 }.line(), "{\"event\":\"exit\",\"status\":1}\n");
        let error = Event::BedError { message: "no \"kvm\"".into() };
        assert_eq!(error.line(), "{\"event\":\"bed-error\",\"message\":\"no \\\"kvm\\\"\"}\n");
        assert_eq!(Event::of_line(error.line().as_bytes()), Some(error));
        assert_eq!(Event::of_line(br#"{"event":"started","case":"a.b","at":"now"}"#), None);
    }
}
