//! Samples in the kernel's formats, with what must be found in them.

use super::*;

/// Feeds lines as /dev/kmsg gives them; the reports found, the last one ended by silence.
fn reports(text: &str) -> Vec<Report> {
    let mut collector = Collector::default();
    let mut found: Vec<Report> = text
        .lines()
        .enumerate()
        .filter_map(|(n, line)| collector.record(&format!("4,{n},{n}000,-;{line}")))
        .collect();
    found.extend(collector.finish());
    found
}

fn only(text: &str) -> Report {
    let found = reports(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

#[test]
fn warning() {
    let report = only(
        "kvm: SMP vm created on host\n\
         ------------[ cut here ]------------\n\
         WARNING: CPU: 3 PID: 4711 at arch/x86/kvm/vmx/vmx.c:4830 handle_exception_nmi+0x5d2/0x600 [kvm_intel]\n\
         Modules linked in: kvm_intel kvm irqbypass\n\
         CPU: 3 UID: 0 PID: 4711 Comm: exitspec-case Not tainted 6.18.0 #1 PREEMPT(full)\n\
         RIP: 0010:handle_exception_nmi+0x5d2/0x600 [kvm_intel]\n\
         Call Trace:\n \
         <TASK>\n \
         kvm_arch_vcpu_ioctl_run+0x5a1/0x1a30 [kvm]\n \
         </TASK>\n\
         ---[ end trace 0000000000000000 ]---\n\
         eth0: link up",
    );
    assert!(report.title.starts_with("WARNING: CPU: 3 PID: 4711 at arch/x86/kvm/vmx/vmx.c:4830"));
    assert_eq!(report.pids, [4711]);
    assert!(report.lines.last().unwrap().contains("end trace"));
    assert!(report.lines.iter().any(|line| line.contains("kvm_arch_vcpu_ioctl_run")));
}

#[test]
fn warning_in_the_newer_format() {
    let report = only(
        "------------[ cut here ]------------\n\
         WARNING: arch/x86/kvm/x86.c:11500 at kvm_arch_vcpu_ioctl_run+0x3c/0x90, CPU#1: exitspec-case/88\n\
         ---[ end trace 0000000000000000 ]---",
    );
    assert_eq!(report.pids, [88]);
}

#[test]
fn bug_and_its_oops_are_one_report() {
    let report = only(
        "------------[ cut here ]------------\n\
         kernel BUG at virt/kvm/kvm_main.c:412!\n\
         Oops: invalid opcode: 0000 [#1] SMP NOPTI\n\
         CPU: 0 UID: 0 PID: 99 Comm: exitspec-case Not tainted 6.18.0 #1\n\
         ---[ end trace 0000000000000000 ]---",
    );
    assert_eq!(
        (report.title.as_str(), report.pids.as_slice()),
        ("kernel BUG at virt/kvm/kvm_main.c:412!", &[99][..])
    );
    let report = only(
        "BUG: kernel NULL pointer dereference, address: 0000000000000018\n\
         #PF: supervisor read access in kernel mode\n\
         #PF: error_code(0x0000) - not-present page\n\
         PGD 0 P4D 0 \n\
         Oops: Oops: 0000 [#1] SMP NOPTI\n\
         CPU: 0 UID: 0 PID: 7 Comm: exitspec-case Not tainted 6.18.0 #1\n\
         ---[ end trace 0000000000000000 ]---\n\
         note: exitspec-case[7] exited with irqs disabled",
    );
    assert!(report.title.contains("NULL pointer") && report.pids == [7]);
}

#[test]
fn general_protection_in_the_kernel_and_not_in_a_process() {
    let report = only(
        "traps: bash[12] general protection fault ip:55d0 sp:7ffc error:0 in bash[55d0+1000]\n\
         Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP\n\
         CPU: 1 UID: 0 PID: 13 Comm: exitspec-case Not tainted 6.18.0 #1\n\
         ---[ end trace 0000000000000000 ]---",
    );
    assert!(report.title.contains("non-canonical") && report.pids == [13]);
}

#[test]
fn kasan() {
    let report = only(
        "==================================================================\n\
         BUG: KASAN: slab-use-after-free in kvm_vcpu_kick+0x1c/0x90 [kvm]\n\
         Write of size 8 at addr ffff888104a3c018 by task exitspec-case/512\n\
         \n\
         CPU: 1 UID: 0 PID: 512 Comm: exitspec-case Not tainted 6.18.0 #1\n\
         Call Trace:\n\
         Allocated by task 511:\n\
         ==================================================================\n\
         Disabling lock debugging due to kernel taint",
    );
    assert!(report.title.starts_with("BUG: KASAN: slab-use-after-free"));
    // The allocating task is named too; it may be the case's process before it started a thread.
    assert_eq!(report.pids, [512, 511]);
    assert!(!report.lines.iter().any(|line| line.contains("Disabling")));
}

#[test]
fn kcsan() {
    let report = only(
        "==================================================================\n\
         BUG: KCSAN: data-race in kvm_arch_vcpu_load / kvm_make_request\n\
         \n\
         write to 0xffff88810a5c8a28 of 8 bytes by task 21 on cpu 1:\n \
         kvm_make_request+0x20/0x40\n\
         read to 0xffff88810a5c8a28 of 8 bytes by task 22 on cpu 0:\n\
         Reported by Kernel Concurrency Sanitizer on:\n\
         CPU: 0 UID: 0 PID: 22 Comm: exitspec-case Not tainted 6.18.0 #1\n\
         ==================================================================",
    );
    assert_eq!(report.pids, [21, 22]);
}

#[test]
fn ubsan() {
    let report = only(
        "------------[ cut here ]------------\n\
         UBSAN: shift-out-of-bounds in arch/x86/kvm/lapic.c:330:14\n\
         shift exponent 64 is too large for 64-bit type 'long unsigned int'\n\
         CPU: 0 UID: 0 PID: 5 Comm: exitspec-case Not tainted 6.18.0 #1\n\
         ---[ end trace ]---",
    );
    assert!(report.title.starts_with("UBSAN: shift-out-of-bounds") && report.pids == [5]);
}

#[test]
fn lockdep_and_rcu() {
    let report = only(
        "======================================================\n\
         WARNING: possible circular locking dependency detected\n\
         6.18.0 #1 Not tainted\n\
         ------------------------------------------------------\n\
         exitspec-case/301 is trying to acquire lock:\n\
         ffff888 (&kvm->slots_lock){+.+.}-{4:4}, at: kvm_set_memory_region+0x1/0x2 [kvm]\n\
         \n\
         but task is already holding lock:",
    );
    assert!(report.title.contains("circular locking") && report.pids == [301]);
    let report = only(
        "rcu: INFO: rcu_preempt self-detected stall on CPU\n\
         rcu: \t0-....: (20999 ticks this GP) idle=4f1c/1/0x4000000000000000 softirq=1/1 fqs=5249\n\
         CPU: 0 UID: 0 PID: 77 Comm: exitspec-case Not tainted 6.18.0 #1",
    );
    assert!(report.title.contains("self-detected stall") && report.pids == [77]);
    let report = only(
        "=============================\n\
         WARNING: suspicious RCU usage\n\
         6.18.0 #1 Not tainted\n\
         -----------------------------\n\
         include/linux/kvm_host.h:1057 suspicious rcu_dereference_check() usage!",
    );
    assert_eq!(report.title, "WARNING: suspicious RCU usage");
}

#[test]
fn two_reports_in_a_row_are_two() {
    let warning = "------------[ cut here ]------------\n\
        WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n\
        ---[ end trace 0000000000000000 ]---\n";
    assert_eq!(reports(&format!("{warning}{warning}")).len(), 2);
    // A report without an end mark is ended by the next one.
    assert_eq!(reports(&format!("INFO: task a:1 blocked for more than 120 seconds.\n{warning}")).len(), 2);
}

#[test]
fn callers_tell_interleaved_lines_apart() {
    let mut collector = Collector::default();
    let lines = [
        "4,1,1,-,caller=T9;------------[ cut here ]------------",
        "6,2,2,-,caller=T5;eth0: link up",
        "4,3,3,-,caller=T9;WARNING: CPU: 0 PID: 9 at a.c:1 f+0x1/0x2",
        " SUBSYSTEM=net",
    ];
    assert!(lines.iter().all(|line| collector.record(line).is_none()));
    let report = collector.record("4,4,4,-,caller=T9;---[ end trace 0000000000000000 ]---").unwrap();
    assert_eq!((report.lines.len(), report.pids), (3, vec![9]));
}

#[test]
fn talk_is_no_report_and_a_flood_is_bounded() {
    assert!(
        reports("kvm: disabled by bios\nkvm [41]: ignored rdmsr: 0x345 data 0x0\nsystemd: WARNING: x")
            .is_empty()
    );
    let flood = format!("BUG: sleeping function called from invalid context\n{}", "x\n".repeat(1000));
    let report = only(&flood);
    assert_eq!(report.lines.len(), MOST_LINES);
    let long = only(&format!("BUG: {}", "ü".repeat(5000)));
    assert_eq!(long.lines[0].chars().count(), LONGEST_LINE);
}
