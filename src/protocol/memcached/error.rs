//! What is wrong with a request, the line that says so, and where the next request begins.

use std::fmt;

use smallvec::SmallVec;

/// What memcached says of most words that are not what they must be.
pub const BAD_FORMAT: &str = "bad command line format";

/// Why bytes are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// No such command, or not with so many words.
    Unknown,
    /// A word of the line is not what it must be.
    Malformed(&'static str),
    /// A key is longer than 250 bytes.
    KeyTooLong,
    /// The block is longer than `max_value`.
    TooLarge,
    /// The block is not followed by a line end.
    BadChunk,
    /// The length of a block cannot be known.
    BadLength,
    /// A line is too long for its command.
    LineTooLong(usize),
    /// Another protocol is spoken.
    Foreign(Foreign),
}

/// A protocol that is not spoken where somebody speaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// memcached's binary protocol: a client's setting, or SASL, which needs it.
    Binary,
    /// TLS on a port that has none.
    Tls,
    /// HTTP.
    Http,
}

impl Foreign {
    fn name(self) -> &'static str {
        match self {
            Self::Binary => "its binary protocol",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
        }
    }

    fn cause(self) -> &'static str {
        match self {
            Self::Binary => "memcached's binary protocol, which SASL needs too: closing",
            Self::Tls => "TLS on a port without it: closing",
            Self::Http => "HTTP: closing",
        }
    }
}

impl Complaint {
    /// True if nobody can know where the next request begins: the connection must close.
    pub fn closes(self) -> bool {
        match self {
            Self::BadLength | Self::LineTooLong(_) | Self::Foreign(_) => true,
            Self::Unknown
            | Self::Malformed(_)
            | Self::KeyTooLong
            | Self::TooLarge
            | Self::BadChunk => false,
        }
    }
}

impl Complaint {
    /// The cause without any of the client's data: for the log.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Unknown => "unknown command or wrong number of words",
            Self::Malformed(cause) => cause,
            Self::KeyTooLong => "key is too long",
            Self::TooLarge => "value is larger than max_value",
            Self::BadChunk => "bad data chunk",
            Self::BadLength => "length of the block missing or not in 0..2147483645: closing",
            Self::LineTooLong(_) => "line is too long: closing",
            Self::Foreign(protocol) => protocol.cause(),
        }
    }
}

/// The reply line, without its line end.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("ERROR"),
            Self::Malformed(cause) => write!(f, "CLIENT_ERROR {cause}"),
            // As memcached says it: clients know this line.
            Self::KeyTooLong | Self::BadLength => write!(f, "CLIENT_ERROR {BAD_FORMAT}"),
            Self::TooLarge => f.write_str("SERVER_ERROR object too large for cache"),
            Self::BadChunk => f.write_str("CLIENT_ERROR bad data chunk"),
            Self::LineTooLong(max) => write!(f, "CLIENT_ERROR line is longer than {max} bytes"),
            Self::Foreign(protocol) => write!(
                f,
                "CLIENT_ERROR this port speaks memcached's text protocol, not {}",
                protocol.name()
            ),
        }
    }
}

/// A request that failed, and how to get to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is wrong.
    pub complaint: Complaint,
    /// The lengths of the blocks that follow the line and must be passed over.
    pub skip: SmallVec<[u64; 1]>,
}

impl From<Complaint> for Failure {
    fn from(complaint: Complaint) -> Self {
        Self {
            complaint,
            skip: SmallVec::new(),
        }
    }
}
