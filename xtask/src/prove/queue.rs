//! What is built and waits for a machine: some of it at once, since to boot one costs more than to use it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What waits, while others take it.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

/// Whoever puts something in. Nothing comes any more once it is gone.
#[derive(Debug)]
pub(crate) struct Giver<'a, T>(&'a Queue<T>);

impl<T> Queue<T> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), closed: false }), changed: Condvar::new() }
    }

    /// The one who puts something in.
    pub(crate) fn giver(&self) -> Giver<'_, T> {
        Giver(self)
    }

    /// Waits for something, and for at most so long for others of the same kind, until there are `most`; what has no
    /// kind comes alone. Empty if nothing comes any more.
    pub(crate) fn take<K: PartialEq>(
        &self,
        most: usize,
        linger: Duration,
        kind: impl Fn(&T) -> Option<K>,
    ) -> Vec<T> {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut taken: Vec<T> = state.waiting.pop_front().into_iter().collect();
        let Some(wanted) = taken.first().and_then(&kind) else { return taken };
        let began = Instant::now();
        loop {
            let mut place = 0;
            while taken.len() < most && place < state.waiting.len() {
                if kind(&state.waiting[place]).as_ref() == Some(&wanted) {
                    taken.extend(state.waiting.remove(place));
                } else {
                    place += 1;
                }
            }
            let left = linger.saturating_sub(began.elapsed());
            if taken.len() >= most || state.closed || left.is_zero() {
                return taken;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Giver<'_, T> {
    /// Puts something in.
    pub(crate) fn give(&self, what: T) {
        self.0.lock().waiting.push_back(what);
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Giver<'_, T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    /// Lower-case letters are of one kind, digits of another, capitals of none.
    fn kind(letter: char) -> Option<bool> {
        (!letter.is_uppercase()).then(|| letter.is_ascii_digit())
    }

    fn taken(queue: &Queue<char>, linger: Duration) -> String {
        queue.take(3, linger, |letter| kind(*letter)).into_iter().collect()
    }

    #[test]
    fn what_is_of_a_kind_comes_together_and_the_rest_keeps_its_order() {
        let queue = Queue::new();
        let giver = queue.giver();
        "a1bXc2dYe".chars().for_each(|letter| giver.give(letter));
        drop(giver);
        let all: Vec<String> = (0..8).map(|_| taken(&queue, LONG)).collect();
        assert_eq!(all, ["abc", "12", "X", "de", "Y", "", "", ""]);
    }

    #[test]
    fn a_full_batch_waits_for_nobody_and_another_no_longer_than_it_is_let() {
        let queue = Queue::new();
        let giver = queue.giver();
        "abcd".chars().for_each(|letter| giver.give(letter));
        assert_eq!(taken(&queue, LONG), "abc");
        assert_eq!(taken(&queue, Duration::ZERO), "d");
    }

    #[test]
    fn what_comes_while_it_is_waited_for_goes_along() {
        let queue = Queue::new();
        let giver = queue.giver();
        giver.give('a');
        thread::scope(|scope| {
            let both = scope.spawn(|| taken(&queue, LONG));
            "1b".chars().for_each(|letter| giver.give(letter));
            drop(giver);
            assert_eq!(both.join().unwrap(), "ab");
        });
        assert_eq!(taken(&queue, LONG), "1");
    }
}
