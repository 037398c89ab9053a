//! The runtime tests itself: each scenario uses one of its promises.
#![no_std]
#![no_main]
guest::payload!();

guest::scenario! {
    /// Returns at once.
    fn done() {}
}
