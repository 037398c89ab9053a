//! KVM_GET_NESTED_STATE's header as named numbers (KVM API 4.114). It does no ioctl: the machine does.

use kvm_bindings as kvm;
use kvm_ioctls::KvmNestedStateBuffer;

/// Names that every vendor's state has.
const COMMON: &[&str] = &["flags", "format", "size", "guest-mode", "run-pending", "gif"];
/// Names of `hdr.svm`.
const SVM: &[&str] = &["svm.vmcb-pa"];
/// Names of `hdr.vmx`.
const VMX: &[&str] = &["vmx.vmxon-pa", "vmx.vmcs12-pa", "vmx.smm.flags", "vmx.flags"];

/// Every name.
pub fn names() -> impl Iterator<Item = &'static str> {
    [COMMON, SVM, VMX].into_iter().flatten().copied()
}

/// A flag's bit, by the flag's name.
fn flag(name: &str) -> Option<u16> {
    Some(match name {
        "guest-mode" => kvm::KVM_STATE_NESTED_GUEST_MODE as u16,
        "run-pending" => kvm::KVM_STATE_NESTED_RUN_PENDING as u16,
        "gif" => kvm::KVM_STATE_NESTED_GIF_SET as u16,
        _ => return None,
    })
}

/// Whether the state is of the vendor whose field `name` is.
fn of_its_vendor(state: &KvmNestedStateBuffer, name: &str) -> bool {
    let format = u32::from(state.format);
    !(SVM.contains(&name) && format != kvm::KVM_STATE_NESTED_FORMAT_SVM
        || VMX.contains(&name) && format != kvm::KVM_STATE_NESTED_FORMAT_VMX)
}

/// The number called `name`; `None` if this vendor's state has none.
pub fn get(state: &KvmNestedStateBuffer, name: &str) -> Option<u64> {
    if !of_its_vendor(state, name) {
        return None;
    }
    if let Some(bit) = flag(name) {
        return Some((state.flags & bit != 0).into());
    }
    let header = header(state);
    Some(match name {
        "flags" => state.flags.into(),
        "format" => state.format.into(),
        "size" => state.size.into(),
        "svm.vmcb-pa" | "vmx.vmxon-pa" => header[0],
        "vmx.vmcs12-pa" => header[1],
        "vmx.smm.flags" => header[2] & 0xffff,
        "vmx.flags" => header[2] >> 32,
        _ => return None,
    })
}

/// Sets the number called `name`, cut to its width; `None` if this vendor's state has none.
pub fn set(state: &mut KvmNestedStateBuffer, name: &str, value: u64) -> Option<()> {
    if !of_its_vendor(state, name) {
        return None;
    }
    if let Some(bit) = flag(name) {
        state.flags = if value == 0 { state.flags & !bit } else { state.flags | bit };
        return Some(());
    }
    let mut header = header(state);
    match name {
        "flags" => state.flags = value as u16,
        "format" => state.format = value as u16,
        "size" => state.size = value as u32,
        "svm.vmcb-pa" | "vmx.vmxon-pa" => header[0] = value,
        "vmx.vmcs12-pa" => header[1] = value,
        "vmx.smm.flags" => header[2] = header[2] & !0xffff | value & 0xffff,
        "vmx.flags" => header[2] = header[2] & 0xffff_ffff | value << 32,
        _ => return None,
    }
    set_header(state, header);
    Some(())
}

/// The first three words of the header: all that either vendor's part has that is named here.
fn header(state: &KvmNestedStateBuffer) -> [u64; 3] {
    let bytes = pad(state);
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    [word(0), word(8), word(16)]
}

fn set_header(state: &mut KvmNestedStateBuffer, words: [u64; 3]) {
    let mut bytes = pad(state);
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    state.hdr.pad = bytes;
}

#[expect(unsafe_code, reason = "the header is a union")]
fn pad(state: &KvmNestedStateBuffer) -> [u8; 120] {
    // SAFETY: the union is plain numbers of 120 bytes; KVM or `zeroed` initialized all of it.
    unsafe { state.hdr.pad }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_vendor_reads_back_what_was_set_and_shares_no_place() {
        for (format, own, other) in [(0, VMX, SVM), (1, SVM, VMX)] {
            for name in own.iter().chain(&["guest-mode", "run-pending", "gif"]) {
                let mut state = KvmNestedStateBuffer::empty();
                state.format = format;
                set(&mut state, name, 1).unwrap();
                assert_eq!(get(&state, name), Some(1), "{name}");
                let others = own.iter().filter(|other| *other != name && get(&state, other) != Some(0));
                assert_eq!(others.count(), 0, "{name} shares its place");
            }
            let mut state = KvmNestedStateBuffer::empty();
            state.format = format;
            assert!(
                other.iter().all(|name| get(&state, name).is_none() && set(&mut state, name, 0).is_none())
            );
        }
    }

    #[test]
    fn flags_are_bits_of_one_number() {
        let mut state = KvmNestedStateBuffer::empty();
        set(&mut state, "flags", 0x103).unwrap();
        assert_eq!(["guest-mode", "run-pending", "gif"].map(|name| get(&state, name)), [Some(1); 3]);
        set(&mut state, "guest-mode", 0).unwrap();
        assert_eq!(get(&state, "flags"), Some(0x102));
    }
}
