//! What cannot be read: syntax, keys, types, headers. A caret stands before each mistake.

use super::{GOOD, bad_case, bad_step, case, expect_mistakes, read};

const DONE: &str = "{ guest = \"done\" }";

#[test]
fn all_syntax_errors_are_told_at_once() {
    let text = "[family]\nname = \"port-io\n\n[[case]\nid = = 1\n";
    let mistakes = read(text).unwrap_err();
    let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.line).collect();
    assert!(lines.contains(&2) && lines.contains(&4) && lines.contains(&5), "{mistakes}");
    assert!(mistakes.iter().all(|mistake| mistake.message.starts_with("this is not TOML")));
}

#[test]
fn the_file_and_its_family() {
    expect_mistakes("^", &[&["no case", "[[case]]"]]);
    expect_mistakes("^^csae = 1", &[&["no case"], &["unknown key `csae`", "did you mean `case`"]]);
    let family = |keys: &str| format!("[family]\n{keys}\n{}", case("", DONE));
    expect_mistakes(
        &family("name = ^\"ports\""),
        &[&["`ports` is not the file's name", "name = \"port-io\""]],
    );
    expect_mistakes(&format!("^[family]\n{}", case("", DONE)), &[&["missing key `name`"]]);
    expect_mistakes(&family("name = \"port-io\"\nsummary = ^\" \""), &[&["`summary` is empty"]]);
    expect_mistakes(
        &family("name = \"port-io\"\n^paylod = \"x\""),
        &[&["unknown key `paylod`", "did you mean `payload`"]],
    );
    let mistakes = super::parse("dir/Port IO.toml", &case("", DONE), None).unwrap_err();
    assert!(mistakes.to_string().contains("`Port IO` cannot be the name of a family"));
    let mistakes = super::parse("port-io.toml", &" ".repeat((1 << 20) + 1), None).unwrap_err();
    assert!(mistakes.to_string().contains("more than 1048576 bytes"));
}

#[test]
fn keys_of_a_case() {
    for key in ["id", "summary", "basis", "reference", "detects", "payload", "scenario", "steps"] {
        let good = case("", DONE);
        let line = good.lines().position(|line| line.starts_with(&format!("{key} = "))).unwrap();
        let kept: Vec<_> = good
            .lines()
            .take(line)
            .chain(good.lines().skip(line + if key == "steps" { 3 } else { 1 }))
            .collect();
        let words = format!("missing key `{key}`");
        expect_mistakes(&format!("^{}", kept.join("\n")), &[&[&words]]);
    }
    bad_case("^machin = {}", DONE, &["unknown key `machin`", "did you mean `machine`"]);
    bad_case("args = { n = ^-1 }", DONE, &["expected a number, 0 or more"]);
    bad_case("budget = { ^run_ms = 5 }", DONE, &["unknown key `run_ms`", "did you mean `run-ms`"]);
    bad_case("machine = { irqchip = ^\"nome\" }", DONE, &["unknown word `nome`", "did you mean `none`"]);
    bad_case("requires = { vendor = [^\"inte\"] }", DONE, &["did you mean `intel`"]);
    bad_case("requires = { params = { ^kvm.ignore_msrs = \"N\" } }", DONE, &["quote the name"]);
    bad_case("machine = { slots = [^{ name = \"a\", gpa = 0x1000000 }] }", DONE, &["missing key `pages`"]);
    let text = case("", DONE).replace("\"arch\"", "^\"archs\"");
    expect_mistakes(&text, &[&["unknown word `archs`", "did you mean `arch`"]]);
    let text = case("", DONE).replace("steps = [\n{ guest = \"done\" }\n]", "steps = ^3");
    expect_mistakes(&text, &[&["`steps` must be a list"]]);
    expect_mistakes("case = ^1", &[&["`case` must be a list"]]);
    expect_mistakes("case = [^1]", &[&["a case must be a table"]]);
}

