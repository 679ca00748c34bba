//! INDEX: a set of u32 ids with a u32 attribute each, in ascending order of id.
//!
//! Memory form: a row of chunks of packed ids, so that an edit makes one or two chunks anew and
//! a copy that is shared (by a running fan-out or a snapshot) has all others in common with it.
//! Attributes take memory only in chunks that have one other than 0.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;

use super::block::on_heap;
use super::chunk::{CHUNK_LEN, Chunk};
use crate::key::decimal;
use crate::limits::MEMBERS_MAX;

/// The longest line of a member, in bytes: two numbers of up to ten digits, a space, a newline.
const LINE_MAX: usize = 22;

/// What an edit does to the length of the wire form, in bytes: counted by the members that come and
/// go, since most that a chunk holds stay.
#[derive(Clone, Copy)]
struct TextChange {
    come: usize,
    gone: usize,
}

/// One member of an INDEX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The id.
    pub id: u32,
    /// Its attribute; 0 unless given.
    pub attribute: u32,
}

/// A set of members.
#[derive(Clone, Default)]
pub struct Index {
    /// In ascending order of their ids.
    chunks: Vec<Chunk>,
    len: usize,
    /// What the chunks take on the heap.
    chunk_bytes: u32,
    /// The length of the wire form with a newline at its end: whoever asks for an index gets it
    /// before the first member.
    text_bytes: u32,
}

impl Index {
    /// Builds an index from members in any order; of duplicates the last wins.
    pub fn from_members(mut members: Vec<Member>) -> Self {
        normalize(&mut members);
        let mut index = Self::default();
        let text = members.iter().copied().map(text_bytes).sum();
        index.replace(
            0..0,
            &members,
            TextChange {
                come: text,
                gone: 0,
            },
        );
        index.chunks.shrink_to_fit();
        index
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without members.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The members in ascending order of id.
    pub fn iter(&self) -> impl Iterator<Item = Member> {
        self.chunks.iter().flat_map(Chunk::members)
    }

    /// The members in the same order, up to some hundred at a time: what is done with one after
    /// another takes less time so.
    pub fn blocks(&self) -> impl Iterator<Item = impl Iterator<Item = Member>> {
        self.chunks.iter().map(Chunk::members)
    }

    /// The ids in ascending order.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.iter().map(|member| member.id)
    }

    /// True if `id` is a member.
    pub fn contains(&self, id: u32) -> bool {
        let chunk = self.chunks.get(self.chunk_of(id));
        chunk.is_some_and(|chunk| chunk.members().any(|member| member.id == id))
    }

    fn member(&self, id: u32) -> Option<Member> {
        let chunk = self.chunks.get(self.chunk_of(id))?;
        chunk.members().find(|member| member.id == id)
    }

    /// What [`Self::text_len`] will be once some members have been added and some removed; none
    /// is named twice.
    pub fn text_len_after(&self, added: &[Member], removed: &[u32]) -> usize {
        let ids = added.iter().map(|member| member.id);
        let before = ids.chain(removed.iter().copied());
        let gone: usize = before
            .filter_map(|id| self.member(id))
            .map(text_bytes)
            .sum();
        let new: usize = added.iter().copied().map(text_bytes).sum();
        (self.text_bytes as usize + new).saturating_sub(gone + 1)
    }

    /// The position of the chunk that holds `id` or would take it; 0 if there are none.
    fn chunk_of(&self, id: u32) -> usize {
        let after = self.chunks.partition_point(|chunk| chunk.first() <= id);
        after.saturating_sub(1)
    }

    /// How many of `ids`, which are in ascending order, belong into the chunk at `at`.
    fn run(&self, at: usize, ids: impl Iterator<Item = u32>) -> usize {
        let next = self.chunks.get(at + 1).map(Chunk::first);
        ids.take_while(|id| next.is_none_or(|next| *id < next))
            .count()
    }

    /// Adds members or updates their attributes; of duplicates the last wins.
    pub fn insert(&mut self, members: &[Member]) {
        if !members.is_sorted_by(|one, next| one.id < next.id) {
            let mut members = members.to_vec();
            normalize(&mut members);
            return self.insert(&members);
        }
        let mut left = members;
        while let Some(next) = left.first() {
            let at = self.chunk_of(next.id);
            let count = self.run(at, left.iter().map(|member| member.id));
            let Some((added, rest)) = left.split_at_checked(count) else {
                return;
            };
            let range = at..(at + 1).min(self.chunks.len());
            let (merged, text) = merge(self.members_of(range.clone()), added);
            self.replace(range, &merged, text);
            left = rest;
        }
    }

