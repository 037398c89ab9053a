//! What can be read but makes no sense. A caret stands before each mistake.

use super::{bad_case, bad_step, case, expect_mistakes, fine};

const DONE: &str = "{ guest = \"done\" }";

#[test]
fn payloads_scenarios_and_arguments() {
    let text = case("", DONE);
    expect_mistakes(
        &text.replace("\"port_io\"", "^\"port_oi\""),
        &[&["no payload `port_oi`", "did you mean `port_io`"]],
    );
    expect_mistakes(
        &text.replace("\"in_byte\"", "^\"in_bite\""),
        &[&["no scenario `in_bite`", "did you mean `in_byte`"]],
    );
    expect_mistakes(&text.replace("\"port_io\"", "^\"\""), &[&["`payload` is empty"]]);
    // The family's payload is blamed once for all its cases.
    let without = text.replace("payload = \"port_io\"\n", "");
    let family = format!(
        "[family]\nname = \"port-io\"\npayload = ^\"port_oi\"\n{without}{}",
        without.replace("port-io.a", "port-io.b")
    );
    expect_mistakes(&family, &[&["no payload `port_oi`"]]);
    let long = format!("^\"{}\"", "x".repeat(49));
    let text = text.replace("\"in_byte\"", &long);
    let (plain, places) = super::unmark(&text);
    let mistakes = super::parse("port-io.toml", &plain, None).unwrap_err();
    let first = mistakes.iter().next().unwrap();
    assert_eq!((first.line, first.column), places[0]);
    assert!(first.message.contains("1 to 48 bytes"));
    let many = (0..9).map(|n| format!("a{n} = 1")).collect::<Vec<_>>().join(", ");
    bad_case(&format!("^args = {{ {many} }}"), DONE, &["9 arguments", "at most 8"]);
    bad_case(&format!("args = {{ ^{} = 1 }}", "x".repeat(49)), DONE, &["1 to 48 bytes"]);
}

#[test]
fn labels() {
    bad_step("{ exit = \"hlt\", rip = ^\"at in_rest\" }", &["no label `in_rest`", "did you mean `in_reset`"]);
    bad_step("{ exit = \"debug\", pc = ^\"at nowhere_at_all\" }", &["no label `nowhere_at_all`"]);
    bad_step("{ exit = \"hlt\", rip = ^\"at twice\" }", &["ambiguous"]);
    bad_step("{ exit = \"hlt\", rip = ^\"after buffer\" }", &["instruction at `buffer`"]);
    bad_step(
        "{ exit = \"hlt\", memory = [{ at = ^\"at bufer\", size = 1, is = 1 }] }",
        &["did you mean `buffer`"],
    );
    bad_step("{ set = \"regs\", rip = ^\"at x\" }", &["no label `x`"]);
    bad_step("{ set = \"sregs\", cs.base = ^\"at x\" }", &["no label `x`"]);
    bad_step("{ check = \"regs\", rip = ^{ not = \"at x\" } }", &["no label `x`"]);
    bad_step("{ guest = \"v\", is = ^\"at x\" }", &["no label `x`"]);
    bad_step("{ do = \"restart\", at = ^\"at x\" }", &["no label `x`"]);
    bad_step("{ do = \"write-memory\", at = ^\"at x\", data = 1 }", &["no label `x`"]);
    bad_step("{ do = \"guest-debug\", breakpoints = [{ at = 0 }, { at = ^\"at x\" }] }", &["no label `x`"]);
    bad_step("{ repeat = 2, steps = [{ exit = \"hlt\", rip = ^\"at x\" }] }", &["no label `x`"]);
    let real = case("machine = { start = \"real\" }", DONE);
    expect_mistakes(
        &real.replace("\"in_byte\"", "^\"start61\""),
        &[&["no label `start61`", "did you mean `start16`"]],
    );
    expect_mistakes(
        &real.replace("\"in_byte\"", "^\"in_byte\"").replace("real", "protected"),
        &[&["no label `in_byte`"]],
    );
}

