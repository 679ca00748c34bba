//! A small blocking client. Every method gives an `io::Result`: in the crash tests a broken
//! connection is an answer like any other.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::wire::PATIENCE;

/// What a retrieval gave of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: String,
    pub(crate) cas: Option<u64>,
}

/// One connection.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(64 << 10, stream);
        Ok(Self { reader })
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The next line, without its end. A line cut short by the end of the connection is an
    /// error: it is not a reply.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.reader.read_until(b'\n', &mut bytes)?;
        if bytes.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// One line sent, one line back.
    pub(crate) fn ask(&mut self, line: &str) -> io::Result<String> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.line()
    }

    /// A storage command with flags and exptime 0.
    pub(crate) fn store(&mut self, verb: &str, key: &str, value: &str) -> io::Result<String> {
        self.ask(&format!("{verb} {key} 0 0 {}\r\n{value}", value.len()))
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) -> io::Result<String> {
        self.store("set", key, value)
    }

    pub(crate) fn incr(&mut self, key: &str, delta: i64) -> io::Result<String> {
        self.ask(&format!("incr {key} {delta}"))
    }

    /// The values of those of `keys` that exist, by one `get`.
    pub(crate) fn get_many(&mut self, keys: &[String]) -> io::Result<BTreeMap<String, String>> {
        self.send(format!("get {}\r\n", keys.join(" ")).as_bytes())?;
        self.values()
    }

    pub(crate) fn get(&mut self, key: &str) -> io::Result<Option<String>> {
        Ok(self.get_many(&[key.to_owned()])?.remove(key))
    }

    /// Reads `VALUE` blocks up to `END`.
    pub(crate) fn values(&mut self) -> io::Result<BTreeMap<String, String>> {
        let entries = self.entries()?.into_iter();
        Ok(entries.map(|(key, entry)| (key, entry.value)).collect())
    }

    /// Reads `VALUE` blocks up to `END`, with the cas uniques of `gets`.
    pub(crate) fn entries(&mut self) -> io::Result<BTreeMap<String, Entry>> {
        let mut found = BTreeMap::new();
        loop {
            let line = self.line()?;
            if line == "END" {
                return Ok(found);
            }
            let unexpected = || io::Error::other(format!("not a VALUE: {line}"));
            let words: Vec<_> = line.split(' ').collect();
            let (Some(&"VALUE"), Some(key), Some(length)) =
                (words.first(), words.get(1), words.get(3))
            else {
                return Err(unexpected());
            };
            let length: usize = length.parse().map_err(|_| unexpected())?;
            let mut block = vec![0; length + 2];
            self.reader.read_exact(&mut block)?;
            if block.split_off(length) != b"\r\n" {
                return Err(unexpected());
            }
            let value = String::from_utf8(block).map_err(|_| unexpected())?;
            let cas = words.get(4).and_then(|word| word.parse().ok());
            found.insert((*key).to_owned(), Entry { value, cas });
        }
    }

    /// The general statistics, or those of one argument.
    pub(crate) fn stats(&mut self, argument: &str) -> io::Result<BTreeMap<String, String>> {
        self.send(format!("stats {argument}\r\n").as_bytes())?;
        let mut found = BTreeMap::new();
        loop {
            let line = self.line()?;
            if line == "END" {
                return Ok(found);
            }
            let Some((name, value)) = line
                .strip_prefix("STAT ")
                .and_then(|pair| pair.split_once(' '))
            else {
                return Err(io::Error::other(format!("not a STAT: {line}")));
            };
            found.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Sends all requests before reading any reply; as many one-line replies come back.
    pub(crate) fn pipeline(&mut self, requests: &[u8], replies: usize) -> io::Result<Vec<String>> {
        let mut sender = self.reader.get_ref().try_clone()?;
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || sender.write_all(requests));
            let replies = (0..replies).map(|_| self.line()).collect();
            sending.join().expect("the sending thread")?;
            replies
        })
    }
}

/// The bytes of one `mset`.
pub(crate) fn mset_bytes(items: &[(String, String)]) -> Vec<u8> {
    let mut bytes = b"mset".to_vec();
    for (key, value) in items {
        bytes.extend_from_slice(format!(" {key} 0 0 {}", value.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    for (_, value) in items {
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
