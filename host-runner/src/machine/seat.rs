//! Where a vCPU's KVM_RUN happens: on the caller's thread, or on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::limit::Limit;
use super::vcpu::Vcpu;
use crate::exit::Exit;
use crate::play::TargetError;

/// A thread that runs one vCPU when told to.
pub struct Seat {
    go: Option<SyncSender<()>>,
    exits: Receiver<Result<Exit, TargetError>>,
    thread: Option<JoinHandle<()>>,
    /// The thread, as the kernel knows it.
    pub tid: i32,
    /// It has been told to run and its exit has not been taken.
    pub busy: bool,
    /// It goes on by itself once its exit has been dealt with.
    pub background: bool,
}

impl Seat {
    /// A new thread for `vcpu`, waiting.
    pub fn new(vcpu: Arc<Vcpu>, budget: Duration, background: bool) -> Result<Self, TargetError> {
        let (go, told) = sync_channel::<()>(1);
        let (exited, exits) = sync_channel(1);
        let (named, name) = sync_channel(1);
        let body = move || {
            let mut limit = Limit::new(budget);
            if named.send(nix::unistd::gettid().as_raw()).is_err() {
                return;
            }
            while told.recv().is_ok() {
                let exit = match &mut limit {
                    Ok(limit) => vcpu.run(limit),
                    Err(error) => Err(error.clone()),
                };
                if exited.send(exit).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(body);
        let thread = thread.map_err(|error| TargetError::Harness(format!("a vCPU thread: {error}")))?;
        let tid = name.recv().map_err(|_| died())?;
        Ok(Self { go: Some(go), exits, thread: Some(thread), tid, busy: false, background })
    }

    /// Lets the vCPU run until its next exit.
    pub fn go(&mut self) -> Result<(), TargetError> {
        if !self.busy {
            let told = self.go.as_ref().is_some_and(|go| go.send(()).is_ok());
            if !told {
                return Err(died());
            }
            self.busy = true;
        }
        Ok(())
    }

    /// An exit that has come and that nobody has asked for.
    pub fn unclaimed(&mut self) -> Option<Result<Exit, TargetError>> {
        let exit = self.exits.try_recv().ok()?;
        self.busy = false;
        Some(exit)
    }

    /// Waits for the exit.
    pub fn exit(&mut self) -> Result<Exit, TargetError> {
        self.go()?;
        let exit = self.exits.recv().map_err(|_| died())?;
        self.busy = false;
        exit
    }
}

impl Drop for Seat {
    /// Waits for the thread: its time limit bounds how long.
    fn drop(&mut self) {
        self.go = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by `died` or does not matter any more.
            let _ = thread.join();
        }
    }
}

fn died() -> TargetError {
    TargetError::Harness("a vCPU thread died".into())
}