#[test]
fn machines() {
    bad_case("machine = { memory-kib = ^1024 }", DONE, &["1024 KiB", "4096 to 65536"]);
    bad_case("machine = { memory-kib = ^65540 }", DONE, &["65540 KiB"]);
    bad_case("machine = { memory-kib = ^4097 }", DONE, &["multiple of 4"]);
    bad_case("machine = { vcpus = ^0 }", "{ exit = \"hlt\", cpu = 0 }", &["0 vCPUs"]);
    bad_case("machine = { vcpus = ^5 }", DONE, &["5 vCPUs", "1 to 4"]);
    let slots =
        |slots: &str, words: &[&str]| bad_case(&format!("machine = {{ slots = [{slots}] }}"), DONE, words);
    slots("{ name = \"a\", gpa = ^0x1000001, pages = 1 }", &["not page-aligned", "0x1000000"]);
    slots("{ name = \"a\", gpa = ^0x3ff000, pages = 1 }", &["overlaps RAM", "0x400000"]);
    slots("{ name = \"a\", gpa = 0x1000000, pages = ^0 }", &["0 pages", "1 to 4096"]);
    slots("{ name = \"a\", gpa = 0x1000000, pages = ^4097 }", &["4097 pages"]);
    slots("{ name = \"a\", gpa = ^0xffff_ffff_ffff_f000, pages = 1 }", &["52 address bits"]);
    slots("{ name = ^\"\", gpa = 0x1000000, pages = 1 }", &["needs a name"]);
    slots(
        "{ name = \"a\", gpa = 0x1000000, pages = 1 }, { name = ^\"a\", gpa = 0x2000000, pages = 1 }",
        &["two memslots `a`"],
    );
    slots(
        "{ name = \"a\", gpa = 0x1000000, pages = 2 }, { name = \"b\", gpa = ^0x1001000, pages = 1 }",
        &["`b` overlaps memslot `a`"],
    );
    let many = (1..=33).map(|n| format!("{{ name = \"s{n}\", gpa = {:#x}, pages = 1 }}", n << 24));
    let many = many.collect::<Vec<_>>().join(", ");
    bad_case(&format!("machine = {{ slots = ^[{many}] }}"), DONE, &["33 memslots", "at most 32"]);
    bad_case("machine = { coalesced = [^{ start = 0xffff, size = 2, pio = true }] }", DONE, &["0 to 0xffff"]);
    bad_case("machine = { coalesced = [^{ start = 0xffff, size = 0 }] }", DONE, &["has a size"]);
    bad_case("budget = { run-ms = ^0 }", DONE, &["1 to 600000"]);
    bad_case("budget = { reports = ^0 }", DONE, &["some reports"]);
    bad_case("requires = { params = { ^npt = \"N\" } }", DONE, &["whose parameter", "kvm.npt"]);
    slots("{ name = \"a\", gpa = ^0x8_0000_0000, pages = 1 }", &["`disturb` with slots uses"]);
    bad_case(
        "requires = { caps = [\"x86-smm\", ^\"x86-sm\"] }",
        DONE,
        &["no capability `x86-sm`", "`x86-smm`"],
    );
    bad_case("requires = { cpuid = [^\"x3apic\"] }", DONE, &["no CPUID feature `x3apic`", "`x2apic`"]);
    bad_case("machine = { cpuid-hide = [^\"zzzzzz\"] }", DONE, &["no CPUID feature", "docs/manifest.md"]);
    bad_case("machine = { enable-caps = [^\"x86-smm\"] }", DONE, &["no capability to enable `x86-smm`"]);
    bad_case("machine = { disable-quirks = [^\"out-7e\"] }", DONE, &["no quirk `out-7e`"]);
    bad_case("requires = { cpus = ^0 }", DONE, &["every host has a CPU"]);
}

