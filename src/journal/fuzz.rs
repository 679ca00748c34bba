//! What the fuzzer and the tests are shown of the journal's inside; in no other build.

use super::decode::{Frame, Record, record};
use super::encode::{Payload, put_change, put_entry};
use super::record::VERSION;
use crate::clock::Time;
use crate::codec::Reader;

/// Reads the records of a batch as recovery does, and writes and reads each once more.
///
/// # Panics
///
/// If a record is not read back as it was written.
pub fn records(version: u32, payload: &[u8]) {
    let frame = |version| Frame {
        version,
        base: Time(0),
        source: None,
    };
    let mut reader = Reader::new(payload);
    while let Ok((time, read)) = record(&mut reader, &frame(version)) {
        let mut out = Payload::default();
        match &read {
            Record::Change(change) => put_change(&mut out, Time(0), time, change, None),
            Record::Entry(key, entry) => put_entry(&mut out, *key, entry),
        }
        let bytes = out.slices().collect::<Vec<_>>().concat();
        let again = record(&mut Reader::new(&bytes), &frame(VERSION));
        // An entry's time means nothing and is not kept.
        let kept = again.as_ref().is_ok_and(|(_, again)| *again == read);
        assert!(kept, "{read:?} was read back as {again:?}");
    }
}
