//! The server in memory, as the tests have it.

#![allow(dead_code, reason = "no target needs all of it")]

#[path = "../../tests/all/support/memory.rs"]
pub(crate) mod memory;
#[path = "../../tests/all/support/wire.rs"]
pub(crate) mod wire;

/// The types that the transcripts and the golden files need. Most values of type 3 leave memory.
pub(crate) const CONFIG: &str = r#"
[types]
3 = { kind = "DATA", keep_in_memory = 4 }
4 = "COUNTER"
5 = { kind = "INDEX", target = 4 }
6 = "COUNTER64"
7 = { kind = "INDEX", target = 6 }
8 = "COUNTER64"
9 = { kind = "DATA", durable = false, when_full = "evict" }
"#;
