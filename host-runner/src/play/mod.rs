//! The heart: walks a case's steps over a target, matches exits, collects the evidence.
//!
//! It knows nothing of ioctls (the target does) and nothing of formats (reports do).

mod target;

pub use target::{Target, TargetError};
