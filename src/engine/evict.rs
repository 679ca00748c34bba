//! Making room at the memory limit.

use super::Engine;
use crate::command::Refusal;

/// How often a command makes room and is decided again: others may take the room first.
const TRIES: usize = 8;

/// A command's tries to find room.
#[derive(Default)]
pub(super) struct Tries(usize);

impl Tries {
    /// Makes room for so many bytes more, without any lock; the refusal if there is none to be
    /// made.
    pub(super) fn make_room(&mut self, engine: &Engine, bytes: u64) -> Result<(), Refusal> {
        self.0 += 1;
        if self.0 <= TRIES && engine.make_room(bytes) {
            Ok(())
        } else {
            Err(Refusal::OutOfMemory)
        }
    }
}

impl Engine {
    /// Removes entries that may be evicted, so that `bytes` more fit; true if they may fit now.
    fn make_room(&self, _bytes: u64) -> bool {
        false
    }
}
