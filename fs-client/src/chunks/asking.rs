//! [`Asking`]: whether it pays to ask the nodes for a chunk before it is sent.
//!
//! New data should not wait for questions that are answered with no; data that is there already should
//! not travel. So one chunk in [`PROBE`] is asked for while nothing is found, the first one included; the
//! first that is found switches questions on for all, and [`MISSES`] in a row that are not switch them off
//! again. Chunks are uploaded side by side: a question costs a round trip, but holds nobody else up.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// While nothing is found one chunk of this many is asked for.
const PROBE: u32 = 32;
/// So many that are not there in a row: it does not pay any more.
const MISSES: u32 = 64;
/// A chunk of fewer bytes is sent sooner than asked for.
const WORTH: usize = 16 * 1024;

#[derive(Debug, Default)]
struct State {
    /// Every chunk is asked for.
    always: bool,
    /// Chunks until the next probe.
    unasked: u32,
    misses: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Asking {
    state: Mutex<State>,
}

impl Asking {
    /// Whether to ask for the next chunk, which has `len` bytes.
    pub(super) fn pays(&self, len: usize) -> bool {
        if len < WORTH {
            return false;
        }
        let mut state = self.lock();
        if state.always {
            return true;
        }
        match state.unasked.checked_sub(1) {
            Some(left) => {
                state.unasked = left;
                false
            }
            None => {
                state.unasked = PROBE - 1;
                true
            }
        }
    }

    /// A node was asked for a chunk.
    pub(super) fn heard(&self, found: bool) {
        let mut state = self.lock();
        if found {
            (state.always, state.misses) = (true, 0);
        } else if state.always {
            state.misses += 1;
            state.always = state.misses < MISSES;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 65_536;

    /// How many of `count` chunks are asked for that are all there, or all not.
    fn asked(asking: &Asking, count: u32, found: bool) -> u32 {
        let mut asked = 0;
        for _ in 0..count {
            if asking.pays(CHUNK) {
                asked += 1;
                asking.heard(found);
            }
        }
        asked
    }

    #[test]
    fn new_data_is_hardly_asked_for_and_known_data_always() {
        let asking = Asking::default();
        assert_eq!(asked(&asking, 320, false), 10);
        assert_eq!(asked(&asking, PROBE, true), 32, "the first probe has found it");
        assert_eq!(asked(&asking, 1000, true), 1000);
        assert_eq!(asked(&asking, MISSES, false), MISSES);
        assert_eq!(asked(&asking, 320, false), 10);
        assert!(!asking.pays(WORTH - 1), "small chunks are sent");
    }

    #[test]
    fn what_is_partly_known_is_asked_for() {
        let asking = Asking::default();
        asking.heard(true);
        for n in 0..1000 {
            assert!(asking.pays(CHUNK), "chunk {n}");
            asking.heard(n % 10 == 0);
        }
    }
}
