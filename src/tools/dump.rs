//! `dump`: the state of a data directory as text, one entry a line.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::clock;
use crate::exit::Exit;
use crate::journal::disk::ReadOnlyDisk;
use crate::key::{Key, TypedKey};
use crate::store::Store;
use crate::store::locks::{ReadSet, ShardSet};

use super::ToolError;
use super::check::verify;
use super::files::NewFile;
use super::ndjson::{DumpWriter, EntryLine, Header, VERSION, type_rows};
use super::progress::Progress;

/// The page of `--help`.
pub(super) const PAGE: &str = "\
Write every entry of a data directory as a line of JSON.

Reads DIR as a start of the server does, and changes nothing: DIR may be a copied backup or lie on a
read-only file system. The memory that this takes is that of all data, also of values that
keep_in_memory leaves in their files. A directory that a start would refuse is refused; salvage
it first. A running server's directory is locked: stop the server, or dump a backup of it.

The first line has the format's version, the number of the next record, the time and the types.
Then comes one line for each entry, named keys first and then by type and id, so that equal data
give equal lines:

  {\"key\":\"2.17\",\"type\":\"COUNTER\",\"value\":5,\"flags\":0,\"expires\":null}

COUNTER has a number, COUNTER64 a string of digits (JSON numbers lose digits beyond 2^53), INDEX a
list of ids, or of [id, attribute] pairs if any attribute is not 0; DATA and NAMED a string, or
\"base64\" instead of \"value\" if the bytes are not UTF-8 (likewise \"key_base64\"). \"expires\" is
in seconds since 1970, rounded up to a whole second. A key that was sent as base64 (the flag b of
the meta commands) has \"binary\":true. What has expired by now is left out, and so are cas uniques
and what meta commands have noted: that an entry is stale, or being won. After each block of
entries, and at the end, a line has their number so far and a checksum of all bytes before it.

An interrupted dump leaves no FILE (but FILE.part, which the next one replaces): most of the work is
reading DIR, so there is nothing to go on from. Begin again.";

/// The arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = "\
EXIT CODES
  0   the dump is complete
  65  the directory is damaged: see `storage_server check` and `salvage`
  73  a server or another tool is using the directory
  74  the directory cannot be read, or the dump cannot be written

EXAMPLES
  storage_server dump data -o dump.ndjson
  storage_server dump data | zstd > dump.ndjson.zst
  storage_server dump data | jq -r 'select(.type == \"COUNTER\") | [.key, .value] | @tsv'
")]
pub struct Args {
    /// The data directory, of a server that is stopped, or a copy
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The file; it is replaced only by a whole dump [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// No progress on standard error
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, ToolError> {
    let disk = ReadOnlyDisk::open(&args.dir)?;
    let (store, recovered) = verify(&disk, args.quiet)?;
    let header = Header {
        storage_server_dump: VERSION,
        record: recovered.next_seq,
        time: recovered.newest_time.to_string(),
        types: type_rows(&store.types()),
    };
    let now = clock::wall().max(recovered.newest_time);
    match &args.output {
        None => {
            write(out, &header, &store, now, args.quiet)?;
        }
        Some(path) => {
            let failed = |error| cannot_write(path, error);
            let file = NewFile::create(path).map_err(failed)?;
            let (entries, file) = write(file, &header, &store, now, args.quiet).map_err(failed)?;
            file.finish().map_err(failed)?;
            writeln!(out, "{}: {entries} entries", path.display())?;
        }
    }
    Ok(Exit::Ok)
}

fn cannot_write(path: &Path, source: io::Error) -> ToolError {
    ToolError::File {
        doing: "write",
        path: path.to_owned(),
        source,
    }
}

/// Writes the dump; answers the number of entries, and the writer.
fn write<W: Write>(
    out: W,
    header: &Header,
    store: &Store,
    now: clock::Time,
    quiet: bool,
) -> io::Result<(u64, W)> {
    let table = store.types();
    let shards = store.read_set(ShardSet::ALL);
    let (names, ids_of) = sorted_keys(&shards, now);
    let total = names.len() + ids_of.values().map(Vec::len).sum::<usize>();
    let mut progress = Progress::entries("dumping", total as u64, quiet);
    let mut writer = DumpWriter::begin(out, header)?;
    let by_name = names.iter().map(|name| Key::Named(name));
    let numbered = ids_of.iter().flat_map(|(prefix, ids)| {
        let key = |id| TypedKey {
            prefix: *prefix,
            id,
        };
        ids.iter().map(move |id| Key::Typed(key(*id)))
    });
    for key in by_name.chain(numbered) {
        let hash = store.hashing().key(key);
        let view = shards
            .shard(hash)
            .and_then(|shard| shard.view(hash, key, now));
        if let Some(view) = view {
            let line = EntryLine::of(key, &view, &table);
            writer.entry(&line.ok_or_else(|| io::Error::other("a value was not read"))?)?;
        }
        progress.advance(1);
    }
    writer.finish()
}

type Names = Vec<Box<[u8]>>;

/// All keys that are alive, ascending.
fn sorted_keys(shards: &ReadSet<'_>, now: clock::Time) -> (Names, BTreeMap<u16, Vec<u32>>) {
    let mut names = Names::new();
    let mut typed: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for shard in shards.shards() {
        let mut visit = |key: Key<'_>| match key {
            Key::Named(name) => names.push(name.into()),
            Key::Typed(key) => typed.entry(key.prefix).or_default().push(key.id),
        };
        let Ok(()) = shard.for_each(now, |key, _| {
            visit(key);
            Ok::<_, std::convert::Infallible>(())
        });
    }
    names.sort_unstable();
    for ids in typed.values_mut() {
        ids.sort_unstable();
    }
    (names, typed)
}
