//! A chunk of an INDEX: up to 256 members in ascending order, packed into one allocation that
//! copies of the index share.
//!
//! Invariant: a chunk never changes and has at least one member; an edit makes new ones. The
//! first id is in the chunk's place in the index, where a search reads it; then comes, as LEB128
//! numbers, each further id as its distance from the one before, and, in a chunk that has an
//! attribute other than 0, after each id (the first one too) its attribute. So an id takes one
//! byte in a dense index, two where one id in some thousands is a member, four at most but for a
//! few.

use super::block::Block;
use super::index::Member;
use crate::codec::{Reader, put_varint};

/// The most members of a chunk. An edit of one member reads and writes this many at most.
pub(super) const CHUNK_LEN: usize = 256;

/// Members in ascending order of id.
#[derive(Clone)]
pub(super) struct Chunk {
    first: u32,
    rest: Block<Row>,
}

#[derive(Clone, Copy)]
struct Row {
    len: u16,
    with_attributes: bool,
}

impl Chunk {
    /// Packs members, which are in ascending order and fit; `None` if there are none.
    fn pack(members: &[Member]) -> Option<Self> {
        let first = members.first()?;
        let with_attributes = members.iter().any(|member| member.attribute != 0);
        let mut bytes = Vec::with_capacity(CHUNK_LEN * 4);
        let mut before = first.id;
        for (at, member) in members.iter().enumerate() {
            if at > 0 {
                put_varint(&mut bytes, u64::from(member.id.wrapping_sub(before)));
            }
            if with_attributes {
                put_varint(&mut bytes, u64::from(member.attribute));
            }
            before = member.id;
        }
        let row = Row {
            len: u16::try_from(members.len()).unwrap_or(u16::MAX),
            with_attributes,
        };
        Some(Self {
            first: first.id,
            rest: Block::new(row, 0, &[&bytes]),
        })
    }

    /// Packs any number of members, which are in ascending order, into chunks that are as full
    /// as they can be; or, so that the next insertion does not split one, into two halves.
    pub(super) fn pack_all(members: &[Member]) -> impl Iterator<Item = Self> {
        let len = members.len();
        let one = if len > CHUNK_LEN && len <= 2 * CHUNK_LEN {
            len.div_ceil(2)
        } else {
            CHUNK_LEN
        };
        members.chunks(one).filter_map(Self::pack)
    }

    /// The smallest id.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        usize::from(self.rest.head().len)
    }

    /// The members in ascending order of id.
    pub(super) fn members(&self) -> Members<'_> {
        Members {
            reader: Reader::new(self.rest.bytes()),
            id: self.first,
            left: self.rest.head().len,
            is_first: true,
            with_attributes: self.rest.head().with_attributes,
        }
    }

    /// What this takes on the heap beside its place in the index, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.rest.heap_bytes()
    }

    /// What of it copies of the chunk share, in bytes.
    pub(super) fn shared_bytes(&self) -> usize {
        self.rest.shared_bytes()
    }

    /// Where it is in memory.
    #[cfg(test)]
    pub(super) fn address(&self) -> usize {
        self.rest.bytes().as_ptr().addr()
    }
}

/// The members of a chunk, one after the other.
pub(super) struct Members<'c> {
    reader: Reader<'c>,
    id: u32,
    left: u16,
    is_first: bool,
    with_attributes: bool,
}

impl Iterator for Members<'_> {
    type Item = Member;

    #[inline]
    fn next(&mut self) -> Option<Member> {
        self.left = self.left.checked_sub(1)?;
        if !self.is_first {
            self.id = self.id.wrapping_add(self.reader.varint_as().ok()?);
        }
        self.is_first = false;
        let attribute = if self.with_attributes {
            self.reader.varint_as().ok()?
        } else {
            0
        };
        Some(Member {
            id: self.id,
            attribute,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left)))
    }
}
