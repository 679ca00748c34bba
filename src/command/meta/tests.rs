//! The rules, one by one.

use std::sync::LazyLock;

use super::*;
use crate::command::put::{Mode, Put};
use crate::command::{Context, Outcome, Refusal};
use crate::key::TypedKey;
use crate::types::TypeTable;
use crate::value::{Attributes, Head};

const NOW: Time = Time(1_000_000);
const NAMED: Place<'_> = Place {
    key: Key::Named(b"k"),
    holds: Holds::Named,
};

fn context() -> Context<'static> {
    static TYPES: LazyLock<TypeTable> = LazyLock::new(TypeTable::default);
    Context {
        now: NOW,
        types: &TYPES,
        value_bytes_max: 100,
        members_max: 100,
        memory_room: u64::MAX,
    }
}

/// The entry `k` with this value and these marks, which ends in ten seconds; its cas is 5.
fn entry(value: &[u8], marks: Marks) -> Blob {
    let mut blob = Blob::named(b"k", value);
    let attributes = Attributes {
        flags: 3,
        expires: Expiry::at(Time(NOW.0 + 9_500)),
        cas: 5,
    };
    blob.become_item(0, attributes, marks);
    blob
}

fn view(blob: &Blob) -> View<'_> {
    let Attributes {
        flags,
        expires,
        cas,
    } = blob.attributes();
    View {
        value: ViewValue::Data(blob),
        flags,
        expires,
        cas,
        head: Some(blob.head()),
    }
}

fn reply(outcome: &Outcome<'_>) -> MetaReply {
    match &outcome.reply {
        Reply::Meta(reply) => (**reply).clone(),
        other => panic!("{other:?}"),
    }
}

fn get(turns: &[Turn], old: Option<&Blob>) -> Outcome<'static> {
    let get = Get {
        turns: turns.into(),
        ..Get::default()
    };
    get.decide(NAMED, old.map(view), &context()).unwrap()
}

fn mark(marks: Marks) -> Change<'static> {
    let key = NAMED.key;
    Change::Mark { key, marks }
}

#[test]
fn one_client_wins_a_stale_entry_and_the_win_is_a_change() {
    let stale = entry(b"x", Marks::STALE.and(Marks::BINARY));
    let won = get(&[], Some(&stale));
    assert!(reply(&won).seen.won);
    let marks = Marks::STALE.and(Marks::BINARY).and(Marks::WON);
    assert_eq!(won.change, Some(mark(marks)));
    let after = get(&[], Some(&entry(b"x", marks)));
    assert!(!reply(&after).seen.won);
    assert_eq!(after.change, None);
}

#[test]
fn an_early_renewal_is_won_once_and_by_what_is_left_when_it_is_asked_for() {
    let fresh = entry(b"x", Marks::NONE);
    let recache = |seconds| Turn::Recache(Exptime(seconds));
    assert!(!reply(&get(&[recache(10)], Some(&fresh))).seen.won);
    assert!(reply(&get(&[recache(11)], Some(&fresh))).seen.won);
    let longer = Turn::Expire(Exptime(100));
    assert!(reply(&get(&[recache(11), longer], Some(&fresh))).seen.won);
    assert!(!reply(&get(&[longer, recache(11)], Some(&fresh))).seen.won);
    let won = entry(b"x", Marks::WON);
    assert!(!reply(&get(&[recache(11)], Some(&won))).seen.won);
}

#[test]
fn the_time_left_is_shown_as_it_is_at_its_place_among_the_flags() {
    let old = entry(b"x", Marks::NONE);
    let expire = Turn::Expire(Exptime(100));
    let before = get(&[Turn::Remaining, expire], Some(&old));
    let after = get(&[expire, Turn::Remaining], Some(&old));
    assert_eq!(reply(&before).seen.remaining_s, Some(10));
    assert_eq!(reply(&after).seen.remaining_s, Some(100));
    assert_eq!(before.change, after.change);
    let gone = get(&[Turn::Expire(Exptime(-1))], Some(&old));
    assert_eq!(gone.change, Some(Change::Remove { key: NAMED.key }));
}

