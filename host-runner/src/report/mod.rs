//! Outcomes as people read them; one file per form. Knows nothing of KVM.

mod console;
mod paint;
mod registers;
mod summary;
mod table;
mod variations;

pub use console::failure;
pub use paint::Paint;
pub use summary::{Summary, Tally};
pub use table::{Column, Table};
pub use variations::Variations;