#[test]
fn ids() {
    let with = |id: &str| case("", DONE).replace("\"port-io.a\"", id);
    expect_mistakes(&with("^\"port-io.Reset\""), &[&["not a case id", "port-io.what-must-hold"]]);
    expect_mistakes(&with("^\"port-io\""), &[&["not a case id"]]);
    expect_mistakes(&with("^\"port-io.a.b\""), &[&["not a case id"]]);
    expect_mistakes(&with("^\"\""), &[&["`id` is empty"]]);
    expect_mistakes(&with("^\"mmio.a\""), &[&["not of the family `port-io`", "port-io.a"]]);
    let twice = format!("{}{}", with("\"port-io.a\""), with("^\"port-io.a\""));
    expect_mistakes(&twice, &[&["two cases `port-io.a`"]]);
    let (text, _) = super::unmark(&twice);
    let mistakes = read(&text).unwrap_err();
    let also = mistakes.iter().next().unwrap().also.as_ref().unwrap();
    assert_eq!((also.line, also.column), (2, 6), "the first one is shown too");
}

#[test]
fn texts_are_not_empty() {
    for key in ["summary", "detects"] {
        let line = case("", DONE).lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        let text = case("", DONE).replace(&line, &format!("{key} = ^\"  \""));
        expect_mistakes(&text, &[&[&format!("`{key}` is empty")]]);
    }
    expect_mistakes(&case("", DONE).replace("[\"r\"]", "^[]"), &[&["`reference` is empty"]]);
    expect_mistakes(&case("", DONE).replace("[\"r\"]", "[\"r\", ^\"\"]"), &[&["this reference is empty"]]);
}

#[test]
fn kinds_of_steps() {
    bad_step("^{ cpu = 0 }", &["does not say what it does", "`exit`", "`repeat`"]);
    bad_step("{ ^exti = \"io\" }", &["unknown kind of step `exti`", "did you mean `exit`"]);
    bad_step("{ exit = \"io\", ^guest = \"done\" }", &["either `exit` or `guest`"]);
    bad_step("^3", &["a step must be a table"]);
    bad_step("{ exit = ^\"oi\" }", &["there is no exit `oi`"]);
    bad_step("{ exit = ^\"irq-window\" }", &["did you mean `irq-window-open`"]);
    bad_step("{ exit = ^3 }", &["`exit` must name the exit"]);
    bad_step("{ set = ^\"reg\", rax = 1 }", &["there is no bank `reg`", "did you mean `regs`"]);
    bad_step("{ do = ^\"interupt\" }", &["unknown word `interupt`", "did you mean `interrupt`"]);
    bad_step("{ exit = \"hlt\", on = ^\"adm\" }", &["unknown word `adm`", "did you mean `amd`"]);
    bad_step("{ exit = \"hlt\", why = ^3 }", &["expected a text"]);
}

#[test]
fn keys_of_steps() {
    bad_step(
        "{ exit = \"io\", ^dircetion = \"in\" }",
        &["unknown key `dircetion` in exit `io`", "did you mean `direction`"],
    );
    bad_step("{ exit = \"io\", direction = ^\"inn\" }", &["unknown word `inn`", "did you mean `in`"]);
    bad_step("{ exit = \"hlt\", rip = ^\"in_reset\" }", &["at LABEL"]);
    bad_step("{ exit = \"hlt\", rip = ^-1 }", &["0xffffffffffffffff"]);
    bad_step("{ exit = \"hlt\", rax = ^{ mask = 1, is = 2 } }", &["never hold"]);
    bad_step("{ exit = \"hlt\", rax = ^{ mask = 1 } }", &["{ mask = NUMBER, is = NUMBER }"]);
    bad_step("{ exit = \"hlt\", memory = [^{ is = 3, size = 1 }] }", &["missing key `at`"]);
    bad_step("{ exit = \"hlt\", memory = [^{ at = 3, is = 3 }] }", &["missing key `size`"]);
    bad_step("{ exit = \"hlt\", memory = [{ at = 3, is = 3, size = 1, ^cpu = 1 }] }", &["unknown key `cpu`"]);
    bad_step("{ guest = \"done\", ^is = 3 }", &["unknown key `is`"]);
    bad_step("^{ guest = \"cr2\" }", &["missing key `is`"]);
    bad_step("{ set = \"sregs\", ^cr5 = 3 }", &["unknown key `cr5` in bank `sregs`", "did you mean `cr"]);
    bad_step("{ set = \"sregs\", cs.^bas = 3 }", &["unknown key `cs.bas`", "did you mean `cs.base`"]);
    bad_step("{ set = \"sregs\", ^cs = 3 }", &["`cs` has parts", "`cs.base`"]);
    bad_step("{ set = \"sregs\", ^\"cs.base\" = 3 }", &["with quotes"]);
    bad_step("{ set = \"regs\", rax = ^\"unchanged\" }", &["`unchanged` is nothing that can be set"]);
    bad_step("^{ set = \"regs\" }", &["sets nothing", "keep = \"regs\""]);
    bad_step("^{ check = \"regs\" }", &["checks nothing"]);
    bad_step("{ keep = \"regs\", ^rax = 1 }", &["unknown key `rax`"]);
    bad_step("{ set = \"msrs\", ^0x1g = 1 }", &["unknown key `0x1g`"]);
    bad_step("^{ do = \"interrupt\" }", &["missing key `vector`"]);
    bad_step("{ do = \"interrupt\", vector = ^256 }", &["0 to 255", "256"]);
    bad_step("{ do = \"signal\", ^wehn = \"now\" }", &["unknown key `wehn`", "did you mean `when`"]);
    bad_step("^{ repeat = 3 }", &["missing key `steps`"]);
    bad_step("^{ repeat = 3, steps = [] }", &["repeats nothing"]);
    bad_step("{ repeat = 3, steps = [{ exit = ^\"htl\" }] }", &["did you mean `hlt`"]);
}

