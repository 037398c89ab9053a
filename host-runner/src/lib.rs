//! ExitSpec.

pub mod payload;
