//! What a client may say before it has said who it is: memcached's ASCII authentication.
//!
//! Invariant: until a login is accepted nothing is a command, and a connection takes and gives at
//! most [`LOGIN_BYTES_MAX`] bytes each. A login is `set <any key> <flags> <exptime> <bytes>` with
//! the block `user password`; everything else is answered that it is not.

use super::error::Complaint;
use super::parse::{foreign, foreign_byte};
use super::words::Words;
use crate::limits::LOGIN_BYTES_MAX;

/// The state of a connection that has not logged in.
#[derive(Debug, Default)]
pub struct Door {
    taken: usize,
    given: usize,
}

/// What the front of the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock<'a> {
    /// More bytes are needed.
    Incomplete,
    /// Somebody says who it is.
    Login {
        /// The user's name.
        user: &'a [u8],
        /// The password.
        password: &'a [u8],
    },
    /// Anything else: this is the answer.
    Other(Verdict),
    /// Another protocol is spoken: the answer, and close.
    Foreign(Complaint),
    /// Too much was said: close.
    TooMuch,
}

/// What a client hears that has not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A command, or what is none.
    Unauthenticated,
    /// A block that does not end where its length says.
    BadEnd,
    /// A block that is not two words.
    BadFormat,
    /// There is no such user, or the password is another.
    Failure,
    /// The login is accepted.
    Stored,
    /// Too many logins wait already.
    Busy,
}

impl Verdict {
    /// On a login that is `allowed` or not; `None` if it was not even looked at.
    pub fn of(allowed: Option<bool>) -> Self {
        match allowed {
            Some(true) => Self::Stored,
            Some(false) => Self::Failure,
            None => Self::Busy,
        }
    }

    /// The line, with its end; the words are memcached's.
    pub fn line(self) -> &'static [u8] {
        match self {
            Self::Unauthenticated => b"CLIENT_ERROR unauthenticated\r\n",
            Self::BadEnd => b"CLIENT_ERROR bad command line termination\r\n",
            Self::BadFormat => b"CLIENT_ERROR bad authentication token format\r\n",
            Self::Failure => b"CLIENT_ERROR authentication failure\r\n",
            Self::Stored => b"STORED\r\n",
            Self::Busy => b"SERVER_ERROR too many logins at once, try again\r\n",
        }
    }
}

impl Verdict {
    /// The cause without any of the client's data: for the log.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Unauthenticated => "a command before the login",
            Self::BadEnd | Self::BadFormat => "a login that is none",
            Self::Failure => "login failed: unknown user or wrong password",
            Self::Stored => "login accepted",
            Self::Busy => "login not looked at: too many at once",
        }
    }
}

impl Door {
    /// Takes what is at the front of `input`: how many bytes, and what they were.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> (usize, Knock<'a>) {
        let (taken, knock) = read(input);
        self.taken = self.taken.saturating_add(taken);
        let held = match knock {
            Knock::Incomplete => input.len(),
            Knock::Login { .. } | Knock::Other(_) | Knock::Foreign(_) | Knock::TooMuch => 0,
        };
        if self.taken.saturating_add(held) > LOGIN_BYTES_MAX {
            return (taken, Knock::TooMuch);
        }
        (taken, knock)
    }

    /// Counts an answer: false if it must not be sent any more.
    pub fn may_say(&mut self, answer: &[u8]) -> bool {
        self.given = self.given.saturating_add(answer.len());
        self.given <= LOGIN_BYTES_MAX
    }
}

