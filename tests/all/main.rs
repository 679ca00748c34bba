//! The test suite of the daemon from outside: one binary, a module for each behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on says so and stops"
)]

mod config;
mod tidy;
