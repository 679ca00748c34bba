//! The part of `--bench compare` about memory: `cargo bench --bench memory [-- SECONDS]`, where
//! SECONDS is how long servers are idle before they are looked at, a minute unless given.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement that cannot go on says so and stops"
)]

#[path = "compare/memory.rs"]
mod growth;
mod support;

use std::time::Duration;

fn main() {
    let idle = std::env::args().find_map(|word| word.parse().ok());
    println!("{}", support::figures::HEAD);
    for row in growth::growth(Duration::from_secs(idle.unwrap_or(60)), u64::MAX) {
        println!("{row}");
    }
}
