//! A simulated file: what is read, what lasts, and every write in between.
//!
//! Invariant: the same edits and the same random numbers give the same content after a crash.
//! The simulated disk alone uses this.

use super::Crash;

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) live: Vec<u8>,
    pub(super) lasting: Vec<u8>,
    pub(super) edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
pub(super) enum Edit {
    Write(usize, Vec<u8>),
    Length(usize),
}

const SECTOR_BYTES: usize = 512;

/// Splitmix64: small, and the same everywhere.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// How likely it is that something lasts: even odds, or long ones either way, so that one
    /// write alone is lost and one alone survives, too.
    pub(super) fn odds(&mut self) -> Odds {
        Odds(match self.next() % 4 {
            0 => 1,
            1 => 15,
            _ => 8,
        })
    }

    pub(super) fn wins(&mut self, odds: Odds) -> bool {
        self.next() % 16 < odds.0
    }
}

/// Of 16.
#[derive(Clone, Copy, Debug)]
pub(super) struct Odds(u64);

fn write_into(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => write_into(content, *offset, bytes),
            Self::Length(len) => content.resize(*len, 0),
        }
    }
}

impl Content {
    pub(super) fn lasting(bytes: Vec<u8>) -> Self {
        Self {
            live: bytes.clone(),
            lasting: bytes,
            edits: Vec::new(),
        }
    }

    pub(super) fn edit(&mut self, edit: Edit) {
        edit.apply(&mut self.live);
        self.edits.push(edit);
    }

    /// The first edits last from now on.
    pub(super) fn sync(&mut self, edits: usize) {
        for edit in self.edits.drain(..edits.min(self.edits.len())) {
            edit.apply(&mut self.lasting);
        }
    }

    /// What is read is what lasts from now on, but for what was not synced.
    pub(super) fn drop_cached(&mut self) {
        self.live.clone_from(&self.lasting);
        for edit in &self.edits {
            edit.apply(&mut self.live);
        }
    }

    /// A sync of the first edits has failed. As the kernel does: they are clean now, and which
    /// of them last nobody knows.
    pub(super) fn fail_sync(&mut self, edits: usize, random: &mut Random) {
        let odds = random.odds();
        for edit in self.edits.drain(..edits.min(self.edits.len())) {
            apply_some(&mut self.lasting, &edit, Crash::Sectors, odds, random);
        }
    }

    pub(super) fn after(&self, crash: Crash, random: &mut Random) -> Vec<u8> {
        match crash {
            Crash::DropAll => self.lasting.clone(),
            Crash::KeepAll => self.live.clone(),
            Crash::OldSize => {
                let mut content = self.live.clone();
                content.resize(self.lasting.len(), 0);
                content
            }
            Crash::Sectors | Crash::Garbage | Crash::Reorder => {
                let mut content = self.lasting.clone();
                let odds = random.odds();
                for edit in &self.edits {
                    apply_some(&mut content, edit, crash, odds, random);
                }
                content
            }
        }
    }
}

/// What a crash leaves of an edit.
fn apply_some(content: &mut Vec<u8>, edit: &Edit, crash: Crash, odds: Odds, random: &mut Random) {
    match edit {
        Edit::Write(offset, bytes) if crash != Crash::Reorder => {
            write_sectors(content, *offset, bytes, crash, odds, random);
        }
        Edit::Write(..) | Edit::Length(_) if random.wins(odds) => edit.apply(content),
        Edit::Write(..) | Edit::Length(_) => {}
    }
}

fn write_sectors(
    content: &mut Vec<u8>,
    mut offset: usize,
    mut bytes: &[u8],
    crash: Crash,
    odds: Odds,
    random: &mut Random,
) {
    while !bytes.is_empty() {
        let in_sector = SECTOR_BYTES - offset % SECTOR_BYTES;
        let (part, rest) = bytes.split_at_checked(in_sector).unwrap_or((bytes, &[]));
        if random.wins(odds) {
            write_into(content, offset, part);
        } else if crash == Crash::Garbage {
            // A byte that is written as it already is stays: the medium is trusted so far.
            let old = content.get(offset..).unwrap_or_default().iter().copied();
            let old = old.map(Some).chain(std::iter::repeat(None));
            let noise = |(byte, old)| match old {
                Some(old) if old == byte => byte,
                Some(_) | None => random.next().to_le_bytes()[0],
            };
            let noise: Vec<u8> = part.iter().copied().zip(old).map(noise).collect();
            write_into(content, offset, &noise);
        }
        offset += part.len();
        bytes = rest;
    }
}
