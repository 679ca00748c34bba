//! Golden transcripts: what is sent, and what must come back, byte for byte.
//!
//! A file of `tests/transcripts` is a row of lines:
//!
//! | line | meaning |
//! |---|---|
//! | `# text` | a comment |
//! | `* config [section] key = value` | the daemon's configuration, on top of the standard one |
//! | `* shared` | plain memcached 1.6 answers the same, and is asked too |
//! | `> bytes` | send the bytes and `\r\n` |
//! | `>n bytes` | send the bytes and a bare `\n` |
//! | `>- bytes` | send the bytes and nothing after them |
//! | `~ bytes` | as `>`, and again until the reply is the one that follows |
//! | `< bytes` | the reply goes on with these bytes and `\r\n` |
//! | `<* bytes` | lines of the reply are passed over up to this one |
//! | `<close` | the daemon closes the connection |
//! | `<*close` | the same, whatever it says before |
//! | `! x y` | the captures `x` and `y` differ |
//! | `--` | a new connection; at the end of each the daemon is found in step |
//!
//! In the bytes, `\r \n \t \\ \{ \xHH` are escapes, `{a*251}` is 251 times `a`, `{cas}` any
//! decimal number, `{cas:x}` a number that is called `x` from there on (also in what is sent),
//! and `{*}` the rest of the line.
//!
//! Every file runs as it is written and with its input cut in other places; what comes back
//! must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, mem};

use crate::support::memcached::Memcached;
use crate::support::wire::{PATIENCE, Received, TcpWire, Wire};
use crate::support::{Config, Home, Random};

/// A part of a line.
#[derive(Clone, Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Number(Option<String>),
    Rest,
}

#[derive(Clone, Debug)]
enum Step {
    Send { pieces: Vec<Piece>, again: bool },
    Expect { pieces: Vec<Piece>, skip: bool },
    Close { skip: bool },
    Differ(String, String),
}

/// A parsed file.
pub(crate) struct Transcript {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) shared: bool,
    /// The connections; each step has the number of its line.
    connections: Vec<Vec<(usize, Step)>>,
}

/// Where the input is cut.
pub(crate) enum Cut {
    /// As written: each step at once, each reply before the next step.
    Steps,
    /// All that can be sent is sent a byte at a time.
    Bytes,
    /// All that can be sent is sent in pieces of random length.
    Random(Random),
}

type Captures = BTreeMap<String, Vec<u8>>;

