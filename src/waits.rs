//! How long threads wait for locks that others hold: what sharing costs them. A lock that is free
//! is taken as fast as ever; the clock is read only by who has to wait anyway.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::clock::Tick;

/// All waiting since the start or the last [`Waits::reset`].
#[derive(Debug, Default)]
pub struct Waits {
    ns: AtomicU64,
}

impl Waits {
    /// Locks for reading.
    #[inline]
    pub fn read<'l, T>(&self, lock: &'l RwLock<T>) -> RwLockReadGuard<'l, T> {
        lock.try_read()
            .unwrap_or_else(|| self.count(|| lock.read()))
    }

    /// Locks for writing.
    #[inline]
    pub fn write<'l, T>(&self, lock: &'l RwLock<T>) -> RwLockWriteGuard<'l, T> {
        lock.try_write()
            .unwrap_or_else(|| self.count(|| lock.write()))
    }

    /// Locks for whatever it is.
    #[inline]
    pub fn lock<'l, T>(&self, lock: &'l Mutex<T>) -> MutexGuard<'l, T> {
        lock.try_lock()
            .unwrap_or_else(|| self.count(|| lock.lock()))
    }

    #[cold]
    fn count<G>(&self, wait: impl FnOnce() -> G) -> G {
        let begun = Tick::now();
        let guard = wait();
        let ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.ns.fetch_add(ns, Relaxed);
        guard
    }

    /// The time that all threads have waited, summed, in microseconds.
    pub fn us(&self) -> u64 {
        self.ns.load(Relaxed) / 1000
    }

    /// Forgets what was measured.
    pub fn reset(&self) {
        self.ns.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_who_waits_is_counted() {
        let (waits, lock) = (Waits::default(), RwLock::new(1));
        drop((waits.read(&lock), waits.read(&lock)));
        drop(waits.write(&lock));
        drop(waits.lock(&Mutex::new(2)));
        assert_eq!(waits.ns.load(Relaxed), 0);
        // Now and then the other thread comes so late that the lock is free again.
        let waited = (0..100).any(|_| {
            let held = lock.write();
            let (tell, told) = mpsc::channel();
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    tell.send(()).unwrap();
                    drop(waits.read(&lock));
                });
                told.recv().unwrap();
                std::thread::sleep(Duration::from_millis(5));
                drop(held);
            });
            waits.us() > 0
        });
        assert!(waited);
        waits.reset();
        assert_eq!(waits.us(), 0);
    }
}