    /// Removes the members with these ids; those that are not there are passed over.
    pub fn remove(&mut self, ids: &[u32]) {
        if !ids.is_sorted() {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            return self.remove(&ids);
        }
        let mut left = ids;
        while let Some(next) = left.first() {
            let at = self.chunk_of(*next);
            let count = self.run(at, left.iter().copied());
            let Some((removed, rest)) = left.split_at_checked(count) else {
                return;
            };
            self.remove_from(at, removed);
            left = rest;
        }
    }

    /// Removes ids, which are in ascending order, from the chunk at `at`, and joins what remains
    /// with the chunk after it if both are small.
    fn remove_from(&mut self, at: usize, ids: &[u32]) {
        let Some(chunk) = self.chunks.get(at) else {
            return;
        };
        let mut gone = 0;
        let is_kept = |member: &Member| {
            let is_kept = ids.binary_search(&member.id).is_err();
            gone += if is_kept { 0 } else { text_bytes(*member) };
            is_kept
        };
        let mut kept: Vec<Member> = chunk.members().filter(is_kept).collect();
        if kept.len() == chunk.len() {
            return;
        }
        let next = self.chunks.get(at + 1);
        let mut end = at + 1;
        if let Some(next) = next.filter(|next| next.len() + kept.len() <= CHUNK_LEN / 2) {
            kept.extend(next.members());
            end += 1;
        }
        self.replace(at..end, &kept, TextChange { come: 0, gone });
    }

    fn members_of(&self, range: Range<usize>) -> impl Iterator<Item = Member> {
        let chunks = self.chunks.get(range).unwrap_or_default();
        chunks.iter().flat_map(Chunk::members)
    }

    /// Puts members, which are in ascending order, in the place of these chunks.
    fn replace(&mut self, range: Range<usize>, members: &[Member], text: TextChange) {
        let old = self.chunks.get(range.clone()).unwrap_or_default();
        self.chunk_bytes -= figure(old.iter().map(Chunk::heap_bytes).sum());
        self.len -= old.iter().map(Chunk::len).sum::<usize>();
        let mut heap_bytes = 0;
        let chunks = Chunk::pack_all(members).inspect(|chunk| heap_bytes += chunk.heap_bytes());
        self.chunks.splice(range, chunks);
        self.chunk_bytes += figure(heap_bytes);
        self.text_bytes = (self.text_bytes + figure(text.come)) - figure(text.gone);
        self.len += members.len();
    }

    /// The length of [`Self::write_text`], in bytes.
    pub fn text_len(&self) -> usize {
        (self.text_bytes as usize).saturating_sub(1)
    }

    /// Writes the wire form: `id attribute`, one a line, no newline at the end. What this gives,
    /// [`parse`] takes back. It comes by lines: as many as `out` has `room` for, and one at least.
    /// `at` is where to go on; true if that is now all.
    pub fn write_text(&self, (at, room): (&mut usize, usize), out: &mut Vec<u8>) -> bool {
        if out.len() + self.text_bytes as usize > room {
            // It takes all the room that there is, and not twice as much.
            out.reserve_exact(room.saturating_sub(out.len()) + LINE_MAX);
        }
        let mut number = itoa::Buffer::new();
        let end = room.max(out.len() + 1);
        while let Some(chunk) = self.chunks.get(*at / CHUNK_LEN) {
            for member in chunk.members().skip(*at % CHUNK_LEN) {
                if out.len() >= end {
                    return false;
                }
                if *at > 0 {
                    out.push(b'\n');
                }
                out.extend_from_slice(number.format(member.id).as_bytes());
                out.push(b' ');
                out.extend_from_slice(number.format(member.attribute).as_bytes());
                *at += 1;
            }
            *at = (*at - 1) / CHUNK_LEN * CHUNK_LEN + CHUNK_LEN;
        }
        true
    }

    /// What this takes on the heap with the `Arc` that it is in, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let places = on_heap(self.chunks.capacity() * size_of::<Chunk>());
        let own = on_heap(size_of::<(AtomicUsize, AtomicUsize, Self)>());
        self.chunk_bytes as usize + places + own
    }

    /// What of this copies of the index share, in bytes.
    pub fn shared_bytes(&self) -> usize {
        self.chunks.iter().map(Chunk::shared_bytes).sum()
    }
}

