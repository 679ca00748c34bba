//! Bit rot: every bit of a journal, and damages of every other form: refused with its place, or
//! a reported tail beyond what was promised; never a silent change.

use super::damage::{ACTIVE, BatchEnd, Digest, long_journal, with_file};
use super::*;

/// A journal to be damaged.
struct Whole {
    disk: SimDisk,
    bytes: Vec<u8>,
    ends: Vec<BatchEnd>,
}

impl Whole {
    fn new(closed: bool) -> Self {
        let (disk, ends) = long_journal(true, closed);
        let bytes = disk.read(ACTIVE).unwrap();
        Self { disk, bytes, ends }
    }

    /// Where the last batch of records ends.
    fn end(&self) -> usize {
        self.ends.last().unwrap().0
    }

    /// The records of which something in these bytes says that they were synced: the header of
    /// each batch says it of those before it, and the End batch of all.
    fn promised(&self, bytes: &[u8]) -> usize {
        let headers = self.ends.iter().rev();
        let mut left = headers.filter(|(start, _, _)| {
            let header = &self.bytes[*start..(*start + 52).min(self.bytes.len())];
            let written = header.iter().any(|byte| *byte != 0);
            written && memchr::memmem::find(bytes, header).is_some()
        });
        left.next().map_or(0, |(_, records, _)| *records)
    }

    /// Opens the journal with other bytes: false if it is refused.
    fn judge(&self, bytes: &[u8], what: &dyn Fn() -> String) -> bool {
        let left = with_file(&self.disk, ACTIVE, bytes);
        let mut digest = Digest::default();
        let disk = Arc::new(left.clone());
        let opened = Journal::open(disk, options(Fsync::Always), &mut digest);
        let recovered = match opened {
            Ok((_, recovered)) => recovered,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(ACTIVE), "{}: {text}", what());
                assert_eq!(left.read(ACTIVE).unwrap(), bytes, "{}: changed", what());
                return false;
            }
        };
        let at = self.ends.iter().find(|end| end.1 == digest.records);
        let (end, records, checksum) = *at.unwrap_or_else(|| panic!("{}: half a batch", what()));
        assert_eq!(digest.checksum, checksum, "{}: {records} records", what());
        assert!(
            records >= self.promised(bytes),
            "{}: {records} records",
            what()
        );
        let rest = &bytes[end..];
        let rest = &rest[..rest
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1)];
        if bytes != self.bytes && !rest.is_empty() {
            // Reported, and put aside.
            assert_eq!(
                recovered.torn_bytes,
                rest.len() as u64,
                "{}: silent",
                what()
            );
            let torn = left.read(&format!("{ACTIVE}.torn-{}", records + 1));
            assert_eq!(torn.unwrap(), rest, "{}", what());
        }
        true
    }
}

/// Does the work of each number on two threads.
fn on_two_threads(
    numbers: &(impl Iterator<Item = usize> + Clone + Send),
    work: impl Fn(usize) + Sync,
) {
    std::thread::scope(|scope| {
        for first in 0..2 {
            let numbers = numbers.clone().skip(first).step_by(2);
            scope.spawn(|| numbers.for_each(&work));
        }
    });
}

#[test]
fn no_flipped_bit_is_silent() {
    let step = setting("STORAGE_SERVER_DAMAGE_STEP", 211);
    for closed in [false, true] {
        let whole = Whole::new(closed);
        assert!(whole.end() * 8 >= 524_288);
        on_two_threads(&(0..whole.bytes.len() * 8).step_by(step), |bit| {
            let mut bytes = whole.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened = whole.judge(&bytes, &|| format!("closed {closed}, bit {bit}"));
            // Before the end of a closed file nothing is tolerated.
            assert!(!opened || !closed || bit / 8 >= whole.end(), "bit {bit}");
        });
    }
}

/// Some damage of a form that disks and people do. `other` is another journal.
fn damaged(whole: &Whole, other: &[u8], random: &mut Random) -> (Vec<u8>, String) {
    let mut bytes = whole.bytes.clone();
    let sectors = (whole.end() / 512) as u64;
    let mut sector = || random.below(sectors) as usize * 512;
    let (one, two) = (sector(), sector());
    let batch = random.below(whole.ends.len() as u64 - 1) as usize;
    let (from, to) = (whole.ends[batch].0, whole.ends[batch + 1].0);
    let form = random.below(6);
    match form {
        0 => {
            let from = random.below(whole.end() as u64) as usize;
            let to = (from + 1 + random.below(5000) as usize).min(bytes.len());
            bytes[from..to].fill_with(|| random.below(256) as u8);
        }
        1 => bytes[one..one + 512].fill(0),
        2 => {
            let (first, second) = (one.min(two), one.max(two));
            if first < second {
                let (head, tail) = bytes.split_at_mut(second);
                head[first..first + 512].swap_with_slice(&mut tail[..512]);
            }
        }
        3 => bytes[one..one + 512].copy_from_slice(&other[one..one + 512]),
        4 => drop(bytes.drain(from..to)),
        _ => {
            let copy = bytes[from..to].to_vec();
            drop(bytes.splice(to..to, copy));
        }
    }
    (
        bytes,
        format!("form {form}, sectors {one} {two}, batch {batch}"),
    )
}

#[test]
fn no_burst_no_lost_swapped_or_stale_sector_and_no_moved_batch_is_silent() {
    let count = setting("STORAGE_SERVER_DAMAGES", 4000);
    let first = setting("STORAGE_SERVER_SEED", 1);
    for closed in [false, true] {
        let whole = Whole::new(closed);
        // The same changes in a store with another log id: what a reused sector may hold.
        let other = Whole::new(closed);
        on_two_threads(&(first..first + count), |seed| {
            let mut random = Random(seed as u64);
            let (bytes, text) = damaged(&whole, &other.bytes, &mut random);
            whole.judge(&bytes, &|| format!("seed {seed}, closed {closed}: {text}"));
        });
    }
}
