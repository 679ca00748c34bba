//! The part of `--bench compare` about memory: `cargo bench --bench memory [-- SECONDS [ENTRIES]]`,
//! where SECONDS is how long servers are idle before they are looked at, a minute unless given, and
//! ENTRIES the most of a row that is measured.

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
    let mut numbers = std::env::args().filter_map(|word| word.parse().ok());
    let idle = Duration::from_secs(numbers.next().unwrap_or(60));
    let entries_max = numbers.next().unwrap_or(u64::MAX);
    println!("{}", support::figures::HEAD);
    for row in growth::growth(idle, entries_max) {
        println!("{row}");
    }
}
