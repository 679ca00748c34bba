//! What is between a client and the store until it has said who it is.

use super::session::Flow;
use crate::protocol::memcached::error::Complaint;
use crate::protocol::memcached::login::{Door, Knock, Verdict};

/// The entrance of one connection.
#[derive(Debug, Default)]
pub struct Entrance {
    door: Door,
    /// Who the client says it is, to be checked.
    login: Option<Credentials>,
}

/// A user's name and password, as sent.
#[derive(Debug)]
pub struct Credentials {
    /// The name.
    pub user: Box<[u8]>,
    /// The password.
    pub password: Box<[u8]>,
}

/// What a client has said.
#[derive(Debug)]
pub enum Heard {
    /// Nothing that is whole.
    Nothing,
    /// Who it is: [`Entrance::credentials`] has it.
    Login,
    /// Something that is answered, or not even that, and goes no further.
    Refused {
        /// Why, for the log.
        cause: &'static str,
        /// How it goes on.
        flow: Flow,
    },
    /// Another protocol's words.
    Foreign(Complaint),
}

impl Entrance {
    /// Who the client says it is; once for each login.
    pub fn credentials(&mut self) -> Option<Credentials> {
        self.login.take()
    }

    /// Hears what is at the front of `input`: how many bytes that took, and what it was.
    pub fn hear(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Heard) {
        let (taken, knock) = self.door.next(input);
        let heard = match knock {
            Knock::Incomplete => Heard::Nothing,
            Knock::Login { user, password } => {
                self.login = Some(Credentials {
                    user: user.into(),
                    password: password.into(),
                });
                Heard::Login
            }
            Knock::Other(verdict) => Heard::Refused {
                cause: verdict.cause(),
                flow: self.say(verdict, out),
            },
            Knock::Foreign(complaint) => Heard::Foreign(complaint),
            Knock::TooMuch => Heard::Refused {
                cause: "too much before the login: closing",
                flow: Flow::Close,
            },
        };
        (taken, heard)
    }

    /// Answers, unless the client has heard enough.
    pub fn say(&mut self, verdict: Verdict, out: &mut Vec<u8>) -> Flow {
        let line = verdict.line();
        if !self.door.may_say(line) {
            return Flow::Close;
        }
        out.extend_from_slice(line);
        Flow::Read
    }
}