impl Transcript {
    /// Every file, in the order of their names.
    pub(crate) fn all() -> Vec<Self> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
        let mut paths: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
            .collect();
        paths.sort();
        assert!(!paths.is_empty());
        paths
            .iter()
            .map(|path| {
                let name = path.file_stem().unwrap().to_string_lossy();
                Self::parse(&name, &fs::read_to_string(path).unwrap())
            })
            .collect()
    }

    /// True if a step waits for the clock, so that playing it takes seconds.
    pub(crate) fn waits(&self) -> bool {
        let mut steps = self.connections.iter().flatten();
        steps.any(|(_, step)| matches!(step, Step::Send { again: true, .. }))
    }

    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let mut parsed = Self {
            name: name.to_owned(),
            config: Config::standard(),
            shared: false,
            connections: vec![Vec::new()],
        };
        for (number, line) in (1..).zip(text.lines()) {
            parsed
                .line(number, line)
                .unwrap_or_else(|error| panic!("{name}.txt:{number}: {error}: {line}"));
        }
        parsed
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let (mark, rest) = match line.split_once(' ') {
            Some((mark, rest)) => (mark, rest),
            None => (line, ""),
        };
        let send = |end: &[u8], again| {
            let mut pieces = pieces(rest)?;
            pieces.push(Piece::Bytes(end.to_vec()));
            Ok::<_, String>(Step::Send { pieces, again })
        };
        let expect = |skip| {
            let mut pieces = pieces(rest)?;
            pieces.push(Piece::Bytes(b"\r\n".to_vec()));
            Ok::<_, String>(Step::Expect { pieces, skip })
        };
        let step = match mark {
            "" | "#" => return Ok(()),
            "--" => {
                self.connections.push(Vec::new());
                return Ok(());
            }
            "*" => return self.directive(rest),
            ">" => send(b"\r\n", false)?,
            ">n" => send(b"\n", false)?,
            ">-" => send(b"", false)?,
            "~" => send(b"\r\n", true)?,
            "<" => expect(false)?,
            "<*" => expect(true)?,
            "<close" => Step::Close { skip: false },
            "<*close" => Step::Close { skip: true },
            "!" => {
                let (x, y) = rest.split_once(' ').ok_or("two names")?;
                Step::Differ(x.to_owned(), y.to_owned())
            }
            _ => return Err("unknown mark".to_owned()),
        };
        let connection = self.connections.last_mut().unwrap();
        connection.push((number, step));
        Ok(())
    }

    fn directive(&mut self, text: &str) -> Result<(), String> {
        if text == "shared" {
            self.shared = true;
            return Ok(());
        }
        let setting = text.strip_prefix("config [").ok_or("unknown directive")?;
        let (section, rest) = setting.split_once("] ").ok_or("no section")?;
        let (key, value) = rest.split_once(" = ").ok_or("no value")?;
        self.config.set(section, key, value);
        Ok(())
    }

    /// The first words of all that is sent as a line of its own.
    fn first_words(&self) -> BTreeSet<String> {
        let mut words = BTreeSet::new();
        for (_, step) in self.connections.iter().flatten() {
            if let Step::Send { pieces, .. } = step
                && let Some(Piece::Bytes(bytes)) = pieces.first()
            {
                let text = String::from_utf8_lossy(bytes);
                words.extend(text.split_whitespace().next().map(str::to_owned));
            }
        }
        words
    }

    /// Plays every connection and gives all that came back, numbers that a capture stands for
    /// written as `{name}`.
    pub(crate) fn play(
        &self,
        mut connect: impl FnMut() -> Box<dyn Wire>,
        cut: &mut Cut,
    ) -> Result<Vec<u8>, String> {
        let mut captures = Captures::new();
        let mut all = Vec::new();
        for steps in &self.connections {
            let mut player = Player {
                wire: connect(),
                cut,
                arrived: Vec::new(),
                closed: false,
                captures: &mut captures,
                normal: Vec::new(),
            };
            player
                .play(steps)
                .map_err(|error| format!("{}.txt:{error}", self.name))?;
            all.extend_from_slice(&player.normal);
        }
        Ok(all)
    }
}

/// Reads the bytes of a line.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'\\' => bytes.push(escape(&mut rest)?),
            b'{' => {
                let end = rest.iter().position(|byte| *byte == b'}').ok_or("no }")?;
                let (inside, after) = rest.split_at(end);
                rest = &after[1..];
                let inside = str::from_utf8(inside).map_err(|_| "not text")?;
                let piece = match inside.rsplit_once('*') {
                    Some(("", "")) => Piece::Rest,
                    Some((unit, times)) => {
                        let times = times.parse().map_err(|_| "how often?")?;
                        bytes.extend(unescape(unit)?.repeat(times));
                        continue;
                    }
                    None => match inside.split_once(':') {
                        Some((_, name)) => Piece::Number(Some(name.to_owned())),
                        None => Piece::Number(None),
                    },
                };
                found.push(Piece::Bytes(mem::take(&mut bytes)));
                found.push(piece);
            }
            byte => bytes.push(*byte),
        }
    }
    found.push(Piece::Bytes(bytes));
    Ok(found)
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'\\' => escape(&mut rest)?,
            byte => *byte,
        });
    }
    Ok(bytes)
}

fn escape(rest: &mut &[u8]) -> Result<u8, String> {
    let (kind, after) = rest.split_first().ok_or("\\ at the end")?;
    *rest = after;
    Ok(match kind {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b'\\' | b'{' => *kind,
        b'x' => {
            let (digits, after) = rest.split_at_checked(2).ok_or("\\xHH")?;
            *rest = after;
            let digits = str::from_utf8(digits).map_err(|_| "\\xHH")?;
            u8::from_str_radix(digits, 16).map_err(|_| "\\xHH")?
        }
        _ => return Err("unknown escape".to_owned()),
    })
}

/// How a line compares with what has arrived.
#[derive(Debug, PartialEq, Eq)]
enum Match {
    /// It matches so many bytes.
    Yes(usize),
    No,
    /// It may still match when more arrives.
    More,
}

