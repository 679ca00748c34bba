//! The test suite of the daemon from outside: one binary, a module for each behaviour.
//!
//! What the daemon must do stands in the modules; how to start it and talk to it, in `support`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on says so and stops"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests watch the daemon by the machine's clock"
)]
#![allow(
    clippy::host_endian_bytes,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    reason = "no bytes of a format are made here; a scenario reads best as one list of steps"
)]

mod access;
mod accounting;
mod bench;
mod clients;
mod clock;
mod cold;
mod config;
mod counters;
mod crash;
mod differential;
mod dump;
mod expiry;
mod faults;
mod floods;
mod golden;
mod in_memory;
mod limits;
mod linear;
mod memory_limit;
mod model;
mod progress;
mod readme;
mod regression;
mod replay;
mod restart;
mod signals;
mod sim;
mod stats;
mod storms;
mod streams;
mod support;
mod syscalls;
mod tidy;
mod tools;
mod transcript;
mod volatile;
