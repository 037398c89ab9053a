//! A journal for the check: every verdict, a variation, a case that was lost, and a guest that would like to be markup.

use serde_json::{Value, json};

/// What the guest says. If it were markup, the page would have another title.
pub(super) const HOSTILE: &str =
    "<img src=x onerror=\"document.title='taken'\"></code><script>document.title='taken'</script>";

/// The tests and their verdicts; one more was started and has none.
pub(super) const TESTS: [(&str, &str); 10] = [
    ("alpha.holds", "pass"),
    ("alpha.holds~kick", "fail"),
    ("alpha.deviates", "fail"),
    ("alpha.deviates~kick", "fail"),
    ("alpha.waived", "xfail"),
    ("beta.skipped", "skip"),
    ("beta.broken", "error"),
    ("beta.hangs", "timeout"),
    ("beta.dies", "crash"),
    ("beta.stale", "xpass"),
];

/// The case that has no verdict.
pub(super) const LOST: &str = "beta.lost";

/// The journal's lines.
pub(super) fn text() -> String {
    let mut lines = vec![header()];
    lines.push(json!({ "event": "started", "case": LOST, "at": "2026-01-01T00:00:01.000Z" }));
    lines.extend(TESTS.map(|(name, verdict)| finished(name, verdict)));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn header() -> Value {
    let selected: Vec<&str> = TESTS.iter().map(|(name, _)| *name).chain([LOST]).collect();
    json!({
        "event": "header", "version": "0.0.0", "revision": null, "command": ["exitspec", "test"], "seed": 1,
        "fingerprint": { "manifests": "", "payloads": "", "waivers": "" },
        "selected": selected,
        "host": {
            "bed": "local", "kernel": "6.12.0", "cpu": "A CPU", "cpu_vendor": "AuthenticAMD", "microcode": "0x1",
            "backend": "kvm_amd", "vendor": "amd", "pio": "fast", "params": { "kvm_amd.npt": "1" }, "cpus": 2,
            "device": null,
        },
    })
}

fn finished(name: &str, verdict: &str) -> Value {
    let mut line = json!({
        "event": "finished", "case": name, "duration_us": 1500,
        "outcome": { "verdict": verdict, "reason": "", "evidence": null },
    });
    if verdict == "pass" {
        return line;
    }
    line["outcome"]["reason"] = json!("rip: expected at reset (0xfff0), observed 0xfff2");
    if verdict == "skip" {
        return line;
    }
    let step = |line: u32, expected: &str, observed: &str, holds: bool| json!({ "line": line, "expected": expected, "observed": observed, "holds": holds });
    line["outcome"]["evidence"] = json!({
        "trace": [
            step(12, "exit io port=0x61", "exit io direction=in size=0x1 port=0x61", true),
            step(14, "exit hlt rip=at reset", "exit hlt rip=0xfff2", false),
        ],
        "trace_cut": 3,
        "to_come": ["guest done"],
        "mismatches": [{ "field": "rip", "expected": "at reset (0xfff0)", "observed": "0xfff2" }],
        "place": { "file": "alpha.toml", "line": 14, "column": 3, "text": "{ exit = \"hlt\" }" },
        "why": "the reset wins",
        "registers": [["rax", 0x5a], ["rip", 0xfff2], ["rflags", 0x1_0202], ["cr0", 0x10u64]],
        "code": [
            { "address": 0xfff0, "symbol": "reset", "text": "in al,61h", "here": false },
            { "address": 0xfff2, "symbol": "reset+0x2", "text": "hlt", "here": true },
        ],
        "guest": [HOSTILE],
        "kernel_log": ["WARNING: CPU: 0 at arch/x86/kvm/x86.c"],
        "stderr": [],
    });
    line["about"] = json!({
        "summary": "Moving RIP while IN is pending cancels the IN",
        "basis": "kvm-abi",
        "detects": "KVM completes the IN after the reset",
        "reference": ["commit 45def77ebf79", "KVM API 4.10 KVM_RUN", "SDM vol. 2A, IN"],
        "place": { "file": "alpha.toml", "line": 3, "column": 8, "text": name },
        "again": format!("cargo xtask test --exact {name}"),
    });
    line
}
