//! Guests that misbehave, on the real device: each is ended in time, and named.
//!
//! Needs `/dev/kvm` and the payloads of `cargo xtask build`; without the device there is nothing to test.

use std::path::Path;

use exitspec::case::{Combo, Pio, Vendor};
use exitspec::manifest;
use exitspec::outcome::{Outcome, Verdict};
use exitspec::stage::{Images, Payloads, Stage};
use exitspec::suite::Play;
use kvm_ioctls::Kvm;

/// Plays `scenario` of the selftest payload, which must give `steps`.
fn play(scenario: &str, machine: &str, steps: &str) -> Option<Outcome> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            eprintln!("no usable /dev/kvm ({error}): nothing to test");
            return None;
        }
    };
    let text = format!(
        r#"
[[case]]
id = "limits.one"
summary = "A guest that misbehaves"
basis = "impl"
reference = ["docs/architecture.md"]
detects = "Guests that are not ended"
payload = "selftest"
scenario = "{scenario}"
machine = {{ {machine} }}
budget = {{ run-ms = 200 }}
steps = [{steps}]
"#
    );
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/x86_64-unknown-linux-gnu/guest");
    let payloads = Payloads::load(&dir).unwrap_or_else(|error| panic!("{error}"));
    let cases =
        manifest::parse("limits.toml", &text, Some(&payloads)).unwrap_or_else(|error| panic!("{error}"));
    let images = Images::new(&payloads, &cases).unwrap_or_else(|error| panic!("{error}"));
    let stage = Stage::new(&payloads, &images, kvm, (Vendor::Software, Pio::Emulated), 1.0, None);
    let stage = stage.unwrap_or_else(|error| panic!("{error}"));
    Some(stage.play(&Play { case: &cases[0], combo: &Combo::PLAIN, seed: 1, only: None }))
}

#[test]
fn a_guest_that_spins_with_interrupts_off_is_ended_and_its_place_named() {
    let Some(outcome) = play("spins", "", r#"{ guest = "done" }"#) else { return };
    assert_eq!(outcome.verdict, Verdict::Timeout);
    assert!(outcome.reason.contains("no exit within 200 ms"), "{}", outcome.reason);
    assert!(outcome.reason.contains("jmp"), "the instruction: {}", outcome.reason);
}

#[test]
fn a_guest_that_halts_for_ever_is_ended() {
    let Some(outcome) = play("halts", r#"irqchip = "kernel""#, r#"{ guest = "done" }"#) else { return };
    assert_eq!(outcome.verdict, Verdict::Timeout);
}

#[test]
fn a_guest_that_floods_the_port_is_ended_and_named() {
    let Some(outcome) = play("floods", "", r#"{ guest = "done" }"#) else { return };
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.reason.contains("floods the report port"), "{}", outcome.reason);
    assert!(outcome.evidence.unwrap().guest.len() <= 64, "what it said is bounded");
}

#[test]
fn a_guest_that_announces_what_is_not_there_is_named() {
    let Some(outcome) = play("lies", "", r#"{ guest = "done" }"#) else { return };
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.reason.contains("0xffffff00, where none is"), "{}", outcome.reason);
}

#[test]
fn a_background_vcpu_that_spins_does_not_outlive_the_case() {
    let steps =
        r#"{ do = "background", cpu = 0 }, { do = "immediate-exit", cpu = 1 }, { exit = "intr", cpu = 1 }"#;
    let Some(outcome) = play("spins", r#"vcpus = 2, irqchip = "kernel""#, steps) else { return };
    // The machine was dropped while vCPU 0 spun, and this line is reached.
    assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.reason);
}

#[test]
fn what_a_guest_says_of_itself_is_the_verdict() {
    let done = r#"{ guest = "done" }"#;
    let Some(outcome) = play("panics", "", done) else { return };
    assert_eq!(outcome.verdict, Verdict::Error);
    assert!(
        outcome.reason.contains("number 7 of 0xabcd (guest-payloads/src/bin/selftest.rs:"),
        "{}",
        outcome.reason
    );
    let outcome = play("check_fails", "", done).unwrap();
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.reason.contains("arithmetic: observed 0x4, expected 0x5"), "{}", outcome.reason);
    let outcome = play("unexpected_fault", "", done).unwrap();
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.reason.contains("#UD (vector 6)"), "{}", outcome.reason);
}

/// The guest is not let in any more, so that the action waits for it in vain.
#[test]
fn an_action_that_misses_its_vcpu_is_the_cases_mistake_unless_the_host_deviates_as_well() {
    let play = |cr2: u64| {
        let steps = format!(
            r#"{{ exit = "hlt" }}, {{ do = "slot-delete", slot = "one", when = "running" }}, {{ check = "sregs", cr2 = {cr2} }}"#
        );
        play("halts", r#"slots = [{ name = "one", gpa = 0x1100_0000, pages = 1 }]"#, &steps)
    };
    let Some(outcome) = play(0) else { return };
    assert_eq!(outcome.verdict, Verdict::Error, "{}", outcome.reason);
    assert!(outcome.reason.contains("meet vCPU 0 in KVM_RUN"), "{}", outcome.reason);
    let Some(outcome) = play(1) else { return };
    assert_eq!(outcome.verdict, Verdict::Fail, "{}", outcome.reason);
    assert!(outcome.reason.contains("cr2: expected 0x1, observed 0x0"), "{}", outcome.reason);
}
