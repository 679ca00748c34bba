//! Files that were cut, flipped or swapped: a prefix of whole batches beyond what was promised,
//! or a refusal; never a silent change.

use super::*;
use crate::journal::disk::Name;
use crate::journal::encode::{Payload, put_change};
use crate::journal::recover::{Decision, Next, Tail, decide};

pub(super) const ACTIVE: &str = "journal-0000000002";

/// A disk with the segment that was written last, and where each of its batches ends with how
/// many records.
fn written(batches: usize, sync: bool) -> (SimDisk, Log, Vec<(usize, usize)>) {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    let mut ends = vec![(76, 0)];
    while ends.len() <= batches {
        assert!(store.turns(5));
        if sync {
            store.journal.sync_now().unwrap();
        }
        let offset = store.journal.shared.active.lock().offset;
        ends.push((offset as usize, store.log.0.len()));
    }
    (disk.kill(), store.log.clone(), ends)
}

pub(super) fn with_file(disk: &SimDisk, name: &str, bytes: &[u8]) -> SimDisk {
    let disk = disk.kill();
    disk.put(name, bytes);
    disk
}

/// A state that is cheap to compare: the checksum after each record.
#[derive(Default)]
pub(super) struct Digest {
    pub(super) checksum: u32,
    pub(super) records: usize,
}

impl Digest {
    fn add(&mut self, seq: u64, time: Time, change: &Change<'_>) {
        let mut payload = Payload::default();
        put_change(&mut payload, Time(seq), time, change, None);
        self.checksum = payload.slices().fold(self.checksum, crc32c::crc32c_append);
        self.records += 1;
    }
}

impl Replay for Digest {
    fn entry(&mut self, _key: Key<'_>, _entry: Entry) -> Result<(), ReplayError> {
        Err(ReplayError("there is none".to_owned()))
    }

    fn change(&mut self, seq: u64, time: Time, change: Change<'_>) -> Result<(), ReplayError> {
        if seq != 0 {
            assert_eq!(seq, self.records as u64 + 1);
            self.add(seq, time, &change);
        }
        Ok(())
    }

    fn progress(&mut self, _progress: &Progress) -> Result<(), ReplayError> {
        Ok(())
    }
}

fn digest(disk: &SimDisk) -> Result<(Journal, Digest), JournalError> {
    let mut digest = Digest::default();
    let disk = Arc::new(disk.clone());
    let (journal, _) = Journal::open(disk, options(Fsync::Always), &mut digest)?;
    Ok((journal, digest))
}

/// Appends a change to both.
fn extend(journal: &Journal, digest: &mut Digest, change: &Change<'_>) {
    let room = journal.reserve(room_bytes(3, 2000)).unwrap();
    let time = Time(digest.records as u64 * 10);
    let seq = journal.append(time, change, room);
    digest.add(seq, time, change);
}

/// A batch of a journal: where it ends, how many records there are up to there, and their
/// checksum.
pub(super) type BatchEnd = (usize, usize, u32);

/// A journal of at least 64 KiB with records of every kind, and its batches.
pub(super) fn long_journal(sync: bool, close: bool) -> (SimDisk, Vec<BatchEnd>) {
    let disk = SimDisk::new();
    let (journal, mut whole) = digest(&disk).unwrap();
    let (mut random, bytes) = (Random(3), [b'v'; 1200]);
    let mut ends = vec![(76, 0, 0)];
    while ends.last().unwrap().0 < 64 << 10 {
        for _ in 0..=random.below(4) {
            let turn = whole.records as u64;
            extend(&journal, &mut whole, &some_change(turn, &mut random));
        }
        let (key, len) = (Key::Named(b"long"), random.below(1200) as usize);
        let change = Change::Extend {
            key,
            side: Side::Back,
            bytes: &bytes[..len],
        };
        extend(&journal, &mut whole, &change);
        journal.flush().unwrap();
        if sync {
            journal.sync_now().unwrap();
        }
        let offset = journal.shared.active.lock().offset as usize;
        ends.push((offset, whole.records, whole.checksum));
    }
    assert!(whole.records > 200);
    if close {
        journal.close().unwrap();
    }
    (disk.kill(), ends)
}

