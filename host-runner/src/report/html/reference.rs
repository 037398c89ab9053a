//! References of cases as links, where it follows from their words what they point to.

use maud::{Markup, html};

use super::text::Shown;

const COMMITS: &str = "https://git.kernel.org/linus/";
const API: &str = "https://docs.kernel.org/virt/kvm/api.html";
const DOCUMENTATION: &str = "https://docs.kernel.org/";
/// The section of KVM's API that defines `kvm_run` and its exits.
const KVM_RUN: &str = "the-kvm-run-structure";

/// A reference; manuals of vendors stay text.
pub(super) fn link(reference: &str) -> Markup {
    html! {
        @if let Some(url) = target(reference) {
            a href=(url) rel="noreferrer" { (Shown(reference)) }
        } @else {
            (Shown(reference))
        }
    }
}

fn target(reference: &str) -> Option<String> {
    let word =
        |text: &str, plain: fn(char) -> bool| -> String { text.chars().take_while(|c| plain(*c)).collect() };
    if let Some(rest) = reference.strip_prefix("commit ") {
        let hash = word(rest, |c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
        return (8..=40).contains(&hash.len()).then(|| format!("{COMMITS}{hash}"));
    }
    if let Some(rest) = reference.strip_prefix("Documentation/") {
        let path = word(rest, |c| c.is_ascii_alphanumeric() || "/_-.".contains(c));
        let page = path.strip_suffix(".rst").filter(|page| !page.contains(".."))?;
        return Some(format!("{DOCUMENTATION}{page}.html"));
    }
    let section = reference.strip_prefix("KVM API")?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let anchor = section.split(|c| !is_word(c)).find_map(anchor);
    Some(anchor.map_or_else(|| API.to_owned(), |anchor| format!("{API}#{anchor}")))
}

/// The anchor of the section that a name belongs to: docutils makes it from the section's title, which mostly is the
/// name of the ioctl or capability behind a number.
fn anchor(name: &str) -> Option<String> {
    const IOCTLS: [&str; 7] = ["GET_", "SET_", "RUN", "INTERRUPT", "NMI", "SIGNAL_", "X86_SET_"];
    let own = || Some(name.to_ascii_lowercase().replace('_', "-"));
    let rest = name.strip_prefix("KVM_").unwrap_or_default();
    match name {
        "kvm_run" | "immediate_exit" => Some(KVM_RUN.to_owned()),
        "KVM_REGISTER_COALESCED_MMIO" => Some("kvm-un-register-coalesced-mmio".to_owned()),
        "KVM_GET_DIRTY_LOG" => Some("kvm-get-dirty-log-vm-ioctl".to_owned()),
        // It has no section of its own.
        "KVM_CAP_MULTI_ADDRESS_SPACE" => None,
        _ if rest.starts_with("EXIT_") => Some(KVM_RUN.to_owned()),
        _ if rest.starts_with("CAP_") || IOCTLS.iter().any(|ioctl| rest.starts_with(ioctl)) => own(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_found_is_linked() {
        let api = |anchor: &str| Some(format!("{API}{anchor}"));
        let all = [
            ("commit 45def77ebf79", Some(format!("{COMMITS}45def77ebf79"))),
            ("commit 45def77ebf79: OUT 92h or CF9h", Some(format!("{COMMITS}45def77ebf79"))),
            ("commit of mine", None),
            ("KVM API 4.35 KVM_SET_USER_MEMORY_REGION: address spaces", api("#kvm-set-user-memory-region")),
            ("KVM API, 4.10 KVM_RUN, EINTR", api("#kvm-run")),
            ("KVM API 5, kvm_run, KVM_EXIT_IO", api("#the-kvm-run-structure")),
            ("KVM API 7.7 KVM_CAP_X2APIC_API", api("#kvm-cap-x2apic-api")),
            ("KVM API 4.116, KVM_REGISTER_COALESCED_MMIO", api("#kvm-un-register-coalesced-mmio")),
            ("KVM API 4.87", api("")),
            (
                "Documentation/virt/kvm/x86/msr.rst, MSR_KVM_WALL_CLOCK_NEW",
                Some("https://docs.kernel.org/virt/kvm/x86/msr.html".to_owned()),
            ),
            ("Documentation/../../evil.rst", None),
            ("SDM vol. 3C, VMXON", None),
            ("javascript:alert(1)", None),
        ];
        for (reference, url) in all {
            assert_eq!(target(reference), url, "{reference}");
        }
    }

    #[test]
    fn a_link_keeps_its_words() {
        let html = link("commit 45def77ebf79 (KVM: x86: <b>)").into_string();
        assert!(html.contains(">commit 45def77ebf79 (KVM: x86: &lt;b&gt;)</a>"), "{html}");
    }
}
