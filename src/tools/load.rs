//! `load`: a dump into a running server.
//!
//! Invariant: nothing is sent before the block of lines that it is in has been checked, and a block
//! counts as loaded only when the server has answered for all of it.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::exit::Exit;

use super::ToolError;
use super::client::{Client, Server};
use super::files;
use super::ndjson::{Checked, EntryLine, Header, NAMED, VERSION, crc_text};
use super::progress::Progress;

/// The page of `--help`.
pub(super) const PAGE: &str = "\
Load a dump into a running server.

Each entry of FILE (see `storage_server dump --help`) is set in the server, with its flags and
expiry; an entry that the server has under the same key is replaced, all others stay. To load into
an empty store, start a server on an empty directory. The server's types must be those of the dump
(a COUNTER may become a COUNTER64). What has expired by now is left out. While it runs, clients see
some entries already and some not yet.

FILE is checked block by block, and nothing of a block is sent before its checksum was found right;
so a damaged dump is loaded up to its last good block, and the lines of the damage are named. It
ends at the first entry that the server refuses, unless --keep-going is given.

A load can be interrupted and continued: with --resume STATE it notes in STATE how far it is, and
goes on from there if STATE is there. Up to a block of entries may be set a second time, so continue
before clients change them. STATE is removed when all is loaded.

An INDEX whose text is longer than the server's max_value is set in parts. cas uniques are new, and
nothing is stale or being won any more.";

/// The arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = "\
EXIT CODES
  0   everything is loaded
  65  the dump is damaged or cut short, or entries were refused: the lines are named
  69  the server cannot be reached, or the connection was lost
  74  a file cannot be read or written
  78  the configuration cannot be read

EXAMPLES
  storage_server load dump.ndjson
  storage_server load dump.ndjson --server 10.0.0.7:11211 --resume dump.state
  zstd -dc dump.ndjson.zst | storage_server load -
")]
pub struct Args {
    /// The dump; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    server: Server,
    /// Note how far it is in this file, and go on from what it says
    #[arg(long, value_name = "STATE")]
    resume: Option<PathBuf>,
    /// Go on after entries that the server refuses
    #[arg(long)]
    keep_going: bool,
    /// Take lines without header and checksums: of a dump that was edited, or made elsewhere
    #[arg(long)]
    unchecked: bool,
    /// No progress on standard error
    #[arg(short, long)]
    quiet: bool,
}

/// Requests that are sent before their replies are read: their replies must fit the buffers
/// in between, or both sides would wait.
const WINDOW_REQUESTS: usize = 100;
const WINDOW_BYTES: usize = 256 << 10;
/// Without checked lines a block ends after so many entries.
const UNCHECKED_ENTRIES: usize = 1000;
/// A longer line is no entry.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// How far a load is, as it stands in the state file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    lines: u64,
    entries: u64,
    crc32c: String,
}

/// An entry of the block that is read.
struct Waiting {
    line: u64,
    key: Vec<u8>,
    requests: Vec<Vec<u8>>,
}

struct Load<'a> {
    args: &'a Args,
    client: Client,
    /// What the server's types hold.
    kinds: HashMap<u16, String>,
    body_max: usize,
    now_s: u64,
    /// What was loaded before.
    resumed: State,
    crc: u32,
    line: u64,
    entries: u64,
    block: Vec<Waiting>,
    loaded: u64,
    expired: u64,
    refused: u64,
    /// The last line of which everything before is loaded.
    loaded_to: u64,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, ToolError> {
    let (input, len) = open(&args.file)?;
    let resumed = read_state(args.resume.as_deref())?;
    let mut client = Client::connect(&args.server)?;
    let kinds = client.types()?;
    let settings = client.list("stats settings")?;
    let mut load = Load {
        args,
        kinds,
        body_max: body_max(&settings),
        client,
        now_s: clock::wall().seconds(),
        resumed,
        crc: 0,
        line: 0,
        entries: 0,
        block: Vec::new(),
        loaded: 0,
        expired: 0,
        refused: 0,
        loaded_to: 0,
    };
    let mut progress = Progress::bytes("loading", len, args.quiet);
    let result = load.run(input, &mut progress);
    drop(progress);
    writeln!(
        out,
        "{} entries loaded, {} left out because they have expired, {} refused; everything up to \
         line {} is done",
        load.loaded, load.expired, load.refused, load.loaded_to
    )?;
    result?;
    if let Some(path) = &args.resume {
        files::remove(path).map_err(|error| file_error("remove", path, error))?;
    }
    Ok(if load.refused == 0 {
        Exit::Ok
    } else {
        Exit::Damaged
    })
}

