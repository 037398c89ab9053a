//! The yardstick: the same guest on the same KVM by nothing but libc's `ioctl`, the least that any VMM
//! must do. No library, no checks beyond "did it work", no matching.
#![allow(unsafe_code, reason = "the yardstick is raw ioctls")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "fixed ioctls on structures of the right type, and one's own mappings"
)]

use std::ptr;

use exitspec::payload::{Descriptor, Image};
use kvm_bindings as kvm;
use libc::{c_int, c_ulong, c_void};

const KVM_CREATE_VM: c_ulong = 0xae01;
const KVM_GET_VCPU_MMAP_SIZE: c_ulong = 0xae04;
const KVM_CREATE_VCPU: c_ulong = 0xae41;
const KVM_SET_USER_MEMORY_REGION: c_ulong = 0x4020_ae46;
const KVM_RUN: c_ulong = 0xae80;
const KVM_SET_REGS: c_ulong = 0x4090_ae82;
const KVM_GET_SREGS: c_ulong = 0x8138_ae83;
const KVM_SET_SREGS: c_ulong = 0x4138_ae84;
const KVM_SET_CPUID2: c_ulong = 0x4008_ae90;

/// The device, and what does not change from VM to VM.
pub struct Bare {
    kvm: c_int,
    run_size: usize,
    cpuid: Vec<u8>,
}

/// A VM with one vCPU.
pub struct Vm<'b> {
    bare: &'b Bare,
    fd: c_int,
    vcpu: c_int,
    run: *mut kvm::kvm_run,
    ram: *mut u8,
    ram_size: usize,
}

fn ok(result: c_int) -> c_int {
    assert!(result >= 0, "ioctl: {}", std::io::Error::last_os_error());
    result
}

impl Bare {
    pub fn new(cpuid: &kvm::CpuId) -> Self {
        let entries = cpuid.as_slice();
        let mut bytes = (entries.len() as u64).to_le_bytes().to_vec();
        let size = size_of_val(entries);
        bytes.extend(unsafe { std::slice::from_raw_parts(entries.as_ptr().cast::<u8>(), size) });
        unsafe {
            let kvm = ok(libc::open(c"/dev/kvm".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC));
            let run_size = ok(libc::ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)).cast_unsigned() as usize;
            Self { kvm, run_size, cpuid: bytes }
        }
    }

    /// Creates a VM and loads the image: everything before the first KVM_RUN.
    pub fn boot(&self, image: &Image, params: &[u8]) -> Vm<'_> {
        let ram_size = image.memory as usize;
        unsafe {
            let vm = ok(libc::ioctl(self.kvm, KVM_CREATE_VM, 0));
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let ram = libc::mmap(ptr::null_mut(), ram_size, prot, flags, -1, 0).cast::<u8>();
            assert!(ram.cast() != libc::MAP_FAILED);
            for chunk in &image.chunks {
                ptr::copy_nonoverlapping(
                    chunk.bytes.as_ptr(),
                    ram.add(chunk.gpa as usize),
                    chunk.bytes.len(),
                );
            }
            ptr::copy_nonoverlapping(params.as_ptr(), ram.add(image.params_gpa as usize), params.len());
            let region = kvm::kvm_userspace_memory_region {
                memory_size: ram_size as u64,
                userspace_addr: ram as u64,
                ..Default::default()
            };
            ok(libc::ioctl(vm, KVM_SET_USER_MEMORY_REGION, &raw const region));
            let vcpu = ok(libc::ioctl(vm, KVM_CREATE_VCPU, 0));
            let run = libc::mmap(ptr::null_mut(), self.run_size, prot, libc::MAP_SHARED, vcpu, 0);
            assert!(run != libc::MAP_FAILED);
            ok(libc::ioctl(vcpu, KVM_SET_CPUID2, self.cpuid.as_ptr()));
            let mut sregs = kvm::kvm_sregs::default();
            ok(libc::ioctl(vcpu, KVM_GET_SREGS, &raw mut sregs));
            let start = &image.start;
            let data = segment(&start.data);
            sregs.cs = segment(&start.code);
            (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
            sregs.tr = segment(&start.task);
            sregs.ldt = kvm::kvm_segment { unusable: 1, ..Default::default() };
            sregs.gdt =
                kvm::kvm_dtable { base: start.gdt.base, limit: start.gdt.limit, ..Default::default() };
            sregs.idt = kvm::kvm_dtable::default();
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (start.cr0, start.cr3, start.cr4, start.efer);
            ok(libc::ioctl(vcpu, KVM_SET_SREGS, &raw const sregs));
            let (rip, rsp, rdi, rflags) = (start.rip, start.rsp, start.rdi, start.rflags);
            let regs = kvm::kvm_regs { rip, rsp, rdi, rflags, ..Default::default() };
            ok(libc::ioctl(vcpu, KVM_SET_REGS, &raw const regs));
            Vm { bare: self, fd: vm, vcpu, run: run.cast(), ram, ram_size }
        }
    }
}

impl Vm<'_> {
    /// KVM_RUN, which must exit for port I/O.
    pub fn run_to_io(&mut self) {
        unsafe {
            ok(libc::ioctl(self.vcpu, KVM_RUN, 0));
            assert_eq!((&raw const (*self.run).exit_reason).read_volatile(), kvm::KVM_EXIT_IO);
        }
    }
}

impl Drop for Vm<'_> {
    fn drop(&mut self) {
        unsafe {
            libc::munmap(self.run.cast::<c_void>(), self.bare.run_size);
            libc::close(self.vcpu);
            libc::close(self.fd);
            libc::munmap(self.ram.cast::<c_void>(), self.ram_size);
        }
    }
}

fn segment(from: &Descriptor) -> kvm::kvm_segment {
    let bit = |at: u32| (from.access >> at & 1) as u8;
    kvm::kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: (from.access & 0xf) as u8,
        present: bit(7),
        dpl: (from.access >> 5 & 3) as u8,
        db: bit(14),
        s: bit(4),
        l: bit(13),
        g: bit(15),
        avl: bit(12),
        ..Default::default()
    }
}