#[test]
fn a_journal_cut_at_any_byte_gives_the_longest_prefix_of_whole_batches() {
    let (disk, ends) = long_journal(false, false);
    // Every cut is tried; to append and to open again after each takes a campaign.
    let step = setting("STORAGE_SERVER_DAMAGE_STEP", 16);
    let bytes = disk.read(ACTIVE).unwrap();
    let (end, _, _) = *ends.last().unwrap();
    for cut in (0..76).chain(76..=end) {
        let left = with_file(&disk, ACTIVE, &bytes[..cut]);
        if cut < 76 {
            assert!(digest(&left).is_err(), "cut at {cut}");
            continue;
        }
        let at = ends.partition_point(|(end, _, _)| *end <= cut) - 1;
        let (journal, mut found) = digest(&left).unwrap_or_else(|error| panic!("{cut}: {error}"));
        assert_eq!(
            (ends[at].1, ends[at].2),
            (found.records, found.checksum),
            "cut at {cut}"
        );
        // Appending and opening again works; often enough to have every kind of end.
        if cut % step == 0 {
            extend(&journal, &mut found, &Change::Flush { at: None });
            journal.flush().unwrap();
            let (_, again) = digest(&left.kill()).unwrap();
            assert_eq!(again.checksum, found.checksum, "cut at {cut}");
        }
    }
}

/// Flips every byte of a file in turn and opens it; `lost` says which losses are in order.
fn flip_every_byte(disk: &SimDisk, name: &str, log: &Log, lost: impl Fn(usize, usize) -> bool) {
    let bytes = disk.read(name).unwrap();
    for at in 0..bytes.len() {
        // A bit, every one in turn, and once in a while all of them.
        let flip = if at % 13 == 0 { 0xff } else { 1 << (at % 8) };
        {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            let left = with_file(disk, name, &bytes);
            let Ok(store) = Store::open(&left) else {
                continue;
            };
            let found = store.log.0.len();
            assert!(
                log.0.starts_with(&store.log.0),
                "{name} byte {at} flip {flip:#x}"
            );
            let in_order = found == log.0.len() || store.recovered.torn_bytes > 0;
            let what = format!("{name} byte {at} flip {flip:#x}: {found} records");
            assert!(
                in_order && (found == log.0.len() || lost(at, found)),
                "{what}"
            );
        }
    }
}

#[test]
fn a_flipped_byte_is_refused_or_costs_what_was_never_promised() {
    let (disk, log, ends) = written(12, true);
    // Each batch says that all before it was synced; only of the last one nobody says it.
    let promised = ends[ends.len() - 2].1;
    flip_every_byte(&disk, ACTIVE, &log, |_, found| found >= promised);
    // Without syncs a flip costs the rest of the file, which is put aside and reported.
    let (disk, log, ends) = written(6, false);
    flip_every_byte(&disk, ACTIVE, &log, |at, found| {
        ends.iter()
            .any(|(end, records)| *records == found && *end <= at)
    });
}

#[test]
fn nothing_is_tolerated_in_files_that_were_closed() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(10));
    store.snapshot(false).unwrap();
    assert!(store.turns(10));
    store.journal.rotate().unwrap();
    assert!(store.turns(10));
    store.journal.close().unwrap();
    let (disk, log) = (disk.kill(), store.log.clone());
    for name in ["snapshot-0000000003", "journal-0000000003", "STORE"] {
        let bytes = disk.read(name).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let left = with_file(&disk, name, &bytes);
            assert!(Store::open(&left).is_err(), "{name} byte {at}");
            assert_eq!(left.read(name).unwrap(), bytes, "a refusal changes nothing");
        }
        let longer = [&bytes[..], b"x"].concat();
        let error = Store::open(&with_file(&disk, name, &longer)).err();
        assert_eq!(error.is_some(), name != "STORE", "{name}");
    }
    // The last one: a flip in its End batch costs no record; elsewhere it is refused.
    let bytes = disk.read("journal-0000000004").unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let opened = Store::open(&with_file(&disk, "journal-0000000004", &flipped));
        if at < bytes.len() - 52 {
            assert!(opened.is_err(), "byte {at}");
        } else {
            assert_eq!(opened.unwrap().log, log, "byte {at}");
        }
    }
}

#[test]
fn a_torn_tail_is_put_aside_and_not_destroyed() {
    let (disk, log, ends) = written(4, false);
    let mut bytes = disk.read(ACTIVE).unwrap();
    let (from, records) = ends[3];
    bytes[from + 60] ^= 1;
    let left = with_file(&disk, ACTIVE, &bytes);
    let store = Store::open(&left).unwrap();
    assert_eq!(store.log.0, log.0[..records]);
    let torn = left
        .read(&format!("{ACTIVE}.torn-{}", records + 1))
        .unwrap();
    assert_eq!(torn.len() as u64, store.recovered.torn_bytes);
    assert_eq!(torn, bytes[from..from + torn.len()]);
    assert!(bytes[from + torn.len()..].iter().all(|byte| *byte == 0));
    assert_eq!(left.read(ACTIVE).unwrap(), bytes[..from]);
}