fn file_error(doing: &'static str, path: &Path, source: io::Error) -> ToolError {
    ToolError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn open(path: &Path) -> Result<(Box<dyn BufRead>, u64), ToolError> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), 0));
    }
    let (file, len) = files::open(path).map_err(|error| file_error("read", path, error))?;
    Ok((Box::new(BufReader::with_capacity(1 << 20, file)), len))
}

fn read_state(path: Option<&Path>) -> Result<State, ToolError> {
    let Some(path) = path else {
        return Ok(State::default());
    };
    let bytes = files::read(path).map_err(|error| file_error("read", path, error))?;
    bytes.map_or(Ok(State::default()), |bytes| {
        serde_json::from_slice(&bytes).map_err(|_| {
            ToolError::Damaged(format!("{} is not the state of a load", path.display()))
        })
    })
}

fn body_max(settings: &[String]) -> usize {
    const DEFAULT: usize = 1 << 20;
    let mut values = settings
        .iter()
        .filter_map(|line| line.strip_prefix("STAT item_size_max "));
    values
        .next()
        .and_then(|value| value.parse().ok())
        .unwrap_or(DEFAULT)
}

impl Load<'_> {
    fn run(&mut self, mut input: impl BufRead, progress: &mut Progress) -> Result<(), ToolError> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = input.by_ref().take(LINE_BYTES_MAX);
            let read = limited.read_until(b'\n', &mut line);
            let bytes = read.map_err(|error| file_error("read", &self.args.file, error))?;
            if bytes == 0 {
                self.end_of_file()?;
                break;
            }
            self.line += 1;
            if line.pop() != Some(b'\n') {
                return Err(self.damaged("the line is cut short"));
            }
            progress.advance(bytes as u64);
            let before = self.crc;
            self.crc = crc32c::crc32c_append(crc32c::crc32c_append(before, &line), b"\n");
            if self.line == self.resumed.lines && crc_text(self.crc) != self.resumed.crc32c {
                return Err(self.another_dump());
            }
            if self.take(&line, before)? {
                break;
            }
        }
        if self.line < self.resumed.lines {
            return Err(self.another_dump());
        }
        Ok(())
    }

    fn another_dump(&self) -> ToolError {
        self.damaged("this is not the dump whose load began with that state file; remove it")
    }

    fn damaged(&self, what: &str) -> ToolError {
        ToolError::Damaged(format!(
            "{}, line {}: {what}",
            self.args.file.display(),
            self.line
        ))
    }

    fn end_of_file(&mut self) -> Result<(), ToolError> {
        if self.args.unchecked {
            return self.send_block();
        }
        self.line += 1;
        Err(self.damaged("the dump ends without its last line; it is cut short"))
    }

    /// Takes a line; true if it is the last one.
    fn take(&mut self, line: &[u8], before: u32) -> Result<bool, ToolError> {
        if line.starts_with(b"{\"checked\"") || line.starts_with(b"{\"end\"") {
            return self.checked(line, before);
        }
        if line.starts_with(b"{\"storage_server_dump\"") {
            return self.header(line).map(|()| false);
        }
        if self.line == 1 && !self.args.unchecked {
            return Err(self.damaged("it is not a dump: the first line is not a dump's header"));
        }
        let entry: EntryLine<'_> = serde_json::from_slice(line)
            .map_err(|error| self.damaged(&format!("it is not an entry: {error}")))?;
        self.entry(&entry)?;
        if self.args.unchecked && self.block.len() >= UNCHECKED_ENTRIES {
            self.send_block()?;
        }
        Ok(false)
    }

    fn header(&self, line: &[u8]) -> Result<(), ToolError> {
        let header: Header = serde_json::from_slice(line)
            .map_err(|error| self.damaged(&format!("the header cannot be read: {error}")))?;
        if header.storage_server_dump == VERSION {
            Ok(())
        } else {
            Err(self.damaged("it is of a later release"))
        }
    }

    /// The end of a block: if its bytes, up to `before`, are right it is sent.
    fn checked(&mut self, line: &[u8], before: u32) -> Result<bool, ToolError> {
        let checked: Checked = serde_json::from_slice(line)
            .map_err(|error| self.damaged(&format!("it cannot be read: {error}")))?;
        let count = checked.so_far.or(checked.end);
        let right = checked.crc32c == crc_text(before) && count == Some(self.entries);
        if !right && !self.args.unchecked {
            let first = self.loaded_to + 1;
            return Err(self.damaged(&format!(
                "the lines {first} to {} are not those that were written; they were not loaded",
                self.line - 1
            )));
        }
        self.send_block()?;
        Ok(checked.end.is_some() && !self.args.unchecked)
    }

    fn entry(&mut self, entry: &EntryLine<'_>) -> Result<(), ToolError> {
        self.entries += 1;
        let key = entry.key().map_err(|what| self.damaged(what))?;
        let requests = entry
            .requests(self.body_max)
            .map_err(|what| self.damaged(what))?;
        if self.line <= self.resumed.lines {
            return Ok(());
        }
        if entry.expires.is_some_and(|expires| expires <= self.now_s) {
            self.expired += 1;
            return Ok(());
        }
        let (requests, unsendable) = match requests {
            Ok(requests) => (requests, None),
            Err(what) => (Vec::new(), Some(what.to_owned())),
        };
        let waiting = Waiting {
            line: self.line,
            requests,
            key: key.to_vec(),
        };
        match unsendable.or_else(|| self.unfit(&waiting.key, &entry.kind)) {
            None => self.block.push(waiting),
            Some(what) => self.refused(&waiting, &what)?,
        }
        Ok(())
    }

    /// Why the server's type of a key is not that of the entry.
    fn unfit(&self, key: &[u8], kind: &str) -> Option<String> {
        if kind == NAMED {
            return None;
        }
        let digits = key.split(|byte| *byte == b'.').next().unwrap_or_default();
        let prefix = crate::key::decimal(digits).and_then(|prefix| u16::try_from(prefix).ok());
        let declared = prefix.and_then(|prefix| self.kinds.get(&prefix));
        match declared.map(String::as_str) {
            Some(declared) if declared == kind => None,
            Some("COUNTER64") if kind == "COUNTER" => None,
            Some(declared) => Some(format!("the server has it as {declared}, not as {kind}")),
            None => Some(format!("the server does not declare its type, {kind}")),
        }
    }

    fn refused(&mut self, waiting: &Waiting, what: &str) -> Result<(), ToolError> {
        self.refused += 1;
        let key = String::from_utf8_lossy(&waiting.key).into_owned();
        let text = format!(
            "{}, line {}: {key}: {what}",
            self.args.file.display(),
            waiting.line
        );
        if !self.args.keep_going {
            return Err(ToolError::Damaged(text));
        }
        // Without a terminal the count at the end has to do.
        let _ = writeln!(io::stderr(), "{text}");
        Ok(())
    }

    /// Sends the block and waits for every reply.
    fn send_block(&mut self) -> Result<(), ToolError> {
        let block = std::mem::take(&mut self.block);
        let mut window = Vec::new();
        let mut bytes = 0;
        for waiting in &block {
            // The parts of an INDEX go one by one, so that none follows one that was refused.
            let in_parts = waiting.requests.len() > 1;
            bytes += waiting.requests.first().map_or(0, Vec::len);
            if in_parts || window.len() >= WINDOW_REQUESTS || bytes >= WINDOW_BYTES {
                self.exchange(&mut window)?;
                bytes = 0;
            }
            if in_parts {
                self.parts(waiting)?;
            } else {
                window.push(waiting);
            }
        }
        self.exchange(&mut window)?;
        if self.line > self.resumed.lines {
            self.loaded_to = self.line;
            self.note()?;
        }
        Ok(())
    }

    /// Sends entries of one request each, then reads the replies.
    fn exchange(&mut self, window: &mut Vec<&Waiting>) -> Result<(), ToolError> {
        let mut bytes = Vec::new();
        for waiting in &*window {
            bytes.extend(waiting.requests.iter().flatten());
        }
        self.client.send(&bytes)?;
        for waiting in window.drain(..) {
            if self.is_stored(waiting)? {
                self.loaded += 1;
            }
        }
        Ok(())
    }

    fn parts(&mut self, waiting: &Waiting) -> Result<(), ToolError> {
        for request in &waiting.requests {
            self.client.send(request)?;
            if !self.is_stored(waiting)? {
                return Ok(());
            }
        }
        self.loaded += 1;
        Ok(())
    }

    fn is_stored(&mut self, waiting: &Waiting) -> Result<bool, ToolError> {
        let reply = self
            .client
            .line()
            .map_err(|error| self.client.lost(&error))?;
        // `HD` is what a meta command says for it.
        if reply == "STORED" || reply == "HD" {
            return Ok(true);
        }
        self.refused(waiting, &reply)?;
        Ok(false)
    }

    /// Notes that everything up to this line, a checked one, is loaded.
    fn note(&self) -> Result<(), ToolError> {
        let Some(path) = &self.args.resume else {
            return Ok(());
        };
        let state = State {
            lines: self.line,
            entries: self.entries,
            crc32c: crc_text(self.crc),
        };
        let write = || {
            let mut file = files::NewFile::create(path)?;
            serde_json::to_writer(&mut file, &state)?;
            file.finish_unsynced()
        };
        write().map_err(|error| file_error("write", path, error))
    }
}
