//! memcached's text protocol, with the typed extensions.
//!
//! [`parse::Parser`] turns bytes into [`Request`]s, [`encode`] turns replies into bytes, and
//! [`verbs::VERBS`] is the table of what can be asked. The reference for everything that is not
//! ours is memcached 1.6's `doc/protocol.txt`.

pub mod batch;
pub mod encode;
pub mod error;
pub mod login;
pub mod meta;
pub mod meta_reply;
pub mod parse;
mod storage;
pub mod text;
pub mod verbs;
pub mod words;

use crate::command::{Command, Meta};
use meta::Echo;

/// One request of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    /// What is asked.
    pub action: Action<'a>,
    /// The client reads no reply, so none may be sent.
    pub noreply: bool,
    /// How the reply looks.
    pub form: Form<'a>,
}

/// The looks of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Form<'a> {
    /// As the command says.
    Plain,
    /// Values are sent with their cas unique (`gets`, `gats`).
    WithCas,
    /// As the flags of a meta command say.
    Meta(Echo<'a>),
}

impl<'a> Request<'a> {
    fn data(command: Command<'a>, noreply: bool) -> Self {
        Self {
            action: Action::Data(command),
            noreply,
            form: Form::Plain,
        }
    }

    /// Quiet or not, a meta command has replies that must be sent.
    fn meta(meta: Meta<'a>, echo: Echo<'a>) -> Self {
        Self {
            action: Action::Data(Command::Meta(Box::new(meta))),
            noreply: false,
            form: Form::Meta(echo),
        }
    }

    fn admin(admin: Admin<'a>) -> Self {
        Self {
            action: Action::Admin(admin),
            noreply: false,
            form: Form::Plain,
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

/// The forms in which keys are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// `lru_crawler metadump`: each key with what is known of it.
    Meta,
    /// `lru_crawler mgdump`: a line that asks for each key.
    Mg,
    /// `stats cachedump`: each key with its length and expiry.
    Cache,
}

/// What can be asked of the server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin<'a> {
    /// `stats [topic]`, and the words behind the topic.
    Stats(&'a [u8], &'a [u8]),
    /// `lru_crawler metadump|mgdump <classes>`, `stats cachedump <class> <limit>`
    Dump {
        /// In which form.
        dump: Dump,
        /// A list of classes, as it was sent.
        classes: &'a [u8],
        /// How many entries at most; 0 is all.
        limit: u64,
    },
    /// `lru_crawler crawl <classes>`
    Crawl(&'a [u8]),
    /// `lru_crawler enable|disable|sleep|tocrawl`
    Crawler,
    /// `cache_memlimit <MiB>`; `None` is not a number.
    CacheMemlimit(Option<u64>),
    /// `show types`
    ShowTypes,
    /// `version`
    Version,
    /// `mn`
    NoOp,
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