#[test]
fn vcpus() {
    bad_step("{ exit = \"hlt\", cpu = ^1 }", &["no vCPU 1", "vcpus = 2"]);
    bad_step("{ guest = \"v\", is = 1, cpu = ^7 }", &["no vCPU 7"]);
    bad_step("{ keep = \"regs\", cpu = ^1 }", &["no vCPU 1"]);
    bad_step("{ set = \"regs\", rax = 1, cpu = ^1 }", &["no vCPU 1"]);
    bad_step("{ check = \"regs\", rax = 1, cpu = ^1 }", &["no vCPU 1"]);
    bad_step("{ do = \"background\", cpu = ^1 }", &["no vCPU 1"]);
    bad_case(
        "machine = { vcpus = 2 }",
        "{ do = \"nmi\", cpu = ^2 }, { guest = \"done\" }",
        &["vCPUs 0 to 1"],
    );
}

#[test]
fn replies() {
    bad_step("{ exit = \"io\", direction = \"out\", size = 1, ^reply = 1 }", &["owes the guest nothing"]);
    bad_step("{ exit = \"hlt\", ^reply = 1 }", &["`hlt` owes the guest nothing"]);
    bad_step("{ exit = \"wrmsr\", ^reply = 1 }", &["owes the guest nothing"]);
    bad_step("{ exit = \"mmio\", write = true, ^reply = 1 }", &["owes the guest nothing"]);
    bad_step("{ exit = \"io\", ^reply = 1 }", &["direction = \"in\""]);
    bad_step("{ exit = \"mmio\", ^reply = 1 }", &["write = false"]);
    bad_step("{ exit = \"io\", direction = \"in\", size = 1, reply = ^0x100 }", &["owed 1 byte"]);
    bad_step(
        "{ exit = \"io\", direction = \"in\", size = 2, count = 2, reply = ^[1, 2, 3] }",
        &["2 times 2 bytes"],
    );
    bad_step("{ exit = \"mmio\", write = false, size = 4, reply = ^[1] }", &["owed 4 bytes"]);
    bad_step("{ exit = \"rdmsr\", reply = ^[1, 2] }", &["owed 8 bytes"]);
    bad_step("{ exit = \"rdmsr\", refuse = true, ^reply = 1 }", &["refused access gets no reply"]);
    bad_step("{ exit = \"io\", ^refuse = true }", &["cannot be refused", "rdmsr and wrmsr"]);
    bad_step("{ exit = \"io\", direction = \"in\", ^data = 1 }", &["here it gives none", "`reply`"]);
    bad_step("{ exit = \"mmio\", write = false, ^data = 1 }", &["here it gives none"]);
    bad_step(
        "{ exit = \"io\", direction = \"out\", size = 1, data = ^0x100 }",
        &["never be the data of 1 byte"],
    );
}

#[test]
fn sizes_and_numbers() {
    bad_step("{ exit = \"io\", size = ^8 }", &["8 bytes", "1, 2 or 4"]);
    bad_step("{ exit = \"io\", port = ^0x10000 }", &["no port 0x10000"]);
    bad_step("{ exit = \"io\", count = ^0 }", &["0 items"]);
    bad_step("{ exit = \"mmio\", size = ^9 }", &["9 bytes"]);
    bad_step("{ exit = \"io\", port = ^\"unchanged\" }", &["`port` has nothing"]);
    bad_step("{ guest = \"v\", is = ^\"unchanged\" }", &["state the number"]);
    bad_step("{ guest = ^\"\", is = 1 }", &["1 to 1024 bytes"]);
    bad_step("{ exit = \"hlt\", memory = [{ at = 0, size = ^9, is = 1 }] }", &["no number has 9 bytes"]);
    bad_step(
        "{ exit = \"hlt\", memory = [{ at = 0, size = 1, is = ^0x100 }] }",
        &["0x100 does not fit 1 byte"],
    );
    bad_step("{ exit = \"hlt\", memory = [{ at = 0, size = ^4, is = \"text\" }] }", &["its own size"]);
    bad_step("{ do = \"write-memory\", at = 0, data = ^0x100 }", &["does not fit 1 byte"]);
    bad_step("{ do = \"coalesced-ring\", address = 0, size = ^3, data = [1] }", &["no access has 3 bytes"]);
    bad_step("{ do = \"disturb\", with = ^[] }", &["disturbs nothing"]);
    bad_step(
        "{ set = \"events\", nmi.masked = ^0x100 }",
        &["0x100 does not fit `nmi.masked`, which has 8 bits"],
    );
    bad_step("{ check = \"sregs\", cs.selector = ^0x10000 }", &["16 bits"]);
    bad_step("{ set = \"sregs\", cr0 = 1, errno = ^\"EINVL\" }", &["did you mean `EINVAL`"]);
    bad_step("{ set = \"sregs\", cr0 = 1, ^at-run = true }", &["expects none", "errno = \"EINVAL\""]);
    bad_step("{ set = \"run\", ^if-flag = 1 }", &["`if-flag` is what KVM tells", "use `check`"]);
    bad_case(
        "machine = { irqchip = \"split\" }",
        "{ check = \"lapic\", tpr = ^0x1_0000_0000 }, { guest = \"done\" }",
        &["32 bits"],
    );
}

