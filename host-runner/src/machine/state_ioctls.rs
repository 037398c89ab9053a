//! The ioctls for a vCPU's state that kvm-ioctls lacks, or offers with too small a type.
#![expect(unsafe_code, reason = "ioctls on buffers whose size KVM tells")]

use kvm_bindings as kvm;
use kvm_bindings::KVMIO;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

use super::banks::failed;
use crate::play::TargetError;

ioctl_ior_nr!(KVM_GET_SREGS2, KVMIO, 0xcc, kvm::kvm_sregs2);
ioctl_iow_nr!(KVM_SET_SREGS2, KVMIO, 0xcd, kvm::kvm_sregs2);
ioctl_ior_nr!(KVM_GET_XSAVE, KVMIO, 0xa4, kvm::kvm_xsave);
ioctl_ior_nr!(KVM_GET_XSAVE2, KVMIO, 0xcf, kvm::kvm_xsave);
ioctl_iow_nr!(KVM_SET_XSAVE, KVMIO, 0xa5, kvm::kvm_xsave);

/// Bytes of what KVM_GET_XSAVE writes and KVM_SET_XSAVE reads at least (KVM API 4.42, 4.43).
const XSAVE: usize = 4096;

/// The page-directory-pointer-table entries that the vCPU has loaded, which KVM_GET_SREGS lacks; `None` if its paging
/// has none.
pub fn pdptrs(fd: &VcpuFd) -> Result<Option<[u64; 4]>, TargetError> {
    let mut sregs = kvm::kvm_sregs2::default();
    // SAFETY: KVM writes one `kvm_sregs2` (KVM API 4.131).
    told(unsafe { ioctl_with_mut_ref(fd, KVM_GET_SREGS2(), &mut sregs) }, "KVM_GET_SREGS2")?;
    let valid = sregs.flags & u64::from(kvm::KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
    Ok(valid.then_some(sregs.pdptrs))
}

/// KVM_SET_SREGS, with these PDPTRs instead of what the guest's memory says now. A pending interrupt is not in it:
/// KVM_SET_VCPU_EVENTS restores that too.
pub fn set_sregs_and_pdptrs(
    fd: &VcpuFd,
    sregs: &kvm::kvm_sregs,
    pdptrs: [u64; 4],
) -> Result<(), TargetError> {
    let kvm::kvm_sregs { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, .. } = *sregs;
    let kvm::kvm_sregs { cr0, cr2, cr3, cr4, cr8, efer, apic_base, .. } = *sregs;
    let flags = kvm::KVM_SREGS2_FLAGS_PDPTRS_VALID.into();
    #[rustfmt::skip]
    let sregs = kvm::kvm_sregs2 {
        cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, cr0, cr2, cr3, cr4, cr8, efer, apic_base, flags, pdptrs,
    };
    // SAFETY: KVM reads one `kvm_sregs2` (KVM API 4.132).
    told(unsafe { ioctl_with_ref(fd, KVM_SET_SREGS2(), &sregs) }, "KVM_SET_SREGS2")
}

/// The FPU's and the extended state; `size` is what KVM_CAP_XSAVE2 says of the VM, 0 without it.
pub fn xsave(fd: &VcpuFd, size: usize) -> Result<Vec<u64>, TargetError> {
    let (ioctl, name) =
        if size == 0 { (KVM_GET_XSAVE(), "KVM_GET_XSAVE") } else { (KVM_GET_XSAVE2(), "KVM_GET_XSAVE2") };
    let mut state = vec![0; size.max(XSAVE).div_ceil(size_of::<u64>())];
    // SAFETY: KVM writes as many bytes as KVM_CAP_XSAVE2 says (KVM API 4.134), or 4096, and so many there are.
    told(unsafe { ioctl_with_mut_ptr(fd, ioctl, state.as_mut_ptr()) }, name)?;
    Ok(state)
}

/// Writes what [`xsave`] has read from a vCPU of a VM like this.
pub fn set_xsave(fd: &VcpuFd, state: &[u64]) -> Result<(), TargetError> {
    // SAFETY: KVM reads as many bytes as KVM_CAP_XSAVE2 says of this VM, which is built like the one that the state is
    // from, or 4096 (KVM API 4.43), and so many there are.
    told(unsafe { ioctl_with_ptr(fd, KVM_SET_XSAVE(), state.as_ptr()) }, "KVM_SET_XSAVE")
}

fn told(result: i32, ioctl: &str) -> Result<(), TargetError> {
    if result == 0 { Ok(()) } else { Err(failed(ioctl)(kvm_ioctls::Error::last())) }
}
