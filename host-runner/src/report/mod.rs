//! Outcomes as people read them; one file per form. Knows nothing of KVM.

mod changes;
mod console;
pub mod github;
pub mod html;
pub mod json;
pub mod junit;
pub mod kcidb;
pub mod ktap;
mod paint;
mod registers;
mod results;
pub mod sarif;
mod summary;
mod table;
mod text;
mod variations;

pub use changes::{Alone, Change, Changes, Fact, Seen};
pub use console::failure;
pub use paint::Paint;
pub use results::{Results, Run, STRAY, State, Test};
pub use summary::{Summary, Tally};
pub use table::{Column, Table};
pub use variations::{Rows, Variations};

/// Text from a guest or a kernel, as a terminal may have it.
pub fn shown(text: &str) -> String {
    paint::safe(text)
}

#[cfg(test)]
mod tests {
    use crate::case::{Basis, Place};
    use crate::journal::About;

    /// What a case of the tests is.
    pub(super) fn about() -> About {
        About {
            summary: "It holds".into(),
            basis: Basis::KvmAbi,
            detects: "it does not hold".into(),
            reference: vec!["KVM API 5".into()],
            place: Place { file: "/suite/manifests/m.toml".into(), line: 3, column: 8, text: "a.b".into() },
            again: "cargo xtask test --exact a.b".into(),
        }
    }
}
