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

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

fn write_into(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

impl Content {
    pub(super) fn edit(&mut self, edit: Edit) {
        match &edit {
            Edit::Write(offset, bytes) => write_into(&mut self.live, *offset, bytes),
            Edit::Length(len) => self.live.resize(*len, 0),
        }
        self.edits.push(edit);
    }

    pub(super) fn sync(&mut self) {
        for edit in self.edits.drain(..) {
            match edit {
                Edit::Write(offset, bytes) => write_into(&mut self.lasting, offset, &bytes),
                Edit::Length(len) => self.lasting.resize(len, 0),
            }
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
            Crash::Sectors | Crash::Garbage => {
                let mut content = self.lasting.clone();
                for edit in &self.edits {
                    match edit {
                        Edit::Write(offset, bytes) => {
                            write_some(&mut content, *offset, bytes, crash, random);
                        }
                        Edit::Length(len) if random.coin() => content.resize(*len, 0),
                        Edit::Length(_) => {}
                    }
                }
                content
            }
        }
    }
}

fn write_some(
    content: &mut Vec<u8>,
    mut offset: usize,
    mut bytes: &[u8],
    crash: Crash,
    random: &mut Random,
) {
    while !bytes.is_empty() {
        let in_sector = SECTOR_BYTES - offset % SECTOR_BYTES;
        let (part, rest) = bytes.split_at_checked(in_sector).unwrap_or((bytes, &[]));
        if random.coin() {
            write_into(content, offset, part);
        } else if crash == Crash::Garbage {
            let noise: Vec<u8> = part
                .iter()
                .map(|_| random.next().to_le_bytes()[0])
                .collect();
            write_into(content, offset, &noise);
        }
        offset += part.len();
        bytes = rest;
    }
}