/// Indexes are equal if their members are, however they are packed.
impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for Index {}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The members of both, in ascending order; of two with one id that of `added`.
fn merge(old: impl Iterator<Item = Member>, added: &[Member]) -> (Vec<Member>, TextChange) {
    let mut text = TextChange {
        come: added.iter().copied().map(text_bytes).sum(),
        gone: 0,
    };
    let mut merged = Vec::with_capacity(CHUNK_LEN + added.len());
    let mut added = added.iter().copied().peekable();
    for member in old {
        while let Some(new) = added.next_if(|new| new.id < member.id) {
            merged.push(new);
        }
        let new = added.next_if(|new| new.id == member.id);
        text.gone += new.map_or(0, |_| text_bytes(member));
        merged.push(new.unwrap_or(member));
    }
    merged.extend(added);
    (merged, text)
}

/// A sum over some members: of as many as an index may have it fits.
fn figure(sum: usize) -> u32 {
    const { assert!(MEMBERS_MAX * LINE_MAX < u32::MAX as usize) };
    u32::try_from(sum).unwrap_or(u32::MAX)
}

/// The length of a member's line.
fn text_bytes(member: Member) -> usize {
    digits(member.id) + digits(member.attribute) + 2
}

fn digits(number: u32) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Sorts by id; of duplicates the last one stays.
fn normalize(members: &mut Vec<Member>) {
    members.reverse();
    members.sort_by_key(|member| member.id);
    members.dedup_by_key(|member| member.id);
}

/// Why a body is not a list of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: a member is `id` or `id attribute`, each 0..4294967295")]
pub struct MemberError {
    /// The line of the body, from 1.
    pub line: usize,
}

/// Reads a body: one member a line, `id` or `id attribute`, ended by `\n` or `\r\n`, the last
/// line end optional. The members come back in ascending order, of duplicates the last.
pub fn parse(body: &[u8]) -> Result<Vec<Member>, MemberError> {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let body = body.strip_suffix(b"\r").unwrap_or(body);
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let mut members = Vec::with_capacity(body.len() / 8 + 1);
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        members.push(parse_member(line).ok_or(MemberError { line: number })?);
    }
    normalize(&mut members);
    Ok(members)
}

