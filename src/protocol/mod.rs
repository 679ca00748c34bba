//! Front-ends without sockets: bytes become requests, replies become bytes.
//!
//! The contract of a front-end: it is given all bytes that have arrived, takes whole requests
//! from their front, and says after every error where the next request begins, or that it cannot
//! know and the connection must close. It does no I/O and sees no store.

pub mod memcached;
