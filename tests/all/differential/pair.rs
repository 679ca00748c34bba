//! The daemon and a memcached beside it, asked the same.

use std::fmt;
use std::path::Path;
use std::thread::{self, Scope};
use std::time::Duration;

use super::ask::{Ask, Stream};
use super::replies::{Replies, same};
use crate::support::memcached::Memcached;
use crate::support::wire::{TcpWire, Wire as _};
use crate::support::{Config, Daemon, Home, Random};

/// How long a reply may take. A missing one is a failure like any other, and the search for the
/// shortest stream waits for it again and again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The two servers.
pub(super) struct Pair {
    daemon: Daemon,
    memcached: Memcached,
    /// Streams that were played: each has keys of its own.
    streams: u64,
    _home: Home,
}

/// The first replies that differ where they may not.
pub(super) struct Mismatch {
    asks: Vec<String>,
    theirs: Vec<u8>,
    ours: Vec<u8>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the last of these:")?;
        for ask in &self.asks {
            writeln!(f, "    {ask}")?;
        }
        writeln!(f, "memcached: {}", Shortened(&self.theirs))?;
        writeln!(f, "here:      {}", Shortened(&self.ours))
    }
}

struct Shortened<'b>(&'b [u8]);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(2000)];
        write!(f, "{} ({} bytes)", shown.escape_ascii(), self.0.len())
    }
}

impl Pair {
    pub(super) fn start(memcached: &Path) -> Self {
        // Each request is tried as a stranger would send it: nothing is typed but by accident.
        let home = Home::new(Config::bare().with("data", "fsync", "\"never\""));
        Self {
            daemon: home.start(),
            // Large enough that it never evicts, and with the largest value that we have. Its
            // maintainer of lists would hold items now and then, which shows in how it steps them.
            memcached: Memcached::start_with(
                memcached,
                &["-m", "1024", "-I", "1m", "-o", "no_lru_maintainer"],
            ),
            streams: 0,
            _home: home,
        }
    }

    /// Plays a stream to both, under keys that have not been there before.
    pub(super) fn play(&mut self, stream: &Stream) -> Result<(), Mismatch> {
        self.streams += 1;
        let name = format!("d{:08}:", self.streams);
        let mut theirs = Side::connect(self.memcached.addr(), &name);
        let mut ours = Side::connect(self.daemon.addr(), &name);
        let mut cuts = stream.cuts();
        for burst in stream.bursts() {
            let segments = segments(burst);
            let mut cuts_there = cuts.clone();
            let their_burst = theirs.burst(&segments, &mut cuts_there);
            let our_burst = ours.burst(&segments, &mut cuts);
            // Both have it before either is waited for.
            let (their_replies, our_replies) = thread::scope(|scope| {
                their_burst.send(scope, &mut theirs.sender);
                our_burst.send(scope, &mut ours.sender);
                (
                    replies(&mut theirs.replies, &segments),
                    replies(&mut ours.replies, &segments),
                )
            });
            for ((asks, theirs), ours) in segments.iter().zip(their_replies).zip(our_replies) {
                let difference = asks.first().and_then(Ask::difference);
                let agree = match difference {
                    Some(known) => known.allows(&theirs, &ours),
                    None => same(&theirs, &ours),
                };
                if !agree {
                    let asks = asks.iter().map(ToString::to_string).collect();
                    return Err(Mismatch { asks, theirs, ours });
                }
            }
            thread::sleep(burst.iter().map(Ask::pause).max().unwrap_or_default());
        }
        Ok(())
    }
}

/// The requests between two marks.
fn segments(burst: &[Ask]) -> Vec<&[Ask]> {
    let ends = |pair: &[Ask; 2]| pair[0].is_marked() || pair.iter().any(Ask::stands_alone);
    let mut segments = Vec::new();
    let mut begin = 0;
    for (at, pair) in burst.array_windows().enumerate() {
        if ends(pair) {
            segments.push(&burst[begin..=at]);
            begin = at + 1;
        }
    }
    segments.push(&burst[begin..]);
    segments
}

/// A connection to one of them.
struct Side {
    stream: String,
    sender: TcpWire,
    replies: Replies,
}

impl Side {
    fn connect(addr: std::net::SocketAddr, stream: &str) -> Self {
        let wire = TcpWire::connect(addr).with_patience(PATIENCE);
        Self {
            stream: stream.to_owned(),
            sender: wire.second(),
            replies: Replies::new(wire),
        }
    }

    /// The bytes of all, with marks, to be cut at random.
    fn burst(&self, segments: &[&[Ask]], cuts: &mut Random) -> Burst {
        let mut bytes = Vec::new();
        let mut closes = false;
        for asks in segments {
            for ask in *asks {
                bytes.extend(ask.render(&self.stream, &self.replies.uniques));
                closes = ask.is_last();
            }
            if !closes {
                // How a mark is written must not matter.
                let marks = [
                    "version\r\n",
                    "version\n",
                    " version  \r\n",
                    "version 1 2\r\n",
                ];
                bytes.extend_from_slice(cuts.pick(&marks).as_bytes());
            }
        }
        let ends = ends(bytes.len(), cuts);
        Burst {
            bytes,
            ends,
            closes,
        }
    }
}

/// What is sent before replies are waited for.
struct Burst {
    bytes: Vec<u8>,
    /// Where the pieces end.
    ends: Vec<usize>,
    /// The connection ends with it.
    closes: bool,
}

impl Burst {
    /// Sends it: at once if it is small, for then it fits the buffers on the way, however long the
    /// replies are.
    fn send<'scope>(self, scope: &'scope Scope<'scope, '_>, sender: &'scope mut TcpWire) {
        let is_small = self.bytes.len() < 16 << 10;
        let send = move || {
            let mut begin = 0;
            for end in self.ends {
                sender.send(&self.bytes[begin..end]);
                begin = end;
            }
            if self.closes {
                sender.finish();
            }
        };
        if is_small {
            send();
        } else {
            scope.spawn(send);
        }
    }
}

/// The replies of each segment.
fn replies(replies: &mut Replies, segments: &[&[Ask]]) -> Vec<Vec<u8>> {
    let differs = |asks: &&[Ask]| asks.first().is_some_and(|ask| ask.difference().is_some());
    let comparable = segments.iter().map(|asks| !differs(asks));
    comparable
        .map(|comparable| replies.segment(comparable))
        .collect()
}

/// Where to cut so many bytes.
fn ends(length: usize, random: &mut Random) -> Vec<usize> {
    let count = if random.one_in(2) { 0 } else { random.below(8) };
    let mut ends: Vec<_> = (0..count)
        .map(|_| random.below(length as u64 + 1) as usize)
        .collect();
    ends.push(length);
    ends.sort_unstable();
    ends
}