#[test]
fn repetitions() {
    bad_step("{ exit = \"hlt\", times = ^0 }", &["never plays"]);
    bad_step("{ exit = \"hlt\", times = ^10_000_001 }", &["10000001 is more than 10000000"]);
    bad_step("{ exit = \"hlt\", threads = ^0 }", &["never plays"]);
    bad_step("{ exit = \"hlt\", threads = ^17 }", &["`threads` is 1 to 16"]);
    bad_step("{ repeat = ^0, steps = [{ exit = \"hlt\" }] }", &["never plays"]);
    bad_step("{ repeat = ^10_000_001, steps = [{ exit = \"hlt\" }] }", &["`repeat` is 1 to 10000000"]);
    bad_step("{ repeat = 10_000, steps = [{ exit = \"hlt\", times = ^1001 }] }", &["10010000 times"]);
    let deep = "{ repeat = 2, steps = [".repeat(3)
        + "^{ repeat = 2, steps = [{ exit = \"hlt\" }] }"
        + &"]}".repeat(3);
    bad_step(&deep, &["nested more than 3 deep"]);
}

#[test]
fn irqchips() {
    for chip in ["kernel", "split"] {
        let keys = format!("machine = {{ irqchip = \"{chip}\" }}");
        bad_case(&keys, "{ exit = ^\"hlt\" }", &["HLT never exits"]);
        bad_case(&keys, "{ exit = ^\"set-tpr\" }", &["no write to CR8 exits"]);
        fine(
            &keys,
            "{ do = \"msi\", address = 1, data = 1 }, { check = \"lapic\", tpr = 0 }, { guest = \"done\" }",
        );
    }
    bad_case(
        "machine = { irqchip = \"kernel\" }",
        "{ do = ^\"interrupt\", vector = 32 }, { guest = \"done\" }",
        &["KVM_INTERRUPT is refused"],
    );
    fine(
        "machine = { irqchip = \"split\" }",
        "{ do = \"interrupt\", vector = 32 }, { exit = \"ioapic-eoi\" }",
    );
    bad_step("{ exit = ^\"ioapic-eoi\" }", &["only a split irqchip"]);
    for chip in ["none", "split"] {
        let keys = format!("machine = {{ irqchip = \"{chip}\", pit = ^true }}");
        bad_case(&keys, "{ guest = \"done\" }", &["KVM_CREATE_PIT2 needs"]);
    }
    let cases = fine("machine = { irqchip = \"kernel\", pit = true }", "{ guest = \"done\" }");
    assert_eq!(cases[0].requires.caps, ["pit2"]);
    bad_step("{ do = ^\"msi\", address = 1, data = 1 }", &["KVM_SIGNAL_MSI needs an in-kernel irqchip"]);
    bad_step("{ do = ^\"irq-line\", gsi = 1, level = true }", &["KVM_IRQ_LINE needs"]);
    for key in ["check", "set"] {
        bad_step(&format!("{{ {key} = ^\"lapic\", tpr = 0 }}"), &["no local APIC"]);
    }
    bad_step("{ keep = ^\"lapic\" }", &["no local APIC"]);
}

