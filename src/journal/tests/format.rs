//! The format, byte by byte, and decoding of any bytes.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::codec::Reader;
use crate::journal::decode::{self, Frame, Record};
use crate::journal::encode::{Payload, prepare, put_change, put_entry};
use crate::journal::record::{
    BATCH_HEADER_BYTES, BadHeader, BatchHeader, BatchKind, FILE_HEADER_BYTES, FileHeader, FileKind,
    VERSION, batch_seed,
};
use crate::types::{CounterOptions, Overflow};

const BASE: Time = Time(1_000_000);
const FRAME: Frame<'_> = Frame {
    version: VERSION,
    base: BASE,
    source: None,
};

fn bytes(payload: &Payload) -> Vec<u8> {
    let bytes = payload.slices().collect::<Vec<_>>().concat();
    assert_eq!(bytes.len(), payload.len());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn encoded(time: Time, change: &Change<'_>) -> Vec<u8> {
    let mut payload = Payload::default();
    put_change(&mut payload, BASE, time, change, prepare(change));
    bytes(&payload)
}

#[test]
fn headers_are_these_bytes_for_ever() {
    let header = FileHeader {
        kind: FileKind::Segment,
        version: VERSION,
        log_id: *b"0123456789abcdef",
        generation: 2,
        number: 3,
        base_seq: 4,
        time: Time(5),
        chain: 6,
        fresh: true,
    };
    let file = header.encode();
    assert_eq!(file.len(), FILE_HEADER_BYTES);
    assert_eq!(
        hex(&file),
        "53544f524a524e4c020000000000000030313233343536373839616263646566\
         0200000000000000030000000000000004000000000000000500000000000000\
         06000000010000005961ce1b"
    );
    assert_eq!(FileHeader::decode(FileKind::Segment, &file), Ok(header));
    let first = FileHeader {
        version: 1,
        ..header
    };
    let file_1 = first.encode();
    assert_eq!(
        hex(&file_1),
        "53544f524a524e4c010000000000000030313233343536373839616263646566\
         0200000000000000030000000000000004000000000000000500000000000000\
         06000000010000005f50dd87"
    );
    assert_eq!(FileHeader::decode(FileKind::Segment, &file_1), Ok(first));
    for version in [0, VERSION + 1] {
        let later = FileHeader { version, ..header }.encode();
        let refused = Err(BadHeader::Version(version));
        assert_eq!(FileHeader::decode(FileKind::Segment, &later), refused);
    }
    assert!(FileHeader::decode(FileKind::Snapshot, &file).is_err());
    let batch = BatchHeader {
        kind: BatchKind::Records,
        len: 7,
        count: 8,
        first_seq: 9,
        synced_upto: 10,
        time: Time(11),
        prev_crc: 12,
        payload_crc: 13,
    };
    let seed = batch_seed(&header.log_id, header.number);
    let mut out = Vec::new();
    let crc = batch.encode(seed, &mut out);
    assert_eq!(out.len(), BATCH_HEADER_BYTES);
    assert_eq!(
        hex(&out),
        "5354424101000000070000000800000009000000000000000a00000000000000\
         0b000000000000000c0000000d0000001e733a51"
    );
    assert_eq!(BatchHeader::decode(&out, seed), Some((batch, crc)));
    assert_eq!(
        BatchHeader::decode(&out, batch_seed(&header.log_id, 4)),
        None
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one row a record")]
fn records_are_these_bytes_for_ever() {
    let named = Key::Named(b"ab");
    let typed = TypedKey { prefix: 2, id: 300 };
    let expires = Expiry::at(Time(128));
    let members = [(5, 0), (7, 9)].map(|(id, attribute)| Member { id, attribute });
    let put = |key, value| Change::Put {
        key,
        value,
        flags: 3,
        expires,
    };
    let records = [
        (
            put(named, Value::Data(Blob::named(b"ab", b"xyz"))),
            "010200026162038001040378797a",
        ),
        (
            put(Key::Typed(typed), Value::Number(200)),
            "010202ac0203800101c801",
        ),
        (
            put(
                Key::Typed(typed),
                Value::Index(Arc::new(Index::from_members(members.to_vec()))),
            ),
            "010202ac0203800103020105020009",
        ),
        (Change::Remove { key: named }, "020200026162"),
        (
            Change::Expire {
                key: named,
                expires,
            },
            "0302000261628001",
        ),
        (
            Change::Number {
                key: Key::Typed(typed),
                number: 1,
            },
            "040202ac0201",
        ),
        (
            Change::Extend {
                key: named,
                side: Side::Front,
                bytes: b"x",
            },
            "0502000261620178",
        ),
        (
            Change::Extend {
                key: named,
                side: Side::Back,
                bytes: b"x",
            },
            "0602000261620178",
        ),
        (
            Change::Members {
                key: typed,
                create: Some((1, Expiry::NEVER)),
                added: members[..1].into(),
                removed: [6, 9][..].into(),
            },
            "070202ac020101000100050206 03",
        ),
        (
            Change::FanOut {
                index: typed,
                target: 2,
                delta: Delta {
                    negative: true,
                    amount: 1,
                },
            },
            "080202ac02020101",
        ),
        (
            Change::Mark {
                key: named,
                marks: Marks::STALE.and(Marks::WON),
            },
            "0e020002616203",
        ),
        (
            Change::Mark {
                key: named,
                marks: Marks::BINARY,
            },
            "0e020002616204",
        ),
        (
            Change::Unique {
                key: named,
                unique: None,
            },
            "0f020002616200",
        ),
        (
            Change::Unique {
                key: named,
                unique: Some(513),
            },
            "0f0200026162010102000000000000",
        ),
        (Change::Flush { at: None }, "0902"),
        (
            Change::Flush {
                at: Some(Time(129)),
            },
            "0a028101",
        ),
        (
            Change::Types(some_types()),
            "0b0205 00040002020003010303050005020000 ac0204000202000301 ffff03040001018008",
        ),
        (
            Change::Batch(vec![
                Change::Remove { key: named },
                Change::Flush { at: None },
            ]),
            "0c0202020002616209",
        ),
    ];
    for (change, expected) in records {
        let bytes = encoded(Time(BASE.0 + 1), &change);
        assert_eq!(hex(&bytes), expected.replace(' ', ""), "{change:?}");
        let back = decode::record(&mut Reader::new(&bytes), &FRAME);
        assert_eq!(back, Ok((Time(BASE.0 + 1), Record::Change(change))));
    }
    let entry = Entry {
        value: Value::Number(1),
        flags: 2,
        expires: Expiry::NEVER,
        cas: 3,
        marks: Marks::NONE,
    };
    let mut payload = Payload::default();
    put_entry(&mut payload, Key::Typed(typed), &entry);
    let plain = bytes(&payload);
    assert_eq!(hex(&plain), "0d0002ac02020003000000000000000101");
    let back = decode::record(&mut Reader::new(&plain), &FRAME);
    assert_eq!(
        back,
        Ok((BASE, Record::Entry(Key::Typed(typed), entry.clone())))
    );
    let marked = Entry {
        marks: Marks::WON,
        ..entry
    };
    let mut payload = Payload::default();
    put_entry(&mut payload, Key::Typed(typed), &marked);
    let with_marks = bytes(&payload);
    assert_eq!(hex(&with_marks), "10000202ac02020003000000000000000101");
    let back = decode::record(&mut Reader::new(&with_marks), &FRAME);
    assert_eq!(back, Ok((BASE, Record::Entry(Key::Typed(typed), marked))));
}

#[test]
fn types_of_the_first_version_have_no_options() {
    let bytes = [0x0b, 2, 2, 3, 3, 5, 5, 2, 0];
    let first = Frame {
        version: 1,
        base: BASE,
        source: None,
    };
    let rows = [
        TypeDef {
            target: Some(5),
            ..TypeDef::new(3, Kind::Index)
        },
        TypeDef::new(5, Kind::Counter64),
    ];
    let types = Arc::new(TypeTable::new(rows).unwrap());
    let back = decode::record(&mut Reader::new(&bytes), &first);
    assert_eq!(
        back,
        Ok((Time(BASE.0 + 1), Record::Change(Change::Types(types))))
    );
    assert!(decode::record(&mut Reader::new(&bytes), &FRAME).is_err());
}

#[test]
fn the_options_of_counters_are_these_bytes_for_ever() {
    let rows = [
        TypeDef {
            target: Some(5),
            weighted: true,
            ..TypeDef::new(3, Kind::Index)
        },
        TypeDef {
            counter: CounterOptions {
                initial: Some(300),
                min: Some(1),
                max: Some(u64::MAX),
                overflow: Some(Overflow::Error),
                ttl_s: Some(60),
            },
            ..TypeDef::new(5, Kind::Counter64)
        },
    ];
    let change = Change::Types(Arc::new(TypeTable::new(rows).unwrap()));
    let bytes = encoded(Time(BASE.0 + 1), &change);
    let expected = "0b02 02 03030501 0901 05020005 04ac02 0501 06ffffffffffffffffff01 0703 083c";
    assert_eq!(hex(&bytes), expected.replace(' ', ""));
    let back = decode::record(&mut Reader::new(&bytes), &FRAME);
    assert_eq!(back, Ok((Time(BASE.0 + 1), Record::Change(change))));
    // A rule that only a later release knows, and a target that is none.
    for (at, byte) in [(bytes.len() - 3, 4), (9, 6)] {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        assert!(
            decode::record(&mut Reader::new(&bytes), &FRAME).is_err(),
            "{at}"
        );
    }
}

/// How many keys a request for this change names, and how long it is at least.
fn request(change: &Change<'_>) -> (u64, u64) {
    let name = |key: &Key<'_>| match key {
        Key::Named(name) => name.len() as u64,
        Key::Typed(_) => 3,
    };
    let value = |value: &Value| match value {
        Value::Number(_) => 1,
        Value::Index(index) => index.iter().map(member_bytes).sum(),
        Value::Data(blob) => blob.len() as u64,
    };
    match change {
        Change::Put {
            key, value: held, ..
        } => (1, name(key) + value(held)),
        Change::Remove { key }
        | Change::Expire { key, .. }
        | Change::Number { key, .. }
        | Change::Mark { key, .. }
        | Change::Unique { key, .. } => (1, name(key)),
        Change::Extend { key, bytes, .. } => (1, name(key) + bytes.len() as u64),
        Change::Members { added, removed, .. } => {
            let removed = removed.iter().map(|id| Member {
                id: *id,
                attribute: 0,
            });
            (
                1,
                added.iter().copied().chain(removed).map(member_bytes).sum(),
            )
        }
        Change::FanOut { .. } | Change::Flush { .. } => (1, 0),
        Change::Types(types) => (types.rows().len() as u64, 0),
        Change::Batch(changes) => changes
            .iter()
            .map(request)
            .fold((1, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)),
    }
}

/// The shortest line of a member: an attribute of 0 is left out.
fn member_bytes(member: Member) -> u64 {
    let line = match member.attribute {
        0 => format!("{}\n", member.id),
        attribute => format!("{} {attribute}\n", member.id),
    };
    line.len() as u64
}

#[test]
fn every_change_comes_back_and_fits_its_room() {
    let mut random = Random(7);
    for turn in 0..20_000 {
        let change = some_change(turn, &mut random);
        let time = Time(random.below(1 << 44));
        let bytes = encoded(time, &change);
        let mut reader = Reader::new(&bytes);
        let (items, request) = request(&change);
        assert!(
            bytes.len() as u64 <= room_bytes(items, request),
            "{change:?}"
        );
        let (back_time, back) = decode::record(&mut reader, &FRAME).unwrap();
        assert_eq!((back_time, back), (time, Record::Change(change)));
        assert!(reader.is_empty());
        for cut in 0..bytes.len() {
            assert!(decode::record(&mut Reader::new(&bytes[..cut]), &FRAME).is_err());
        }
    }
}

#[test]
fn what_is_prepared_is_the_same_bytes() {
    let index: Vec<_> = (0..10_000)
        .map(|id| Member {
            id: id * 7,
            attribute: id % 3,
        })
        .collect();
    let long = vec![b'y'; 40_000];
    let put = |value| Change::Put {
        key: Key::Named(b"k"),
        value,
        flags: 0,
        expires: Expiry::NEVER,
    };
    let changes = vec![
        put(Value::Index(Arc::new(Index::from_members(index)))),
        Change::Extend {
            key: Key::Named(b"k"),
            side: Side::Front,
            bytes: &long,
        },
        put(Value::Data(Blob::named(b"k", &long))),
    ];
    for change in changes
        .iter()
        .cloned()
        .chain([Change::Batch(changes.clone())])
    {
        let mut direct = Payload::default();
        put_change(&mut direct, BASE, BASE, &change, None);
        assert_eq!(bytes(&direct), encoded(BASE, &change));
        let bytes = bytes(&direct);
        let (_, back) = decode::record(&mut Reader::new(&bytes), &FRAME).unwrap();
        assert_eq!(back, Record::Change(change));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn any_bytes_give_a_record_or_an_error(tag in 0u8..16, rest: Vec<u8>) {
        crate::journal::fuzz::records(VERSION, &[&[tag][..], &rest].concat());
    }

    #[test]
    fn records_with_a_changed_byte_give_a_record_or_an_error(
        seed: u64, turn in 0u64..12, at: prop::sample::Index, byte: u8
    ) {
        let mut bytes = encoded(BASE, &some_change(turn, &mut Random(seed)));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode::record(&mut Reader::new(&bytes), &FRAME);
    }

    #[test]
    fn any_bytes_are_a_header_or_not(bytes: Vec<u8>, seed: u32) {
        let _ = BatchHeader::decode(&bytes, seed);
        let _ = FileHeader::decode(FileKind::Segment, &bytes);
    }
}
