//! ExitSpec: boots bare-metal guests on `/dev/kvm` and judges the exits that the host sees.
//!
//! Data flows one way: `manifest` -> `case` -> `machine` -> `play` -> `outcome` -> `report`.

pub mod bank;
pub mod case;
pub mod certificate;
pub mod cli;
pub mod exit;
pub mod host;
pub mod isolate;
pub mod journal;
pub mod kernel_log;
pub mod machine;
pub mod manifest;
pub mod nested;
pub mod outcome;
pub mod own_suite;
pub mod payload;
pub mod play;
pub mod profile;
pub mod report;
pub mod smram;
pub mod stage;
pub mod suite;
pub mod variation;
pub mod waivers;
