//! Good manifests become the cases that they say.

use super::{GOOD, fine, read};
use crate::bank::Bank;
use crate::case::{Action, DataExpect, Expect, Expr, GuestStep, Irqchip, On, Start, Vendor, What};
use crate::exit::{Direction, ExitPattern};

#[test]
fn every_kind_of_step_is_read() {
    let cases = read(GOOD).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let [first, second] = cases.as_slice() else { panic!("two cases") };
    assert_eq!(first.id, "port-io.in-byte");
    assert_eq!(first.payload, "port_io", "the family's");
    assert_eq!(first.args["port"], 0x61);
    assert_eq!(first.requires.vendor, [Vendor::Intel, Vendor::Amd]);
    assert_eq!(first.machine.slots[1].name, "late");
    assert!(!first.machine.slots[1].present);
    assert_eq!(first.budget.run_ms, 500);
    assert_eq!(first.steps.len(), 23);

    let What::Exit(exit) = &first.steps[0].what else { panic!("an exit") };
    let ExitPattern::Io(io) = &exit.pattern else { panic!("io") };
    assert_eq!(io.direction, Some(Direction::In));
    assert_eq!(io.port, Some(Expect::Is(Expr::Number(0x61))));
    assert_eq!(exit.reply, Some(DataExpect::Number(0x5a)));
    assert_eq!(exit.memory[0].at, Expr::At("buffer".into(), 4));
    assert_eq!((exit.memory[0].size, exit.memory[1].size), (4, 1));
    let rip = ("rip".to_owned(), Expect::Is(Expr::At("in_reset".into(), 0)));
    assert!(exit.regs.contains(&rip) && exit.regs.contains(&("rax".into(), Expect::Unchanged)));
    assert_eq!((exit.times, exit.threads, exit.cpu, exit.refuse), (1, 1, 0, false));

    assert_eq!(first.steps[1].on, Some(On::FastPio));
    assert_eq!(first.steps[1].why.as_deref(), Some("string OUT"));
    let What::Guest(GuestStep::Value { cpu: 1, name, .. }) = &first.steps[2].what else { panic!("a value") };
    assert_eq!(name, "cr2");
    let What::Set(set) = &first.steps[4].what else { panic!("set") };
    assert_eq!((set.bank, set.cpu, set.errno.as_deref()), (Bank::Sregs, 1, Some("EINVAL")));
    let What::Check(check) = &first.steps[6].what else { panic!("check") };
    assert_eq!(check.values[1].0, "0x1b", "values keep the order of the text");
    assert_eq!(first.steps[7].what, What::Keep(1, Bank::DebugRegs));
    let What::Do(Action::GuestDebug { breakpoints, single_step: true, .. }) = &first.steps[14].what else {
        panic!("guest-debug")
    };
    assert_eq!(breakpoints.len(), 2);
    let What::Repeat(100, inner) = &first.steps[19].what else { panic!("repeat") };
    assert_eq!(inner.len(), 3);
    assert_eq!(first.steps[22].what, What::Guest(GuestStep::Done(0)));

    assert_eq!((second.machine.start, second.machine.irqchip), (Start::Real, Irqchip::Kernel));
    assert_eq!(second.steps.len(), 3);
}

#[test]
fn nested_names_are_flat_and_in_the_order_of_the_text() {
    let cases = fine(
        "",
        "{ set = \"sregs\", efer = 1, cs.base = 2, cr0 = 3, cs.limit = 4, ds = { base = 5 } },{ guest = \"done\" }",
    );
    let What::Set(set) = &cases[0].steps[0].what else { panic!("set") };
    let names: Vec<_> = set.values.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["efer", "cs.base", "cr0", "cs.limit", "ds.base"]);
}

#[test]
fn places_are_the_lines_that_people_wrote() {
    let cases = read(GOOD).unwrap();
    assert_eq!(cases[0].place.line, 8);
    assert_eq!(cases[0].place.text, "id = \"port-io.in-byte\"");
    let place = &cases[0].steps[2].place;
    assert_eq!((place.file.as_str(), place.line, place.column), ("port-io.toml", 24, 3));
    assert_eq!(place.text, "{ guest = \"cr2\", is = 0xdead000, cpu = 1 }");
    assert_eq!(cases[0].steps[0].place.text.chars().count(), 160, "long lines are cut");
    assert_eq!(cases[0].steps[19].place.text, "{ repeat = 100, steps = [", "only the first line");
    let What::Repeat(_, inner) = &cases[0].steps[19].what else { panic!("repeat") };
    assert_eq!((inner[2].place.line, inner[2].place.column), (44, 5));
    // Steps with a header of their own are known by their kind.
    assert_eq!(cases[1].steps[1].place.text, "exit = \"internal-error\"");
}

#[test]
fn an_input_without_reply_is_fine() {
    fine("", "{ exit = \"io\", direction = \"in\", size = 1 }, { guest = \"done\" }");
}

#[test]
fn without_payloads_labels_are_taken_on_trust() {
    let text = GOOD.replace("at counted", "at anything").replace("\"in_byte\"", "\"other\"");
    assert!(read(&text).is_err());
    super::parse("port-io.toml", &text, None).unwrap();
}

#[test]
fn what_a_host_does_lets_the_vcpu_go_on() {
    let after =
        |between: &str| fine("", &format!("{{ exit = \"shutdown\" }}, {between}, {{ exit = \"io\" }}"));
    after("{ set = \"regs\", rip = 0 }");
    after("{ keep = \"events\" }");
    after("{ do = \"nmi\" }");
    after("{ do = \"save-restore\" }");
    fine("", "{ exit = \"shutdown\", times = 3 }");
    fine("", "{ guest = \"done\" }, { check = \"msrs\", tsc = { not = 0 } }");
    fine("", "{ guest = \"done\" }, { do = \"restart\", at = \"at in_reset\" }, { guest = \"done\" }");
}

#[test]
fn an_exit_that_stops_one_kind_of_host_does_not_stop_the_other() {
    fine(
        "",
        "{ exit = \"shutdown\", on = \"amd\" }, { exit = \"hlt\", on = \"intel\" }, { guest = \"done\", on = \"intel\" }",
    );
}
