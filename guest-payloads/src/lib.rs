//! The guest runtime: what runs inside the VM.
#![no_std]
