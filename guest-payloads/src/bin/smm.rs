//! SMIs: what they interrupt, what their handlers find, and what RSM brings back.
#![no_std]
#![no_main]
guest::payload!();

use guest::pio::out8;
use guest::report::value;
use guest::{smi_handler, smi_label, smm};

smi_handler! {
    /// Halts, which exits, and goes back.
    knock: "hlt", smi_label!("knocked"), "rsm"
}

guest::scenario! {
    /// Exits, for the host to send an SMI.
    fn knock_once() {
        smm::install(&knock);
        out8(0x81, 1);
        value("behind", 1);
    }

    /// As `knock_once`, with a handler in Rust.
    fn in_rust() {
        smm::handle(|| value("in the handler", 1));
        out8(0x81, 1);
        value("behind", 1);
    }
}
