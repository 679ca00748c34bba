//! memcached's text protocol, with the typed extensions.
//!
//! [`parse::Parser`] turns bytes into [`Request`]s, [`encode`] turns replies into bytes, and
//! [`verbs::VERBS`] is the table of what can be asked. The reference for everything that is not
//! ours is memcached 1.6's `doc/protocol.txt`.

pub mod encode;
pub mod error;
pub mod login;
pub mod parse;
mod storage;
pub mod verbs;
pub mod words;

use crate::command::Command;

/// One request of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    /// What is asked.
    pub action: Action<'a>,
    /// The client reads no reply, so none may be sent.
    pub noreply: bool,
    /// Values are sent with their cas unique (`gets`, `gats`).
    pub with_cas: bool,
}

impl<'a> Request<'a> {
    fn data(command: Command<'a>, noreply: bool) -> Self {
        Self {
            action: Action::Data(command),
            noreply,
            with_cas: false,
        }
    }

    fn admin(admin: Admin<'a>) -> Self {
        Self {
            action: Action::Admin(admin),
            noreply: false,
            with_cas: false,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<'a> {
    /// Something of the store's entries.
    Data(Command<'a>),
    /// Something of the server.
    Admin(Admin<'a>),
}

/// What can be asked of the server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin<'a> {
    /// `stats [topic]`
    Stats(&'a [u8]),
    /// `show types`
    ShowTypes,
    /// `version`
    Version,
    /// `verbosity <level>`
    Verbosity,
    /// `quit`
    Quit,
    /// `reopen`: as HUP.
    Reopen,
    /// `snapshot`
    Snapshot,
    /// `term`, `shutdown`: as TERM.
    Terminate,
}
