//! Developer tasks, one file per verb.
fn main() {}
