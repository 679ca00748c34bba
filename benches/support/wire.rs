//! The two dialects that the servers speak, and a client of either.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A reply that takes longer does not come.
const LONGEST: Duration = Duration::from_mins(5);
/// Requests are sent in pieces of about this size when a server is filled.
const FILL_BYTES: usize = 64 << 10;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Dialect {
    Memcached,
    Redis,
}

impl Dialect {
    pub(crate) fn set(self, out: &mut Vec<u8>, key: &str, value: &str) {
        match self {
            Self::Memcached => {
                let _ = write!(out, "set {key} 0 0 {}\r\n{value}\r\n", value.len());
            }
            Self::Redis => words(out, &["SET", key, value]),
        }
    }

    pub(crate) fn set_reply_len(self) -> usize {
        match self {
            Self::Memcached => "STORED\r\n".len(),
            Self::Redis => "+OK\r\n".len(),
        }
    }

    /// One key, or several at once.
    pub(crate) fn get(self, out: &mut Vec<u8>, keys: &[String]) {
        match self {
            Self::Memcached => {
                let _ = write!(out, "get {}\r\n", keys.join(" "));
            }
            Self::Redis => {
                let verb = if keys.len() == 1 { "GET" } else { "MGET" };
                let keys = keys.iter().map(String::as_str);
                words(out, &std::iter::once(verb).chain(keys).collect::<Vec<_>>());
            }
        }
    }

    /// If all keys are there, and all values of this length.
    pub(crate) fn get_reply_len(self, keys: &[String], value_len: usize) -> usize {
        let value = value_len.to_string().len() + "\r\n".len() + value_len + "\r\n".len();
        let values = keys.iter().map(|key| match self {
            Self::Memcached => "VALUE  0 ".len() + key.len() + value,
            Self::Redis => "$".len() + value,
        });
        let around = match self {
            Self::Memcached => "END\r\n".len(),
            Self::Redis if keys.len() == 1 => 0,
            Self::Redis => format!("*{}\r\n", keys.len()).len(),
        };
        values.sum::<usize>() + around
    }

    pub(crate) fn incr(self, out: &mut Vec<u8>, key: &str) {
        match self {
            Self::Memcached => {
                let _ = write!(out, "incr {key} 1\r\n");
            }
            Self::Redis => words(out, &["INCR", key]),
        }
    }

    /// Adds members to an index, or to what Redis has for it, a set.
    pub(crate) fn add_members(self, out: &mut Vec<u8>, key: &str, ids: impl Iterator<Item = u32>) {
        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
        match self {
            Self::Memcached => {
                let body = ids.join("\n");
                let _ = write!(out, "append {key} 0 0 {}\r\n{body}\r\n", body.len());
            }
            Self::Redis => {
                let ids = ids.iter().map(String::as_str);
                words(
                    out,
                    &["SADD", key].into_iter().chain(ids).collect::<Vec<_>>(),
                );
            }
        }
    }
}

/// A Redis command, as its client libraries send it.
pub(crate) fn words(out: &mut Vec<u8>, words: &[&str]) {
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n{word}\r\n", word.len());
    }
}

/// A connection, and the line that was read last.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Client {
    pub(crate) fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONGEST))?;
        Ok(Self {
            stream: BufReader::with_capacity(64 << 10, stream),
            line: String::new(),
        })
    }

    /// The socket, of a client that has read nothing.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    pub(crate) fn try_line(&mut self) -> io::Result<&str> {
        self.line.clear();
        match self.stream.read_line(&mut self.line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(self.line.trim_end()),
        }
    }

    pub(crate) fn line(&mut self) -> &str {
        self.try_line().expect("the server answers")
    }

    /// A line that is no error.
    pub(crate) fn reply(&mut self) -> &str {
        no_error(self.line())
    }

    /// Sends a request and reads a line that is no error.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> &str {
        self.send(request).unwrap();
        self.reply()
    }

    /// So many bytes and a line end.
    pub(crate) fn block(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len + 2];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes.truncate(len);
        String::from_utf8(bytes).unwrap()
    }

    /// Sends requests, each of which has a reply of one line, many at once.
    pub(crate) fn fill(&mut self, count: u64, mut write: impl FnMut(u64, &mut Vec<u8>)) {
        let (mut batch, mut requests) = (Vec::new(), 0);
        for at in 0..count {
            write(at, &mut batch);
            requests += 1;
            if at + 1 == count || batch.len() > FILL_BYTES {
                self.send(&batch).unwrap();
                batch.clear();
                for _ in 0..requests {
                    self.reply();
                }
                requests = 0;
            }
        }
    }
}

/// The line, which must not say in either dialect that something went wrong.
pub(crate) fn no_error(line: &str) -> &str {
    assert!(!line.starts_with('-') && !line.contains("ERROR"), "{line}");
    line
}

/// Numbers that look random, each once: a permutation of 32 bits.
pub(crate) fn scrambled(at: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "numbers beyond come again")]
    let bits = (at as u32).wrapping_mul(0x9e37_79b1);
    (bits ^ (bits >> 15)).wrapping_mul(0x85eb_ca6b)
}
