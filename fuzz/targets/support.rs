//! The server in memory, as the tests have it.

#![allow(dead_code, reason = "no target needs all of it")]

#[path = "../../tests/all/support/memory.rs"]
pub(crate) mod memory;
#[path = "../../tests/all/support/wire.rs"]
pub(crate) mod wire;

/// The types that the transcripts and the golden files need.
pub(crate) const CONFIG: &str = r#"
[types]
3 = "DATA"
4 = "COUNTER"
5 = { kind = "INDEX", target = 4 }
6 = "COUNTER64"
7 = { kind = "INDEX", target = 6 }
8 = "COUNTER64"
"#;
