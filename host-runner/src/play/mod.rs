//! The heart: walks a case's steps over a target, matches exits, collects the evidence.
//!
//! It knows nothing of ioctls (the target does) and nothing of formats (reports do).

mod code;
mod evidence;
mod guest;
mod perturb;
mod player;
mod show;
mod target;
mod unchanged;

#[cfg(test)]
mod tests;

pub use perturb::Perturb;
pub use player::play;
pub use show::step as show_step;
pub use target::{Target, TargetError};
