//! INDEX: a set of u32 ids with a u32 attribute each, in ascending order of id.
//!
//! Memory form: a row of chunks of sorted ids, so that an edit moves at most one chunk and a
//! copy that is shared (by a running fan-out or a snapshot) is split chunk by chunk. Attributes
//! take memory only in chunks that have one other than 0.

use std::sync::Arc;

use crate::key::decimal;

/// One member of an INDEX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The id.
    pub id: u32,
    /// Its attribute; 0 unless given.
    pub attribute: u32,
}

/// A set of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    chunks: Vec<Arc<Chunk>>,
    len: usize,
}

/// The most ids of a chunk: 2 KiB of ids, so that an insertion moves at most that.
const CHUNK_LEN: usize = 512;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chunk {
    /// Ascending, never empty within an index.
    ids: Vec<u32>,
    /// As long as `ids`, or empty while every attribute is 0.
    attributes: Vec<u32>,
}

impl Chunk {
    fn from_members(members: &[Member]) -> Self {
        let attributes = if members.iter().all(|member| member.attribute == 0) {
            Vec::new()
        } else {
            members.iter().map(|member| member.attribute).collect()
        };
        Self {
            ids: members.iter().map(|member| member.id).collect(),
            attributes,
        }
    }

    fn first(&self) -> u32 {
        self.ids.first().copied().unwrap_or_default()
    }

    fn members(&self) -> impl Iterator<Item = Member> {
        let attributes = self.attributes.iter().copied().chain(std::iter::repeat(0));
        self.ids
            .iter()
            .zip(attributes)
            .map(|(id, attribute)| Member { id: *id, attribute })
    }

    /// Adds a member or updates its attribute; true if it was not there.
    fn insert(&mut self, member: Member) -> bool {
        let found = self.ids.binary_search(&member.id);
        if member.attribute != 0 && self.attributes.is_empty() {
            self.attributes = vec![0; self.ids.len()];
        }
        match found {
            Ok(at) => {
                if let Some(attribute) = self.attributes.get_mut(at) {
                    *attribute = member.attribute;
                }
            }
            Err(at) => {
                make_room(&mut self.ids);
                self.ids.insert(at, member.id);
                if member.attribute != 0 || !self.attributes.is_empty() {
                    make_room(&mut self.attributes);
                    self.attributes.insert(at, member.attribute);
                }
            }
        }
        found.is_err()
    }

    /// Removes a member; true if it was there.
    fn remove(&mut self, id: u32) -> bool {
        let Ok(at) = self.ids.binary_search(&id) else {
            return false;
        };
        self.ids.remove(at);
        if at < self.attributes.len() {
            self.attributes.remove(at);
        }
        true
    }

    /// Takes the upper half away.
    fn split_off(&mut self) -> Self {
        let middle = self.ids.len() / 2;
        let ids = self.ids.split_off(middle);
        let attributes = if self.attributes.is_empty() {
            Vec::new()
        } else {
            self.attributes.split_off(middle)
        };
        Self { ids, attributes }
    }

    fn heap_bytes(&self) -> usize {
        4 * (self.ids.capacity() + self.attributes.capacity()) + size_of::<Self>() + 32
    }
}

/// Grows by an eighth at a time: most indexes are edited rarely and there are many of them.
fn make_room(column: &mut Vec<u32>) {
    if column.len() == column.capacity() {
        column.reserve_exact(column.len() / 8 + 4);
    }
}

impl Index {
    /// Builds an index from members in any order; of duplicates the last wins.
    pub fn from_members(mut members: Vec<Member>) -> Self {
        normalize(&mut members);
        let chunks: Vec<_> = members
            .chunks(CHUNK_LEN)
            .map(|members| Arc::new(Chunk::from_members(members)))
            .collect();
        Self {
            chunks,
            len: members.len(),
        }
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
        self.chunks.iter().flat_map(|chunk| chunk.members())
    }

    /// The ids in ascending order, a chunk at a time.
    pub fn id_slices(&self) -> impl Iterator<Item = &[u32]> {
        self.chunks.iter().map(|chunk| chunk.ids.as_slice())
    }

    /// True if `id` is a member.
    pub fn contains(&self, id: u32) -> bool {
        self.chunk_at(id)
            .and_then(|at| self.chunks.get(at))
            .is_some_and(|chunk| chunk.ids.binary_search(&id).is_ok())
    }

    /// The position of the chunk that holds `id` or would take it.
    fn chunk_at(&self, id: u32) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk.first() <= id);
        (!self.chunks.is_empty()).then(|| after.saturating_sub(1))
    }

    /// Adds members or updates their attributes.
    pub fn insert(&mut self, members: &[Member]) {
        if self.is_empty() {
            *self = Self::from_members(members.to_vec());
            return;
        }
        for member in members {
            self.insert_one(*member);
        }
    }

    fn insert_one(&mut self, member: Member) {
        let at = self.chunk_at(member.id).unwrap_or_default();
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        let chunk = Arc::make_mut(chunk);
        self.len += usize::from(chunk.insert(member));
        if chunk.ids.len() > CHUNK_LEN {
            let upper = chunk.split_off();
            self.chunks.insert(at + 1, Arc::new(upper));
        }
    }

    /// Removes the members with these ids; those that are not there are passed over.
    pub fn remove(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            let Some(at) = self.chunk_at(id) else { return };
            let Some(chunk) = self.chunks.get_mut(at) else {
                return;
            };
            if chunk.ids.binary_search(&id).is_err() {
                continue;
            }
            let chunk = Arc::make_mut(chunk);
            self.len -= usize::from(chunk.remove(id));
            if chunk.ids.is_empty() {
                self.chunks.remove(at);
            }
        }
    }

    /// The length of [`Self::write_text`], in bytes.
    pub fn text_len(&self) -> usize {
        let members: usize = self
            .iter()
            .map(|member| digits(member.id) + digits(member.attribute) + 2)
            .sum();
        members.saturating_sub(1)
    }

    /// The wire form: `id attribute`, one a line, no newline at the end. What this gives,
    /// [`parse`] takes back.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        let mut separator: &[u8] = b"";
        for member in self.iter() {
            out.extend_from_slice(separator);
            out.extend_from_slice(number.format(member.id).as_bytes());
            out.push(b' ');
            out.extend_from_slice(number.format(member.attribute).as_bytes());
            separator = b"\n";
        }
    }

    /// What this takes on the heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.heap_bytes()).sum();
        chunks + self.chunks.capacity() * size_of::<usize>() + size_of::<Self>() + 16
    }
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
        index.write_text(&mut out);
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
        index.remove([5]);
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

    proptest! {
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
                    index.remove([id]);
                    model.remove(&id);
                }
            }
            let members: Vec<_> = index.iter().map(|it| (it.id, it.attribute)).collect();
            prop_assert_eq!(index.len(), members.len());
            prop_assert_eq!(members, model.into_iter().collect::<Vec<_>>());
            prop_assert!(index.chunks.iter().all(|chunk| !chunk.ids.is_empty()));
        }
    }
}
