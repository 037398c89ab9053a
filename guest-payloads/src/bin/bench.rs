//! What the benchmark plays: a guest that does next to nothing.
#![no_std]
#![no_main]
guest::payload!();

guest::scenario! {
    /// One exit; the report of the end is the second.
    fn two_exits() {
        guest::pio::out8(0x80, 1);
    }

    /// Exits without end.
    fn exit_loop() {
        loop {
            guest::pio::out8(0x80, 1);
        }
    }
}
