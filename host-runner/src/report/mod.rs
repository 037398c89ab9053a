//! Outcomes as people read them; one file per form. Knows nothing of KVM.

mod changes;
mod console;
mod paint;
mod registers;
mod summary;
mod table;
mod variations;

pub use changes::{Alone, Change, Changes, Fact, Seen};
pub use console::failure;
pub use paint::Paint;
pub use summary::{Summary, Tally};
pub use table::{Column, Table};
pub use variations::Variations;

/// Text from a guest or a kernel, as a terminal may have it.
pub fn shown(text: &str) -> String {
    paint::safe(text)
}