#[test]
fn msr_ranges() {
    bad_step(
        "{ do = \"msr-filter\", ranges = [{ base = 0x10, count = 2, allow = [0x10, ^0x12] }] }",
        &["0x12 is not in the range", "2 MSRs from 0x10"],
    );
    bad_step("{ do = \"msr-filter\", ranges = [{ base = 0x10, count = ^12289 }] }", &["at most 12288"]);
    bad_step("{ do = \"msr-filter\", default = \"deny\", errno = ^\"EINVALID\" }", &["EINVAL"]);
    let ranges = ["{ base = 1 }"; 17].join(", ");
    bad_step(&format!("{{ do = \"msr-filter\", ranges = ^[{ranges}] }}"), &["17 ranges", "at most 16"]);
    bad_case(
        "machine = { msr-filter = { ranges = [{ base = 0x10, allow = [^0xf] }] } }",
        DONE,
        &["0xf is not in the range"],
    );
}

#[test]
fn the_apic_access_page_can_only_move_where_there_is_one() {
    let requires = "requires = { params = { \"kvm_intel.flexpriority\" = \"Y\" } }";
    let irqchip = "machine = { irqchip = \"kernel\" }";
    let steps = |caret: &str| format!("{{ do = \"disturb\", with = {caret}[\"apic-page\"] }}, {DONE}");
    fine(&format!("{requires}\n{irqchip}"), &steps(""));
    bad_case(requires, &steps("^"), &["there is no APIC-access page", "irqchip"]);
    bad_case(irqchip, &steps("^"), &["not every host", "kvm_intel.flexpriority"]);
    let off = requires.replace("\"Y\"", "\"N\"");
    bad_case(&format!("{off}\n{irqchip}"), &steps("^"), &["not every host"]);
}

#[test]
fn slots_in_actions() {
    let with = |step: &str, words: &[&str]| {
        let slots = "{ name = \"plain\", gpa = 0x1000000, pages = 2 }, { name = \"rom\", gpa = 0x2000000, pages = 1, read-only = true, log-dirty = true }";
        bad_case(&format!("machine = {{ slots = [{slots}] }}"), &format!("{step}, {DONE}"), words);
    };
    with("{ do = \"slot-delete\", slot = ^\"plane\" }", &["no memslot `plane`", "did you mean `plain`"]);
    with("{ do = \"slot-create\", slot = ^\"zzz\" }", &["declare it"]);
    with("{ do = \"slot-move\", slot = \"plain\", gpa = ^0x1000800 }", &["not page-aligned"]);
    with("{ do = \"slot-move\", slot = \"plain\", gpa = ^0x1000 }", &["overlap RAM"]);
    with("{ do = \"slot-change\", slot = \"plain\", pages = ^3 }", &["no memory for 3 pages"]);
    with("{ do = \"slot-change\", slot = \"plain\", gpa = 1, errno = ^\"EINVALID\" }", &["EINVAL"]);
    with("{ do = \"slot-change\", slot = ^\"ram\", pages = 0 }", &["no memslot `ram`"]);
    with("{ do = \"dirty-pages\", slot = ^\"plain\", pages = [0] }", &["log-dirty = true"]);
    with("{ do = \"dirty-pages\", slot = \"rom\", pages = ^[0] }", &["read-only"]);
    let keys = "machine = { slots = [{ name = \"log\", gpa = 0x1000000, pages = 2, log-dirty = true }] }";
    bad_case(
        keys,
        &format!("{{ do = \"dirty-pages\", slot = \"log\", pages = [0, ^2] }}, {DONE}"),
        &["no page 2", "0 to 1"],
    );
}

#[test]
fn breakpoints() {
    let five = ["{ at = 0 }"; 5].join(", ");
    bad_step(&format!("{{ do = \"guest-debug\", breakpoints = ^[{five}] }}"), &["5 breakpoints"]);
    bad_step("{ do = \"guest-debug\", breakpoints = [{ at = 0, size = ^4 }] }", &["size 1"]);
    bad_step(
        "{ do = \"guest-debug\", breakpoints = [{ at = 0, on = \"write\", size = ^3 }] }",
        &["1, 2, 4 or 8"],
    );
    bad_step(
        "{ do = \"guest-debug\", breakpoints = [{ at = ^2, on = \"access\", size = 4 }] }",
        &["not aligned to 4 bytes"],
    );
}