#[test]
fn independent_mistakes_are_all_told() {
    let text = case(
        "machine = { ^vcpu = 2, memory-kib = ^\"x\", slots = [{ name = \"a\", gpa = ^-1, pages = 1, ^ro = true }] }",
        "{ exit = \"io\", prot = ^1 },\n{ exit = \"io\", port = ^\"x\", size = ^{} },\n{ do = \"msi\", address = ^\"a\", data = ^\"b\" },\n{ exit = ^\"x\" }",
    );
    // The caret of an unknown key stands before the key.
    let text = text.replace("prot = ^1", "^prot = 1");
    let words: Vec<&[&str]> = vec![
        &["`vcpu`"],
        &["found the text"],
        &["expected"],
        &["`ro`"],
        &["`prot`"],
        &["`x`"],
        &["mask"],
        &["\"a\""],
        &["\"b\""],
        &["no exit `x`"],
    ];
    expect_mistakes(&text, &words);
}

#[test]
fn a_broken_key_is_not_also_missing() {
    expect_mistakes(&case("", "{ do = \"interrupt\", vector = ^\"x\" }"), &[&["0 to 255"]]);
    bad_case(
        "machine = { slots = [{ name = \"a\", gpa = ^\"x\", pages = 1 }] }",
        DONE,
        &["expected a number"],
    );
    expect_mistakes(&case("", DONE).replace("\"arch\"", "^7"), &[&["expected a text"]]);
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let steps = (0..500).map(|n| format!("{{ exit = \"x{n}\" }}")).collect::<Vec<_>>().join(",\n");
    let mistakes = read(&case("", &steps)).unwrap_err();
    assert_eq!((mistakes.iter().len(), mistakes.len()), (super::super::mistake::MAX_KEPT, 500));
    assert!(mistakes.to_string().ends_with("500 mistakes; 400 not shown\n"));
}

#[test]
fn a_line_too_long_to_show_is_named() {
    let text = case("", &format!("{{ exit = \"hlt\", why = \"{}\", thraeds = 2 }}", "x".repeat(5000)));
    let shown = read(&text).unwrap_err().to_string();
    assert!(shown.contains("port-io.toml:11:5027") && shown.len() < 300, "{shown}");
}

#[test]
fn what_a_manifest_says_cannot_drive_the_terminal() {
    let text = case("", "{ exit = \"\\u001b[2J\" }");
    assert!(!read(&text).unwrap_err().to_string().contains('\u{1b}'));
}

#[test]
fn a_mistake_is_shown_with_its_line_and_a_caret() {
    let text = GOOD.replace("{ exit = \"hlt\", threads = 2 }", "{ exit = \"hlt\", thraeds = 2 }");
    let shown = read(&text).unwrap_err().render(false);
    let expected = "\
error: unknown key `thraeds` in exit `hlt`
  --> port-io.toml:47:19
   |
47 |   { exit = \"hlt\", thraeds = 2 },
   |                   ^^^^^^^
   |
   = help: did you mean `threads`?

1 mistake
";
    assert_eq!(shown, expected);
    assert!(read(&text).unwrap_err().render(true).contains("\u{1b}["), "colors when asked for");
}