#[test]
fn a_miss_is_filled_once_and_told_to_one() {
    let vivify = [Turn::Vivified(Exptime(30))];
    let made = get(&vivify, None);
    assert!(reply(&made).seen.won);
    let put = Change::Put {
        key: NAMED.key,
        value: Value::Data(Blob::named(b"k", b"")),
        flags: 0,
        expires: Expiry::at(Time(NOW.0 + 30_000)),
    };
    let both = Change::Batch(vec![put, mark(Marks::WON)]);
    assert_eq!(made.change, Some(both));
    assert_eq!(get(&vivify, Some(&entry(b"", Marks::WON))).change, None);
    assert_eq!(reply(&get(&[], None)).status, Status::Miss);
}

fn set(mode: Mode, compare: Option<u64>) -> Set<'static> {
    Set {
        mode,
        compare,
        unique: None,
        invalidate: false,
        vivify: None,
        flags: 0,
        exptime: Exptime(0),
        shows_size: false,
        body: b"new",
    }
}

fn decide(set: &Set<'static>, old: Option<&Blob>) -> (Status, Option<Change<'static>>) {
    static KEY: MetaKey<'static> = MetaKey::Text(b"k");
    let body = set.prepare(&KEY, NAMED);
    let outcome = set.decide(&KEY, (NAMED, body), old.map(view), &context());
    let outcome = outcome.unwrap();
    (reply(&outcome).status, outcome.change)
}

#[test]
fn a_condition_on_the_cas_holds_in_every_mode_but_add() {
    let old = entry(b"x", Marks::NONE);
    for mode in [Mode::Set, Mode::Replace, Mode::Append, Mode::Prepend] {
        assert_eq!(decide(&set(mode, Some(5)), Some(&old)).0, Status::Done);
        assert_eq!(decide(&set(mode, Some(6)), Some(&old)).0, Status::Exists);
    }
    let added = decide(&set(Mode::Add, Some(5)), Some(&old));
    assert_eq!(added, (Status::NotStored, None));
    assert_eq!(decide(&set(Mode::Set, Some(5)), None).0, Status::NotFound);
    assert_eq!(
        decide(&set(Mode::Append, Some(5)), None).0,
        Status::NotStored
    );
    assert_eq!(
        decide(&set(Mode::Append, Some(0)), Some(&old)).0,
        Status::Done
    );
    assert_eq!(
        decide(&set(Mode::Set, Some(0)), Some(&old)).0,
        Status::Exists
    );
}

#[test]
fn an_older_value_is_stored_as_a_stale_one_and_ends_when_the_entry_would() {
    let old = entry(b"x", Marks::NONE);
    let older = |compare| Set {
        invalidate: true,
        // It does not count, even if it has passed.
        exptime: Exptime(-1),
        ..set(Mode::Set, Some(compare))
    };
    let (status, change) = decide(&older(4), Some(&old));
    let Some(Change::Batch(changes)) = change else {
        panic!("{change:?}");
    };
    assert_eq!(status, Status::Done);
    let Change::Put { expires, .. } = changes[0] else {
        panic!("{changes:?}");
    };
    assert_eq!(expires, view(&old).expires);
    assert_eq!(changes[1..], [mark(Marks::STALE)]);
    assert_eq!(decide(&older(0), Some(&old)), (Status::Exists, None));
    assert_eq!(decide(&older(6), Some(&old)), (Status::Exists, None));
}

#[test]
fn what_is_added_to_a_miss_is_stored_with_the_expiry_of_the_miss() {
    let append = Set {
        vivify: Some(Exptime(30)),
        exptime: Exptime(60),
        ..set(Mode::Append, None)
    };
    let put = Change::Put {
        key: NAMED.key,
        value: Value::Data(Blob::named(b"k", b"new")),
        flags: 0,
        expires: Expiry::at(Time(NOW.0 + 30_000)),
    };
    assert_eq!(decide(&append, None), (Status::Done, Some(put)));
    let (_, change) = decide(&append, Some(&entry(b"x", Marks::NONE)));
    assert!(matches!(change, Some(Change::Extend { .. })), "{change:?}");
}