/// Compares, and fills `captures` on the way; `normal` gets the bytes without the numbers.
fn compare(
    pieces: &[Piece],
    arrived: &[u8],
    captures: &mut Captures,
    normal: &mut Vec<u8>,
) -> Match {
    let mut at = 0;
    for piece in pieces {
        let rest = &arrived[at..];
        at += match piece {
            Piece::Bytes(bytes) => {
                let common = rest.len().min(bytes.len());
                if rest[..common] != bytes[..common] {
                    return Match::No;
                }
                if common < bytes.len() {
                    return Match::More;
                }
                normal.extend_from_slice(bytes);
                common
            }
            Piece::Rest => {
                let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                    return Match::More;
                };
                normal.extend_from_slice(&rest[..end]);
                end
            }
            Piece::Number(name) => {
                let Some(end) = rest.iter().position(|byte| !byte.is_ascii_digit()) else {
                    return Match::More;
                };
                if end == 0 {
                    return Match::No;
                }
                let number = rest[..end].to_vec();
                if let Some(name) = name {
                    let known = captures.entry(name.clone()).or_insert(number.clone());
                    if *known != number {
                        return Match::No;
                    }
                }
                normal.extend_from_slice(b"{n}");
                end
            }
        };
    }
    Match::Yes(at)
}

/// One connection of a transcript being played.
struct Player<'a> {
    wire: Box<dyn Wire>,
    cut: &'a mut Cut,
    arrived: Vec<u8>,
    closed: bool,
    captures: &'a mut Captures,
    normal: Vec<u8>,
}