#[test]
fn deleted_repeated_and_swapped_batches_are_not_taken() {
    let (disk, log, ends) = written(6, true);
    let bytes = disk.read(ACTIVE).unwrap();
    let batch = |at: usize| &bytes[ends[at].0..ends[at + 1].0];
    for order in [
        vec![0, 2, 3, 4, 5],
        vec![0, 1, 1, 2, 3, 4, 5],
        vec![0, 2, 1, 3, 4, 5],
        vec![1, 2, 3, 4, 5],
        vec![0, 1, 2, 3, 5],
    ] {
        let mut file = bytes[..76].to_vec();
        for at in &order {
            file.extend_from_slice(batch(*at));
        }
        match Store::open(&with_file(&disk, ACTIVE, &file)) {
            Err(error) => assert!(matches!(error, JournalError::Damaged { .. }), "{error}"),
            Ok(store) => {
                // Only where nothing that follows attests what is missing.
                assert_eq!(order, [0, 1, 2, 3, 5]);
                assert_eq!(store.log.0, log.0[..20]);
            }
        }
    }
    // A batch of another segment of the same store, at the same place.
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(5));
    let other = disk.read("journal-0000000003").unwrap();
    let file = [&bytes[..76], &other[76..]].concat();
    disk.unlink("journal-0000000003");
    let store = Store::open(&with_file(&disk, ACTIVE, &file)).unwrap();
    assert_eq!(
        (store.log.0.len(), store.recovered.torn_bytes > 0),
        (0, true)
    );
}

#[test]
fn the_decision_table() {
    let nexts = [Next::Nothing, Next::Continues, Next::Gap];
    let mut seen = Vec::new();
    for bits in 0..8u8 {
        for next in nexts {
            let [damaged, ended, attested] = [1, 2, 4].map(|bit| bits & bit != 0);
            let decision = decide(Tail {
                damaged,
                ended,
                attested,
                next,
            });
            // The rule again, in other words.
            let is_crash = damaged && !ended && !attested && next == Next::Nothing;
            let expected = if is_crash {
                Decision::CutTail
            } else if damaged {
                Decision::RefuseDamage
            } else if next == Next::Gap {
                Decision::RefuseGap
            } else {
                Decision::Accept
            };
            assert_eq!(decision, expected, "{damaged} {ended} {attested} {next:?}");
            seen.push(decision);
        }
    }
    assert_eq!(seen.len(), 24);
    assert_eq!(
        seen.iter()
            .filter(|decision| **decision == Decision::CutTail)
            .count(),
        1
    );
}

#[test]
fn unknown_versions_and_features_are_refused_and_the_file_stays() {
    let (disk, _, _) = written(1, true);
    for name in [ACTIVE, "snapshot-0000000001", "STORE"] {
        for (at, expected) in [(8, "format version 3"), (12, "unknown features 0x1")] {
            let mut bytes = disk.read(name).unwrap();
            bytes[at] ^= 1;
            let crc = crc32c::crc32c(&bytes[..72]);
            bytes[72..76].copy_from_slice(&crc.to_le_bytes());
            let left = with_file(&disk, name, &bytes);
            let error = Store::open(&left).err().unwrap().to_string();
            assert!(error.contains(expected) && error.contains(name), "{error}");
            assert_eq!(left.read(name).unwrap(), bytes);
        }
    }
}

#[test]
fn a_file_of_a_number_that_no_store_comes_to_is_refused() {
    let (disk, _, _) = written(1, true);
    let mut bytes = disk.read("snapshot-0000000001").unwrap();
    bytes[40..48].copy_from_slice(&(1u64 << 63).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..72]);
    bytes[72..76].copy_from_slice(&crc.to_le_bytes());
    let left = with_file(&disk, "snapshot-9223372036854775808", &bytes);
    let error = Store::open(&left).err().unwrap().to_string();
    assert!(error.contains("no store has come"), "{error}");
}

#[test]
fn stale_temporaries_go_and_files_that_are_not_ours_stay() {
    let (disk, log, _) = written(2, true);
    for name in [
        "journal-0000000009.tmp",
        ".snapshot-0000000001.tmp",
        "STORE.tmp",
    ] {
        disk.put(name, b"half");
    }
    disk.put("notes.tmp", b"mine");
    disk.put("journal-1", b"mine");
    assert_eq!(Store::open(&disk).unwrap().log, log);
    let names = disk.list().unwrap();
    assert_eq!(
        names.iter().filter(|name| Name::is_temporary(name)).count(),
        0
    );
    assert!(names.contains(&"notes.tmp".to_owned()));
    assert!(names.contains(&"journal-1".to_owned()));
}