#[test]
fn a_delete_removes_marks_or_empties() {
    let old = entry(b"x", Marks::WON);
    let decide = |delete: Delete| {
        let outcome = delete.decide(NAMED, Some(view(&old)), &context());
        outcome.unwrap().change
    };
    let key = NAMED.key;
    assert_eq!(decide(Delete::default()), Some(Change::Remove { key }));
    let stale = Delete {
        invalidate: true,
        ..Delete::default()
    };
    let unique = None;
    let changes = vec![mark(Marks::STALE), Change::Unique { key, unique }];
    assert_eq!(decide(stale), Some(Change::Batch(changes)));
    let emptied = Delete {
        empty: true,
        client_flags: 9,
        ..Delete::default()
    };
    let put = Change::Put {
        key,
        value: Value::Data(Blob::named(b"k", b"")),
        flags: 9,
        expires: Expiry::NEVER,
    };
    let unique = Some(5);
    let changes = vec![put, Change::Unique { key, unique }];
    assert_eq!(decide(emptied), Some(Change::Batch(changes)));
}

fn step() -> Step {
    Step {
        decr: false,
        delta: 2,
        vivify: None,
        initial: 7,
        compare: None,
        unique: None,
        turns: Vec::new().into(),
        value: true,
        shows_unique: false,
    }
}

#[test]
fn a_step_finds_a_number_or_makes_one_or_neither() {
    let number = |step: &Step, old: Option<&Blob>| {
        let outcome = step.decide(NAMED, old.map(view), &context()).unwrap();
        reply(&outcome).seen.value
    };
    let old = entry(b"40", Marks::NONE);
    assert_eq!(number(&step(), Some(&old)), Some(Value::Number(42)));
    assert_eq!(number(&step(), None), None);
    let vivify = Step {
        vivify: Some(Exptime(0)),
        ..step()
    };
    assert_eq!(number(&vivify, None), Some(Value::Number(7)));
    assert_eq!(number(&vivify, Some(&old)), Some(Value::Number(42)));
    let compare = Step {
        compare: Some(6),
        ..step()
    };
    assert_eq!(number(&compare, Some(&old)), None);
    let empty = entry(b"", Marks::NONE);
    let refused = compare.decide(NAMED, Some(view(&empty)), &context());
    assert_eq!(refused, Err(Refusal::NonNumeric));
}

#[test]
fn who_makes_a_number_is_told_and_who_steps_it_need_not_be() {
    let vivify = Step {
        vivify: Some(Exptime(0)),
        ..step()
    };
    let created = |old: Option<&Blob>| {
        let outcome = vivify.decide(NAMED, old.map(view), &context()).unwrap();
        reply(&outcome).seen.created
    };
    assert!(created(None));
    assert!(!created(Some(&entry(b"40", Marks::NONE))));
}

#[test]
fn a_counter_takes_no_mark_and_a_typed_key_no_cas() {
    let key = TypedKey { prefix: 2, id: 1 };
    let counter = Place {
        key: Key::Typed(key),
        holds: Holds::Kind(Kind::Counter),
    };
    let refused = |outcome: Result<Outcome<'_>, Refusal>, verb| {
        let kind = Kind::Counter;
        assert_eq!(outcome, Err(Refusal::WrongKind { verb, key, kind }));
    };
    let ctx = context();
    let get = Get {
        turns: [Turn::Vivified(Exptime(0))][..].into(),
        ..Get::default()
    };
    refused(get.decide(counter, None, &ctx), "flag N");
    let delete = Delete {
        invalidate: true,
        ..Delete::default()
    };
    refused(delete.decide(counter, None, &ctx), "flag I");
    let step = Step {
        unique: Some(1),
        ..step()
    };
    refused(step.decide(counter, None, &ctx), "flag E");
    let plain = Put {
        key: b"2.1",
        mode: Mode::Set,
        flags: 0,
        exptime: Exptime(0),
        body: b"1",
    };
    assert!(
        plain
            .decide(counter, plain.prepare(counter), None, &ctx)
            .is_ok()
    );
}

#[test]
fn the_header_of_an_entry_tells_whether_and_when_it_was_used() {
    let blob = entry(b"x", Marks::NONE);
    let seen = |blob: &Blob| Seen::of(&view(blob), Time(90_000));
    assert_eq!((seen(&blob).fetched, seen(&blob).idle_s), (false, 0));
    blob.head().note_access(Time(60_000));
    blob.head().mark(Marks::FETCHED);
    assert_eq!((seen(&blob).fetched, seen(&blob).idle_s), (true, 30));
    assert_eq!(Head::of(1).idle_s(Time(90_000)), None);
}