impl Player<'_> {
    fn play(&mut self, steps: &[(usize, Step)]) -> Result<(), String> {
        let mut ahead = 0;
        for (at, (number, step)) in steps.iter().enumerate() {
            match step {
                Step::Send { pieces, again } => {
                    if *again {
                        self.send_again(pieces, &steps[at + 1..])
                            .map_err(|error| format!("{number}: {error}"))?;
                        ahead = ahead.max(at + 1);
                    }
                    if at >= ahead {
                        ahead = at + self.send_ahead(&steps[at..]);
                    }
                }
                Step::Expect { pieces, skip } => self
                    .expect(pieces, *skip)
                    .map_err(|error| format!("{number}: {error}"))?,
                Step::Close { skip } => self
                    .expect_close(*skip)
                    .map_err(|error| format!("{number}: {error}"))?,
                Step::Differ(x, y) => {
                    let known = |name: &String| self.captures.get(name);
                    if known(x).is_none() || known(x) == known(y) {
                        return Err(format!("{number}: {x} and {y} do not differ"));
                    }
                }
            }
        }
        let (number, last) = steps.last().expect("a connection has steps");
        if matches!(last, Step::Close { .. }) {
            return Ok(());
        }
        self.in_step()
            .map_err(|error| format!("{number}: not in step at the end: {error}"))
    }

    /// The connection must go on with nothing but the reply to this.
    fn in_step(&mut self) -> Result<(), String> {
        self.wire.send(b"version\r\n");
        let end = pieces("VERSION {*}\\r\\n").unwrap();
        let mut ignored = Vec::new();
        mem::swap(&mut self.normal, &mut ignored);
        let result = self.expect(&end, false);
        self.normal = ignored;
        result?;
        if !self.arrived.is_empty() {
            return Err(format!("more came: {}", self.arrived.escape_ascii()));
        }
        Ok(())
    }

    /// Sends this step; unless steps go one by one, also all that follow up to one that needs
    /// a number which has not come yet. Gives the number of steps that are done with.
    fn send_ahead(&mut self, steps: &[(usize, Step)]) -> usize {
        let mut bytes = Vec::new();
        let mut done = 0;
        for (_, step) in steps {
            if let Step::Send { pieces, again } = step {
                let fill = self.fill(pieces);
                match fill {
                    Some(part) if !again => bytes.extend_from_slice(&part),
                    _ => break,
                }
            }
            done += 1;
            if matches!(self.cut, Cut::Steps) {
                break;
            }
        }
        assert!(
            done > 0,
            "a send needs a number that was not captured before"
        );
        self.send_cut(&bytes);
        done
    }

    fn send_cut(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = match self.cut {
                Cut::Steps => bytes.len(),
                Cut::Bytes => 1,
                Cut::Random(random) => {
                    let most = if random.one_in(2) { 4 } else { 300 };
                    1 + usize::try_from(random.below(most)).unwrap()
                }
            };
            // A large block need not be cut everywhere: its ends matter.
            let length = if bytes.len() > 8192 { 4096 } else { length };
            let (part, rest) = bytes.split_at(length.min(bytes.len()));
            self.wire.send(part);
            bytes = rest;
        }
    }

    /// What is to be sent, if every number in it is known.
    fn fill(&self, pieces: &[Piece]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Bytes(part) => bytes.extend_from_slice(part),
                Piece::Number(Some(name)) => {
                    bytes.extend_from_slice(self.captures.get(name)?);
                }
                Piece::Number(None) | Piece::Rest => panic!("a wildcard cannot be sent"),
            }
        }
        Some(bytes)
    }

    /// Sends until the first lines that follow are the reply.
    fn send_again(&mut self, pieces: &[Piece], after: &[(usize, Step)]) -> Result<(), String> {
        let request = self.fill(pieces).ok_or("a number is not known")?;
        let wanted: Vec<Piece> = after
            .iter()
            .map_while(|(_, step)| match step {
                Step::Expect { pieces, .. } => Some(pieces.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        let end = Instant::now() + PATIENCE;
        loop {
            self.wire.send(&request);
            // The reply of `get` ends with END, any other is one line.
            let reply = self.whole_reply(request.starts_with(b"g"))?;
            let mut captures = self.captures.clone();
            if compare(&wanted, &reply, &mut captures, &mut Vec::new()) == Match::Yes(reply.len()) {
                self.arrived = reply;
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the last reply was {}", reply.escape_ascii()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn whole_reply(&mut self, to_end: bool) -> Result<Vec<u8>, String> {
        loop {
            let whole = if to_end {
                self.arrived.ends_with(b"END\r\n")
            } else {
                self.arrived.ends_with(b"\r\n")
            };
            if whole {
                return Ok(mem::take(&mut self.arrived));
            }
            self.more()?;
        }
    }

    fn expect(&mut self, pieces: &[Piece], skip: bool) -> Result<(), String> {
        loop {
            let mut captures = self.captures.clone();
            let mut normal = Vec::new();
            match compare(pieces, &self.arrived, &mut captures, &mut normal) {
                Match::Yes(length) => {
                    self.arrived.drain(..length);
                    *self.captures = captures;
                    self.normal.extend_from_slice(&normal);
                    return Ok(());
                }
                Match::More => self.more().map_err(|error| {
                    format!(
                        "{error}; expected {}, came {:?}",
                        show(pieces),
                        self.arrived.escape_ascii().to_string()
                    )
                })?,
                Match::No => {
                    let line = self.arrived.windows(2).position(|pair| pair == b"\r\n");
                    match line {
                        Some(end) if skip => drop(self.arrived.drain(..end + 2)),
                        None if skip => self.more()?,
                        _ => {
                            return Err(format!(
                                "expected {}, came {:?}",
                                show(pieces),
                                self.arrived.escape_ascii().to_string()
                            ));
                        }
                    }
                }
            }
        }
    }

    fn more(&mut self) -> Result<(), String> {
        match self.wire.receive() {
            Received::Bytes(bytes) => {
                self.arrived.extend_from_slice(&bytes);
                Ok(())
            }
            Received::Closed => {
                self.closed = true;
                Err("the connection was closed".to_owned())
            }
            Received::Nothing => Err("nothing came".to_owned()),
        }
    }

    fn expect_close(&mut self, skip: bool) -> Result<(), String> {
        while (skip || self.arrived.is_empty()) && !self.closed {
            if let Err(error) = self.more()
                && !self.closed
            {
                return Err(format!("expected the connection to be closed, {error}"));
            }
        }
        if skip || self.arrived.is_empty() {
            self.normal.extend_from_slice(b"(closed)");
            return Ok(());
        }
        Err(format!(
            "expected the connection to be closed, came {}",
            self.arrived.escape_ascii()
        ))
    }
}

fn show(pieces: &[Piece]) -> String {
    let mut text = String::from("\"");
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => write!(text, "{}", bytes.escape_ascii()).unwrap(),
            Piece::Number(Some(name)) => write!(text, "{{cas:{name}}}").unwrap(),
            Piece::Number(None) => text.push_str("{cas}"),
            Piece::Rest => text.push_str("{*}"),
        }
    }
    text.push('"');
    text
}

/// Plays one transcript on a daemon of its own.
fn play_on_daemon(transcript: &Transcript, cut: &mut Cut) -> Result<Vec<u8>, String> {
    let home = Home::new(transcript.config.clone());
    let daemon = home.start();
    let addr = daemon.addr();
    transcript.play(|| Box::new(TcpWire::connect(addr)), cut)
}

/// Panics with all errors at once: one wrong reply says less than the list of them.
fn report(errors: &[String]) {
    assert!(
        errors.is_empty(),
        "{} of them:\n{}",
        errors.len(),
        errors.join("\n")
    );
}

/// The transcripts that a run is limited to, for work on one of them.
fn chosen() -> Vec<Transcript> {
    let only = std::env::var("STORAGE_SERVER_TRANSCRIPT").unwrap_or_default();
    let mut all = Transcript::all();
    all.retain(|transcript| transcript.name.contains(&only));
    all
}

/// Does this for every transcript, several at a time: most of their time is waiting. Panics
/// with all that went wrong.
fn for_each(transcripts: &[Transcript], check: impl Fn(&Transcript) -> Vec<String> + Sync) {
    let next = AtomicUsize::new(0);
    let errors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(transcript) = transcripts.get(next.fetch_add(1, Relaxed)) {
                    let found = check(transcript);
                    errors.lock().unwrap().extend(found);
                }
            });
        }
    });
    report(&errors.into_inner().unwrap());
}

