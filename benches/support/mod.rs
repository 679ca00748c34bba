//! What the benches share: servers beside each other, the load on them, and what they take for it.

#![allow(dead_code, reason = "each bench uses its part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on says so and stops"
)]

pub(crate) mod figures;
pub(crate) mod load;
pub(crate) mod open;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod wire;
