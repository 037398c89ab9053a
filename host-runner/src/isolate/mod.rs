//! One process per case, so that no case can spoil another.
//!
//! The supervisor keeps a [`Pool`] of workers: this program again, as the hidden subcommand
//! `worker`. A worker has loaded manifests and payloads once, has a single thread, and forks one
//! child per case. Only the child touches KVM. It hands over one JSON [`Outcome`] through a pipe.
//! This module knows nothing of what a case does.
//!
//! [`Outcome`]: crate::outcome::Outcome

mod budget;
mod child;
mod pool;
mod watch;
mod wire;
mod worker;

pub use budget::time_limit;
pub use pool::{Pool, Stopper};
pub use wire::Played;
pub use worker::serve;