#[test]
fn transcripts_over_tcp() {
    for_each(&chosen(), |transcript| {
        let played = play_on_daemon(transcript, &mut Cut::Steps);
        played.err().into_iter().collect()
    });
}

#[test]
fn any_cut_of_the_input_gives_the_same_replies_over_tcp() {
    let seed = Random::seed("cuts");
    for_each(&chosen(), |transcript| {
        let Ok(whole) = play_on_daemon(transcript, &mut Cut::Steps) else {
            return Vec::new(); // The other test reports it.
        };
        let cuts = [Cut::Bytes, Cut::Random(Random::new(seed))];
        let compare = |mut cut| match play_on_daemon(transcript, &mut cut) {
            Ok(replies) if replies == whole => None,
            Ok(replies) => Some(format!(
                "{}: {} instead of {}",
                transcript.name,
                replies.escape_ascii(),
                whole.escape_ascii()
            )),
            Err(error) => Some(error),
        };
        cuts.into_iter().filter_map(compare).collect()
    });
}

#[test]
fn every_verb_has_a_transcript() {
    let words: BTreeSet<_> = Transcript::all()
        .iter()
        .flat_map(Transcript::first_words)
        .collect();
    let missing: Vec<_> = VERBS
        .iter()
        .filter(|verb| !words.contains(**verb))
        .collect();
    assert!(missing.is_empty(), "no transcript sends {missing:?}");
}

/// What the daemon must know.
const VERBS: [&str; 24] = [
    "get",
    "gets",
    "gat",
    "gats",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "mset",
    "incr",
    "decr",
    "delete",
    "touch",
    "flush_all",
    "version",
    "verbosity",
    "stats",
    "quit",
    "show",
    "reopen",
    "term",
    "shutdown",
];

#[test]
fn shared_transcripts_are_what_memcached_answers() {
    let Some(program) = Memcached::program() else {
        println!("skipped: no memcached here");
        return;
    };
    let mut shared = chosen();
    shared.retain(|transcript| transcript.shared);
    for_each(&shared, |transcript| {
        let server = Memcached::start(&program);
        let addr = server.addr();
        let played = transcript.play(|| Box::new(TcpWire::connect(addr)), &mut Cut::Steps);
        played.err().into_iter().collect()
    });
}

#[test]
fn lines_of_a_transcript_are_read_as_documented() {
    let matches = |line: &str, arrived: &[u8]| {
        let mut captures = Captures::new();
        compare(
            &pieces(line).unwrap(),
            arrived,
            &mut captures,
            &mut Vec::new(),
        )
    };
    assert_eq!(matches("{a*3}\\x00\\\\\\{", b"aaa\0\\{"), Match::Yes(6));
    assert_eq!(matches("{\\x00*2}", b"\0"), Match::More);
    assert_eq!(matches("V {cas} 1", b"V 77 1"), Match::Yes(6));
    assert_eq!(matches("V {cas:x} {cas:x}.", b"V 7 8."), Match::No);
    assert_eq!(matches("V {cas:x} {cas:x}.", b"V 7 7."), Match::Yes(6));
    assert_eq!(matches("E {*}\\r\\n", b"E why not\r\n"), Match::Yes(11));
    assert_eq!(matches("E {*}\\r\\n", b"E why"), Match::More);
}