fn read(input: &[u8]) -> (usize, Knock<'_>) {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return match input.first().copied().and_then(foreign_byte) {
            Some(complaint) => (0, Knock::Foreign(complaint)),
            None => (0, Knock::Incomplete),
        };
    };
    let line = input.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if let Some(complaint) = foreign(line) {
        return (0, Knock::Foreign(complaint));
    }
    let Some(length) = announced(line) else {
        return (end + 1, Knock::Other(Verdict::Unauthenticated));
    };
    let rest = input.get(end + 1..).unwrap_or_default();
    let Some((block, after)) = rest.split_at_checked(length) else {
        return (0, Knock::Incomplete);
    };
    if after.len() < 2 {
        return (0, Knock::Incomplete);
    }
    let taken = end + 1 + length + 2;
    if !after.starts_with(b"\r\n") {
        return (taken, Knock::Other(Verdict::BadEnd));
    }
    let mut words = Words::new(block);
    match (words.next(), words.next()) {
        (Some(user), Some(password)) => (taken, Knock::Login { user, password }),
        (Some(_) | None, _) => (taken, Knock::Other(Verdict::BadFormat)),
    }
}

/// The length of the block that a `set` announces; the other words may be anything.
fn announced(line: &[u8]) -> Option<usize> {
    let mut words = Words::new(line);
    if words.next() != Some(b"set") {
        return None;
    }
    let length = crate::key::decimal(words.nth(3)?)?;
    usize::try_from(length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers to an input that is cut after `first` bytes, nobody being let in.
    fn talk(input: &[u8], first: usize) -> (Vec<u8>, bool) {
        let (mut door, mut said) = (Door::default(), Vec::new());
        let mut at = 0;
        for end in [first, input.len()] {
            loop {
                let (taken, knock) = door.next(&input[at..end]);
                at += taken;
                let line = match knock {
                    Knock::Incomplete => break,
                    Knock::Login { user, password } => {
                        assert_eq!((user, password), (&b"alice"[..], &b"secret"[..]));
                        Verdict::Failure.line()
                    }
                    Knock::Other(answer) => answer.line(),
                    Knock::Foreign(_) | Knock::TooMuch => return (said, false),
                };
                if !door.may_say(line) {
                    return (said, false);
                }
                said.extend_from_slice(line);
            }
        }
        (said, true)
    }

    #[test]
    fn only_a_login_is_heard_however_the_input_is_cut() {
        let input = b"get a\r\n\r\nset 0 x y 12 noreply\r\nalice secret\r\nset a 0 0\r\n\
                      set k 0 0 5\r\nalice\r\nset k 0 0 3\r\nabcde0 0 1\r\nset k 0 0 14\r\n\
                      alice  secret \r\nversion\n";
        let expected = "CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR unauthenticated\r\n\
                        CLIENT_ERROR authentication failure\r\nCLIENT_ERROR unauthenticated\r\n\
                        CLIENT_ERROR bad authentication token format\r\n\
                        CLIENT_ERROR bad command line termination\r\n\
                        CLIENT_ERROR unauthenticated\r\n\
                        CLIENT_ERROR authentication failure\r\n\
                        CLIENT_ERROR unauthenticated\r\n";
        for first in 0..=input.len() {
            let (said, open) = talk(input, first);
            assert_eq!(String::from_utf8(said).unwrap(), expected, "{first}");
            assert!(open);
        }
    }

    #[test]
    fn a_connection_takes_and_gives_a_kilobyte() {
        for input in [
            "x".repeat(LOGIN_BYTES_MAX + 1),
            "set a 0 0 1000000\r\n".to_owned() + &"x".repeat(LOGIN_BYTES_MAX),
            "\n".repeat(LOGIN_BYTES_MAX),
            "get a\r\n".repeat(LOGIN_BYTES_MAX),
            "set a 0 0 12\r\nalice secret\r\n".repeat(LOGIN_BYTES_MAX),
        ] {
            let (said, open) = talk(input.as_bytes(), 0);
            assert!(!open && said.len() <= LOGIN_BYTES_MAX, "{}", said.len());
        }
    }

    #[test]
    fn other_protocols_are_told_at_their_first_line() {
        for input in [
            &b"GET / HTTP/1.1\r\nset a 0 0 12\r\nalice secret\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"Host: here\r\n",
            b"\x80\x01",
            b"\x16\x03\x01",
        ] {
            let (_, knock) = Door::default().next(input);
            assert!(matches!(knock, Knock::Foreign(_)), "{knock:?}");
        }
    }
}
