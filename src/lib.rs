//! A durable, typed key-value daemon that speaks the memcached protocol: the map of the crate.
//!
//! Bytes flow one way, and the folders say so:
//!
//! ```text
//! bytes -> protocol -> command -> engine (store -> change -> journal)
//!                                    -> reply -> protocol -> bytes
//! ```
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 0 | [`limits`] [`codec`] [`clock`] [`stats`] [`exit`] | bounds, time, figures |
//! | 0 | [`holds`] [`waits`] [`prefetch`] [`pages`] | what locks and memory cost |
//! | 1 | [`key`] [`types`] [`value`] [`config`] [`users`] | what is stored, and who may |
//! | 2 | [`command`] | pure rules: old value in, reply and [`command::Change`] out |
//! | 3 | [`store`] [`journal`] [`protocol`] | the state, its history, the wire; strangers |
//! | 4 | [`engine`] | the choke point: decide, journal, apply, in one order |
//! | 5 | [`server`] [`cli`] [`tools`] | sockets, signals, files; the only place that awaits |
//!
//! A module imports only from layers below it and from its own folder; a test keeps it so.
//!
//! **The state is the fold of the journal.** A command is decided once, by a pure function; what
//! it changes is a small record; applying the records in order, live or at a restart, is the only
//! way that state changes.
//!
//! **Acknowledged means in the journal.** Before any reply leaves, everything that it shows or
//! acknowledges has been written to the journal's file: a killed process loses nothing that it
//! answered or showed. What survives a power loss is what [`journal::Fsync`] says.

pub mod cli;
pub mod clock;
pub mod codec;
pub mod command;
pub mod config;
pub mod engine;
pub mod exit;
pub mod holds;
pub mod journal;
pub mod key;
pub mod limits;
pub mod pages;
pub mod prefetch;
pub mod protocol;
pub mod server;
pub mod stats;
pub mod store;
pub mod tools;
pub mod types;
pub mod users;
pub mod value;
pub mod waits;