fn parse_member(line: &[u8]) -> Option<Member> {
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let number = |word: &[u8]| decimal(word).and_then(|number| u32::try_from(number).ok());
    let id = number(words.next()?)?;
    let attribute = words.next().map_or(Some(0), number)?;
    words.next().is_none().then_some(Member { id, attribute })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn text(index: &Index) -> String {
        let mut out = Vec::new();
        assert!(index.write_text((&mut 0, usize::MAX), &mut out));
        assert_eq!(out.len(), index.text_len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_get_gives_set_takes_back() {
        let index = Index::from_members(parse(b"7 9\r\n5\n4294967295 0\r\n7 1\r\n").unwrap());
        assert_eq!(text(&index), "5 0\n7 1\n4294967295 0");
        assert_eq!(
            Index::from_members(parse(text(&index).as_bytes()).unwrap()),
            index
        );
        assert_eq!(text(&Index::default()), "");
    }

    #[test]
    fn a_text_that_comes_in_pieces_is_the_same() {
        let members = (0..10_000).map(|at| Member {
            id: u32::MAX - at,
            attribute: u32::MAX,
        });
        let index = Index::from_members(members.collect());
        for room in [0, 150, 6000, 64 << 10] {
            let (mut all, mut at) = (Vec::new(), 0);
            loop {
                let mut piece = vec![0; 100];
                let is_all = index.write_text((&mut at, room), &mut piece);
                assert!(piece.len() > 100 && piece.len() <= room.max(100) + LINE_MAX);
                all.extend_from_slice(&piece[100..]);
                if is_all {
                    break;
                }
            }
            assert_eq!(String::from_utf8(all).unwrap(), text(&index));
        }
    }

    #[test]
    fn bodies_that_are_not_members_name_their_line() {
        assert_eq!(parse(b""), Ok(vec![]));
        assert_eq!(parse(b"\r\n"), Ok(vec![]));
        for (body, line) in [
            ("x", 1),
            ("1\n\n2", 2),
            ("1\n2 3 4", 2),
            ("1\n2\n4294967296", 3),
            ("1 -1", 1),
            ("1,2", 1),
            ("1\n\n", 2),
            ("\n1", 1),
        ] {
            assert_eq!(
                parse(body.as_bytes()),
                Err(MemberError { line }),
                "{body:?}"
            );
        }
    }

    #[test]
    fn a_shared_copy_does_not_change_with_the_original() {
        let mut index =
            Index::from_members((0..2000).map(|id| Member { id, attribute: 0 }).collect());
        let copy = index.clone();
        index.remove(&[5]);
        index.insert(&[Member {
            id: 9,
            attribute: 9,
        }]);
        assert!(copy.contains(5) && !index.contains(5));
        assert_eq!(
            copy.iter()
                .map(|member| u64::from(member.attribute))
                .sum::<u64>(),
            0
        );
    }

    #[test]
    fn an_edit_of_a_copy_leaves_the_other_chunks_shared() {
        let members = (0..100_000).map(|id| Member {
            id: id * 7,
            attribute: 0,
        });
        let mut index = Index::from_members(members.collect());
        let copy = index.clone();
        let heap =
            |index: &Index| -> Vec<usize> { index.chunks.iter().map(Chunk::address).collect() };
        index.insert(&[Member {
            id: 350_001,
            attribute: 0,
        }]);
        let (old, new) = (heap(&copy), heap(&index));
        assert_eq!(new.iter().filter(|at| !old.contains(at)).count(), 2);
        assert_eq!((copy.len(), index.len()), (100_000, 100_001));
    }

    #[test]
    fn members_take_few_bytes() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut bytes_each = |count: u32, last: u32| {
            let ids: Vec<_> = (0..count).map(|_| random.u32(0..=last)).collect();
            let member = |id| Member { id, attribute: 0 };
            let built = Index::from_members(ids.iter().copied().map(member).collect());
            let mut grown = Index::default();
            for id in &ids {
                grown.insert(&[member(*id)]);
            }
            [built, grown].map(|index| index.heap_bytes() as f64 / index.len() as f64)
        };
        for (count, last, most) in [
            (150, u32::MAX, 5.1),
            (100_000, 1_000_000, 1.3),
            (100_000, 429_496_729, 2.6),
        ] {
            let each = bytes_each(count, last);
            assert!(each.iter().all(|each| *each <= most), "{count}: {each:?}");
        }
    }

    /// Ids in a row, each `step` after the last.
    fn row((first, step, count): (u32, u32, u32)) -> impl Iterator<Item = u32> {
        (0..count).map(move |at| first.wrapping_add(at.wrapping_mul(step)))
    }

    fn any_row() -> impl Strategy<Value = (u32, u32, u32)> {
        (any::<u32>(), prop_oneof![1u32..9, any::<u32>()], 0u32..900)
    }

    proptest! {
        #[test]
        fn rows_of_members_come_and_go_as_in_a_sorted_map(
            edits in prop::collection::vec((any::<bool>(), 0u32..3, any_row()), 0..30)
        ) {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            for (add, attribute, of) in edits {
                if add {
                    let members: Vec<_> = row(of).map(|id| Member { id, attribute }).collect();
                    let mut each = members.clone();
                    normalize(&mut each);
                    let after = index.text_len_after(&each, &[]);
                    index.insert(&members);
                    prop_assert_eq!(index.text_len(), after);
                    model.extend(row(of).map(|id| (id, attribute)));
                } else {
                    let ids: Vec<_> = row(of).collect();
                    let mut each = ids.clone();
                    each.sort_unstable();
                    each.dedup();
                    let after = index.text_len_after(&[], &each);
                    index.remove(&ids);
                    prop_assert_eq!(index.text_len(), after);
                    model.retain(|id, _| !ids.contains(id));
                }
            }
            let members: Vec<_> = index.iter().map(|it| (it.id, it.attribute)).collect();
            prop_assert!(members.iter().all(|(id, _)| index.contains(*id)));
            prop_assert_eq!(index.len(), members.len());
            prop_assert_eq!(members, model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(&Index::from_members(index.iter().collect()), &index);
            let heap_bytes: usize = index.chunks.iter().map(Chunk::heap_bytes).sum();
            prop_assert_eq!(index.chunk_bytes as usize, heap_bytes);
            text(&index);
        }

        #[test]
        fn an_index_behaves_as_a_sorted_map(
            edits in prop::collection::vec((any::<bool>(), 0u32..3000, 0u32..3), 0..4000)
        ) {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            for (add, id, attribute) in edits {
                if add {
                    index.insert(&[Member { id, attribute }]);
                    model.insert(id, attribute);
                } else {
                    index.remove(&[id]);
                    model.remove(&id);
                }
            }
            let members: Vec<_> = index.iter().map(|it| (it.id, it.attribute)).collect();
            prop_assert_eq!(index.len(), members.len());
            prop_assert_eq!(members, model.into_iter().collect::<Vec<_>>());
            let heap_bytes: usize = index.chunks.iter().map(Chunk::heap_bytes).sum();
            prop_assert_eq!(index.chunk_bytes as usize, heap_bytes);
            text(&index);
        }
    }
}
