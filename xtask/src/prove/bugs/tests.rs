use super::*;

const GOOD: &str = r#"
[[bug]]
id        = "port-io.reset-completes-in"
breaks    = "RIP is not looked at"
edits     = [ { file = "arch/x86/kvm/x86.c", find = '''
	one();
''', replace = "" } ]
undoes    = "commit 45def77ebf79"
source    = ["6.12"]
beds      = ["amd", "intel"]
params    = "kvm.ignore_msrs=1"
caught-by = ["port-io.a", "mmio.b~save-restore"]

[[bug]]
id        = "port-io.other"
breaks    = "Something"
edits     = [ { file = "virt/kvm/kvm_main.c", find = "a", replace = "b" } ]
beds      = ["amd", "intel"]
caught-by = { amd = ["port-io.a"], intel = ["mmio.b"] }
crash     = true

[[bug]]
id           = "port-io.silent"
breaks       = "Nothing"
edits        = [ { file = "virt/kvm/kvm_main.c", find = "a", replace = "b" } ]
beds         = ["intel"]
unobservable = "it is only slower"
"#;

fn load(text: &str) -> Result<Vec<Bug>, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("port-io.toml"), text).unwrap();
    fs::write(folder.path().join("unproved.toml"), "not one of them").unwrap();
    let cases = ["port-io.a", "mmio.b"].map(str::to_owned).into();
    let above = format!("{}/", folder.path().display());
    super::load(folder.path(), &cases).map_err(|error| format!("{error:#}").replace(&above, ""))
}

#[test]
fn every_key_is_read() {
    let bugs = load(GOOD).unwrap();
    let [first, second, third] = &bugs[..] else { panic!("{bugs:?}") };
    assert_eq!(first.family(), "port-io");
    assert_eq!(first.place.line, 3);
    assert_eq!(first.edits[0].find, "\tone();\n");
    assert_eq!(first.undoes.as_deref(), Some("commit 45def77ebf79"));
    assert!(first.is_for("6.12") && !first.is_for("5.10") && second.is_for("5.10"));
    assert_eq!(first.params[&Kind::Intel].of("kvm"), "ignore_msrs=1");
    assert_eq!(first.expected(Kind::Amd), ["port-io.a", "mmio.b~save-restore"]);
    assert!(first.is_meant_by("mmio.b") && first.is_meant_by("completes") && !first.is_meant_by("kick"));
    assert_eq!(second.expected(Kind::Intel), ["mmio.b"]);
    assert!(second.crash && !first.crash);
    assert_eq!(third.proof, Proof::Unobservable("it is only slower".into()));
    assert!(third.expected(Kind::Intel).is_empty());
}

#[test]
fn mistakes_have_file_line_and_bug() {
    for (from, to, line, said) in [
        ("breaks    = \"RIP is not looked at\"", "breaks = \"\"", 4, "`breaks` is empty"),
        ("port-io.reset-completes-in", "mmio.reset", 3, "an id in this file is `port-io.`"),
        ("port-io.reset-completes-in", "port-io.Reset", 3, "an id in this file is `port-io.`"),
        ("port-io.other", "port-io.silent", 23, "there is one of this id at port-io.toml:15"),
        ("arch/x86/kvm/x86.c", "arch/x86/mm/fault.c", 5, "only KVM's modules are built anew"),
        ("arch/x86/kvm/x86.c", "arch/x86/kvm/../mm/fault.c", 5, "only KVM's modules are built anew"),
        ("[\"6.12\"]", "[\"6\"]", 9, "no series of kernels"),
        ("[\"amd\", \"intel\"]\nparams", "[\"arm\"]\nparams", 10, "there is no bed `arm`"),
        ("[\"amd\", \"intel\"]\nparams", "[\"amd\", \"amd\"]\nparams", 10, "a bed is there twice"),
        ("[\"amd\", \"intel\"]\nparams", "[]\nparams", 10, "`beds` is empty"),
        ("kvm.ignore_msrs=1", "npt", 11, "expected NAME=VALUE"),
        ("kvm.ignore_msrs=1", "kvm_amd.npt=0", 11, "no parameter of the bed intel"),
        ("[\"port-io.a\", \"mmio.b~save-restore\"]", "[]", 12, "expected case ids"),
        ("[\"port-io.a\", \"mmio.b~save-restore\"]", "\"port-io.a\"", 12, "expected case ids"),
        ("\"mmio.b~save-restore\"", "\"mmio.c\"", 3, "there is no case `mmio.c`"),
        (", intel = [\"mmio.b\"] }", " }", 19, "caught-by says nothing of the bed intel"),
        (", intel = [\"mmio.b\"] }", ", arm = [\"mmio.b\"] }", 19, "there is no bed `arm`"),
        (
            "find = \"a\", replace = \"b\" } ]\nbeds      ",
            "find = \" \", replace = \"b\" } ]\nbeds ",
            17,
            "`find` is empty",
        ),
        (
            "find = \"a\", replace = \"b\" } ]\nbeds      ",
            "find = \"b\", replace = \"b\" } ]\nbeds ",
            17,
            "is what is there already",
        ),
        ("unobservable = \"it is only slower\"", "", 23, "either `caught-by` or `unobservable`"),
        (
            "crash     = true",
            "crash = true\nunobservable = \"x\"",
            15,
            "either `caught-by` or `unobservable`",
        ),
        ("crash     = true", "crahs = true", 20, "unknown field `crahs`"),
        ("crash     = true", "crash = tru", 20, ""),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = load(&GOOD.replacen(from, to, 1)).expect_err(to);
        let lines: Vec<&str> = error.lines().filter(|line| line.contains("port-io.toml:")).collect();
        let place = format!("port-io.toml:{line}: ");
        assert!(
            lines.iter().any(|line| line.contains(&place) && line.contains(said)),
            "{to}: {place}{said}\n{error}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = GOOD.replace("\"RIP is not looked at\"", "\"\"").replace("\"it is only slower\"", "\"\"");
    assert_eq!(load(&text).unwrap_err().matches("port-io.toml:").count(), 2);
}