#[test]
fn steps_that_never_play() {
    bad_case(
        "requires = { pio = \"fast\" }",
        "{ exit = \"io\", on = ^\"emulated-pio\" }, { guest = \"done\" }",
        &["never plays"],
    );
    bad_case(
        "requires = { vendor = [\"intel\"] }",
        "{ exit = \"io\", on = ^\"amd\" }, { guest = \"done\" }",
        &["never plays"],
    );
    bad_step("{ repeat = 2, on = \"amd\", steps = [{ exit = \"io\", on = ^\"intel\" }] }", &["outer `on`"]);
    fine("requires = { vendor = [\"intel\"] }", "{ exit = \"io\", on = \"fast-pio\" }, { guest = \"done\" }");
}

#[test]
fn the_order_of_steps() {
    bad_case("", "{ guest = \"done\" }, ^{ exit = \"hlt\" }", &["after guest = \"done\""]);
    bad_case(
        "",
        "{ guest = \"done\" }, { keep = \"regs\" }, ^{ guest = \"v\", is = 1 }",
        &["after guest = \"done\""],
    );
    bad_case("", "{ repeat = 2, steps = [^{ guest = \"done\" }] }", &["after guest = \"done\""]);
    for exit in ["shutdown", "internal-error", "fail-entry", "system-event"] {
        let steps = format!("{{ exit = \"{exit}\" }}, ^{{ guest = \"done\" }}");
        bad_case("", &steps, &[&format!("after exit `{exit}`"), "times = 2"]);
    }
    let two = "machine = { vcpus = 2 }";
    fine(two, "{ exit = \"shutdown\" }, { exit = \"hlt\", cpu = 1 }");
    bad_case(
        two,
        "{ exit = \"shutdown\" }, { keep = \"regs\", cpu = 1 }, ^{ exit = \"hlt\" }",
        &["after exit `shutdown`"],
    );
    bad_step("{ exit = ^\"intr\" }", &["EINTR", "immediate-exit"]);
    bad_case(two, "{ do = \"signal\", cpu = 1 }, { exit = ^\"intr\" }, { guest = \"done\" }", &["vCPU 0"]);
    fine("", "{ do = \"disturb\", with = [\"kick\"] }, { exit = \"intr\" }, { guest = \"done\" }");
    bad_step("{ do = ^\"quiet\" }", &["nothing to quiet"]);
    let idle = case("", "{ keep = \"regs\" }").replace("steps =", "^steps =");
    expect_mistakes(&idle, &[&["never runs the guest"]]);
    expect_mistakes(&case("", "").replace("steps =", "^steps ="), &[&["never runs the guest"]]);
}

#[test]
fn smm_needs_memory_there() {
    bad_step("{ do = ^\"smi\" }", &["no memory in SMM", "smm = true"]);
    bad_step("{ check = ^\"smram\", cr0 = 1 }", &["never enters SMM"]);
    let slot = |smm: &str| {
        format!(
            "machine = {{ {smm}slots = [{{ name = \"s\", gpa = 0x1000_0000, pages = 16, smram = ^true }}] }}"
        )
    };
    bad_case(&slot(""), DONE, &["nobody can reach this memslot"]);
    bad_case(
        "machine = { smm = true }",
        "{ set = \"smram\", smbase = ^\"0x1_0000_0000\" },\n{ guest = \"done\" }",
        &["does not fit `smbase`, which has 32 bits"],
    );
    let steps = "{ do = \"smi\" },\n{ set = \"smram\", cr4 = 1 },\n{ guest = \"done\" }";
    let cases = fine("machine = { smm = true }", steps);
    assert_eq!(cases[0].requires.caps, ["x86-smm"], "a host without SMM skips it");
}
