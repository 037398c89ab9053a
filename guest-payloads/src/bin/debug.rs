//! Debugging: by the host (KVM_SET_GUEST_DEBUG) and by the guest itself (TF, DR0 to DR7).
#![no_std]
#![no_main]
guest::payload!();
