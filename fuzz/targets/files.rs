//! A data directory of any bytes: it is refused, or it gives a state that the next start finds
//! again.
//!
//! The input is the files one after the other, each known by its magic. Its first byte, if odd,
//! has the checksums mended and the files made those of one store, so that what is behind the
//! checksums is tried, too. Two servers are started only if it is 14 or 15 modulo 16: otherwise
//! the state is read as they would, which is much faster.

#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use storage_server::engine::read_state;
use storage_server::journal::record::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, FILE_HEADER_BYTES, batch_seed,
};
use storage_server::journal::sim::SimDisk;

mod support;
use support::CONFIG;
use support::memory::MemoryServer;

const LOG_ID: [u8; 16] = *b"0123456789abcdef";

/// The name of a file by its magic and its number.
fn name(file: &[u8]) -> Option<String> {
    let number = u64::from_le_bytes(*file.get(40..)?.first_chunk()?);
    match file.first_chunk()? {
        b"STORJRNL" => Some(format!("journal-{number:010}")),
        b"STORSNAP" => Some(format!("snapshot-{number:010}")),
        b"STORHEAD" => Some("STORE".to_owned()),
        _ => None,
    }
}

fn is_magic(bytes: &[u8]) -> bool {
    let kind = bytes.strip_prefix(b"STOR");
    kind.is_some_and(|kind| kind.iter().take(4).all(u8::is_ascii_uppercase))
}

/// The files of an input: each begins at a magic.
fn split(mut input: &[u8]) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    while !input.is_empty() {
        let starts = |at: &usize| is_magic(&input[*at..]);
        let next = (1..input.len()).find(starts).unwrap_or(input.len());
        files.push(input[..next].to_vec());
        input = &input[next..];
    }
    files
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Makes the file one of this store and its checksums right; `chain` is the header CRC of the
/// segment's last batch before it, and then of its own.
fn mend(file: &mut [u8], chain: &mut u32) {
    if file.len() < FILE_HEADER_BYTES {
        return;
    }
    file[16..32].copy_from_slice(&LOG_ID);
    let segment = file.starts_with(b"STORJRNL");
    let fresh = file[68] & 1 == 1;
    put(file, 64, if segment && !fresh { *chain } else { 0 });
    let mut crc = crc32c::crc32c(&file[..FILE_HEADER_BYTES - 4]);
    put(file, FILE_HEADER_BYTES - 4, crc);
    let number = u64::from_le_bytes(*file[40..].first_chunk().unwrap());
    let seed = batch_seed(&LOG_ID, number);
    let mut at = FILE_HEADER_BYTES;
    while let Some(batch) = file
        .get_mut(at..)
        .filter(|rest| rest.starts_with(&BATCH_MAGIC))
    {
        if batch.len() < BATCH_HEADER_BYTES {
            break;
        }
        let (header, rest) = batch.split_at_mut(BATCH_HEADER_BYTES);
        let len = u32::from_le_bytes(*header[8..].first_chunk().unwrap()) as usize;
        let len = len.min(rest.len());
        put(header, 40, crc);
        put(header, 44, crc32c::crc32c(&rest[..len]));
        crc = crc32c::crc32c_append(seed, &header[..BATCH_HEADER_BYTES - 4]);
        put(header, BATCH_HEADER_BYTES - 4, crc);
        at += BATCH_HEADER_BYTES + len;
    }
    if segment {
        *chain = crc;
    }
}

/// How a server on this disk ends, if it starts: its entries and its disk.
fn start(disk: SimDisk) -> Option<(usize, SimDisk)> {
    let server = MemoryServer::open(CONFIG, disk).ok()?;
    let question = b"get k a b 1.1 1.2 2.1 2.2 3.1 4.1 5.1 6.1 7.1 name greeting\r\n";
    assert!(server.connect().ask(question).ends_with(b"\r\n"));
    Some((server.engine().store().entries(), server.disk.kill()))
}

fuzz_target!(|input: &[u8]| {
    let Some((how, input)) = input.split_first() else {
        return;
    };
    let (disk, mut chain) = (SimDisk::new(), 0);
    for mut file in split(input) {
        if how % 2 == 1 {
            mend(&mut file, &mut chain);
        }
        if let Some(name) = name(&file) {
            disk.put(&name, &file);
        }
    }
    if how % 16 < 14 {
        drop(read_state(&disk, &mut |_| ControlFlow::Continue(())));
        return;
    }
    if let Some((entries, disk)) = start(disk) {
        let (again, _) = start(disk).expect("what was loaded once is loaded again");
        assert_eq!(again, entries);
    }
});
