//! ExitSpec.
