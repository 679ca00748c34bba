//! Every bound of the server in one place, checked against each other at compile time.
//! Anyone may read these; what the operator can change is in `config` and starts from here.

/// The longest key, in bytes, as in memcached.
pub const KEY_BYTES_MAX: usize = 250;

/// The default bound of a value or of a request's block, in bytes.
pub const VALUE_BYTES_DEFAULT: usize = 1 << 20;

/// The largest `max_value` that an operator may configure, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// The longest line of an ordinary command, in bytes, its line end included.
pub const LINE_BYTES_MAX: usize = 2 << 10;

/// The longest line of `get`, `gets`, `gat`, `gats` and `mset`, in bytes.
pub const LONG_LINE_BYTES_MAX: usize = 1 << 20;

/// The most members of one INDEX.
pub const MEMBERS_MAX: usize = 16 << 20;

/// The largest payload of one journal batch, in bytes; a longer length is damage, not data.
pub const BATCH_BYTES_MAX: usize = 512 << 20;

/// The number of shards of the store; a power of two. A large fan-out locks each of them, and a
/// table that grows is one shard's: more make fan-outs slower, fewer make growth a longer pause.
pub const SHARDS: usize = 128;

/// The most keys of one retrieval: all of them are held until the client has read the reply.
pub const FETCH_KEYS_MAX: usize = 32 << 10;

/// How many of a connection's requests are read before the first is executed.
pub const LOOK_AHEAD: usize = 16;

/// The most clients that an operator may configure.
pub const CLIENTS_MAX: usize = 1 << 20;

/// The most worker threads that an operator may configure.
pub const THREADS_MAX: usize = 256;

/// The longest idle timeout that an operator may configure, in seconds: a year.
pub const IDLE_TIMEOUT_MAX_S: usize = 365 * 24 * 60 * 60;

/// The largest memory limit that an operator may configure, in bytes.
pub const MEMORY_LIMIT_MAX: u64 = 1 << 50;

/// The most journal between two snapshots that an operator may configure, in bytes.
pub const COMPACT_MIN_MAX: u64 = 1 << 40;

/// The most that an operator may let the journal outgrow the last snapshot.
pub const COMPACT_RATIO_MAX: u64 = 1000;

/// The fastest rate of snapshots that an operator may configure, in bytes a second.
pub const SNAPSHOT_RATE_MAX: u64 = 1 << 40;

/// The largest expiry that is relative to now, in seconds; larger ones are Unix times.
pub const RELATIVE_EXPIRY_MAX_S: i64 = 60 * 60 * 24 * 30;

/// The longest life that an operator may give a type's counters, in seconds: ten years.
pub const COUNTER_TTL_MAX_S: u32 = 10 * 365 * 24 * 60 * 60;

/// How many seconds the averaged request rate looks back.
pub const RATE_SECONDS: usize = 300;

/// How many bytes a worker reads from a connection in one turn.
pub const READ_BYTES: usize = 64 << 10;

/// With so many bytes of replies unsent a connection's requests wait.
pub const OUTPUT_BYTES_HIGH: usize = 256 << 10;

/// So many when the memory of all clients together is used up.
pub const OUTPUT_BYTES_LOW: usize = 8 << 10;

/// How much of requests a connection may hold then without asking for a share.
pub const INPUT_BYTES_LOW: usize = 8 << 10;

/// What a buffer may hold without asking for a share of all clients' memory.
pub const BUFFER_BYTES_FREE: usize = 16 << 10;

/// The most parts of keys that a worker counts by: see `stats detail`.
pub const PREFIXES_MAX: usize = 1024;

/// The longest name of a user, in bytes.
pub const USER_BYTES_MAX: usize = 64;

/// The longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// How many bytes a client may send, and how many it is sent, before it has said who it is.
pub const LOGIN_BYTES_MAX: usize = 1 << 10;

const _: () = {
    assert!(SHARDS.is_power_of_two());
    assert!(LINE_BYTES_MAX > KEY_BYTES_MAX * 2);
    assert!(LONG_LINE_BYTES_MAX > LINE_BYTES_MAX);
    // The longest login fits, with a key of the longest and its numbers.
    assert!(LOGIN_BYTES_MAX > KEY_BYTES_MAX + USER_BYTES_MAX + PASSWORD_BYTES_MAX + 64);
    // A full index and the largest request each fit one batch.
    assert!(MEMBERS_MAX * 8 + LINE_BYTES_MAX < BATCH_BYTES_MAX);
    assert!(VALUE_BYTES_MAX * 4 + LONG_LINE_BYTES_MAX < BATCH_BYTES_MAX);
};
