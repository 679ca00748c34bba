//! The arguments of `bench`, and the workload that they ask for.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;

use crate::config::ListenAddr;

use super::super::ToolError;
use super::super::client::parse_address;
use super::keys::{Ids, KEYS_MAX};
use super::workload::{Family, Kind, Mix, Value, Workload};

/// The page of `--help`.
pub(in super::super) const PAGE: &str = "\
Put a server that speaks memcached's protocol under load, and report its speed.

Works on this server, on memcached, and on whatever speaks as they do. First the keys are prepared:
every key that the load will name is stored, so that a get finds it (not with --no-prepare). Then
each of --connections sends requests, drawn from --mix, for keys drawn from --keys; and the report
has the throughput, the latencies, and how many keys were not there and how many replies are
errors.

Without --rate each connection sends --pipeline requests at once, and the next ones when all are
answered: that finds what the server can do at most. Latency is then the time from sending to the
reply, and says little, since the load itself waits for the server.

With --rate requests are sent at fixed times, whether or not those before are answered, over
whichever connection has fewer than --pipeline on their way; and latency counts from the time at
which a request was due. So a stall of the server counts for every request that came due in it, and
the percentiles are those that users of a service with that rate would see (no coordinated
omission). Requests that were due and had not been sent at the end are reported as never sent.

With --pid, the number of the server's process on this machine, the report has the CPU time that
the server spent on each request, and its resident memory before the keys were prepared, before the
load, and after it. To compare servers by their CPU time, give the server and the load a core each
(taskset); each reply is counted, whatever it says.

Named keys begin with `bench:`. With --keys-from a type, entries of that type from 0 on are
overwritten; and incr and fanout step counters of type 2: do not do that to a server whose data
somebody needs. What was stored stays.";

/// The arguments.
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(after_long_help = "\
KINDS OF REQUESTS
  get       one key
  set       one key, a value of --value-size bytes (a number, if the keys are those of counters)
  incr      one counter: of --keys-from, if that is a counter type, else of type 2; with named keys
            `bench:counter:N`
  fanout    incr of an index: entries of type 1, which has --indexes of them, each with --members of
            the counters 0 to --keys of type 2
  multiget  --multi-keys keys in one get

EXIT CODES
  0   every request was answered, none with an error
  64  the command line makes no sense, or not for this server
  69  the server cannot be reached
  74  replies were errors, requests were not answered, or connections were lost: see the report
  78  the configuration cannot be read

EXAMPLES
  storage_server bench 127.0.0.1:11211 --pid $(pidof storage_server)
  storage_server bench unix:/run/storage_server.sock --mix get --pipeline 16 --zipf 0.99
  storage_server bench 127.0.0.1:11212 --rate 50000 --seconds 60 --json | jq .total.latency_us
  storage_server bench --keys-from 3 --mix fanout --keys 1000000 --members 1000 -c 1 -n 10000
")]
pub struct Args {
    /// The server: host:port or unix:path [default: the first address of the configuration]
    #[arg(value_name = "ADDRESS", value_parser = parse_address)]
    pub(super) address: Option<ListenAddr>,
    /// How many connections
    #[arg(short, long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(super) connections: u64,
    /// How many threads share the connections
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(super) threads: u64,
    /// How many requests are on their way in one connection
    #[arg(short = 'P', long, value_name = "DEPTH", default_value_t = 1, value_parser = depth)]
    pub(super) pipeline: usize,
    /// Kinds of requests, and how many of each there are among all
    #[arg(short, long, value_name = "KIND=N,...", default_value = "get=9,set=1")]
    pub(super) mix: Mix,
    /// How many keys
    #[arg(short, long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub(super) keys: u64,
    /// Whose keys: `named`, or the prefix of a declared type
    #[arg(long, value_name = "named|PREFIX", default_value = "named", value_parser = keys_from)]
    keys_from: KeysFrom,
    /// Draw key number k with a probability in proportion to k^-SKEW [default: all alike]
    #[arg(long, value_name = "SKEW", value_parser = skew)]
    pub(super) zipf: Option<f64>,
    /// Bytes of the values that are set
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = value_size)]
    value_size: usize,
    /// How many keys a multiget names
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    multi_keys: u64,
    /// How many indexes there are for fanout
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    indexes: u64,
    /// How many members an index has
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(1..=crate::limits::MEMBERS_MAX as u64))]
    pub(super) members: u64,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) requests: Option<u64>,
    /// End after so long [default: 10, unless --requests is given]
    #[arg(short, long, value_name = "SECONDS", value_parser = positive)]
    seconds: Option<f64>,
    /// Send so many requests a second, whatever the server does [default: as many as it answers]
    #[arg(short, long, value_name = "PER_SECOND", value_parser = positive)]
    pub(super) rate: Option<f64>,
    /// The server's process on this machine, for its CPU time and memory
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// The same seed draws the same requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Store nothing beforehand
    #[arg(long)]
    pub(super) no_prepare: bool,
    /// Report in JSON
    #[arg(long)]
    pub(super) json: bool,
    /// No progress on standard error
    #[arg(short, long)]
    pub(super) quiet: bool,
}

// The parsers let no NaN through, so every value equals itself.
impl Eq for Args {}

/// Whose keys are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeysFrom {
    Named,
    Type(u16),
}

fn keys_from(text: &str) -> Result<KeysFrom, String> {
    if text == "named" {
        return Ok(KeysFrom::Named);
    }
    let prefix = text.parse().map(KeysFrom::Type);
    prefix.map_err(|_| "it takes `named` or the number of a type".into())
}

fn number<T: std::str::FromStr>(
    text: &str,
    fits: impl Fn(&T) -> bool,
    form: &str,
) -> Result<T, String> {
    let number = text.parse().ok().filter(fits);
    number.ok_or_else(|| format!("it takes {form}"))
}

fn depth(text: &str) -> Result<usize, String> {
    number(
        text,
        |depth| (1..=10_000).contains(depth),
        "a number from 1 to 10000",
    )
}

fn value_size(text: &str) -> Result<usize, String> {
    let max = crate::limits::VALUE_BYTES_MAX;
    number(text, |size| *size <= max, &format!("a number up to {max}"))
}

fn skew(text: &str) -> Result<f64, String> {
    number(
        text,
        |skew| *skew > 0.0 && *skew <= 10.0,
        "a number above 0 and up to 10",
    )
}

fn positive(text: &str) -> Result<f64, String> {
    number(
        text,
        |number| *number > 0.0 && *number <= 1e9,
        "a number above 0 and up to 1e9",
    )
}

impl Args {
    /// Refuses arguments that do not go together.
    pub(super) fn check(&self) -> Result<(), ToolError> {
        let wrong = if self.threads > self.connections {
            "--threads must be at most --connections: a thread without one does nothing"
        } else if self.mix.has(Kind::FanOut) && self.members > self.keys {
            "--members must be at most --keys: the members are counters 0 to --keys"
        } else {
            return Ok(());
        };
        Err(ToolError::Usage(wrong.into()))
    }

    /// After what time it ends, if by time.
    pub(super) fn time(&self) -> Option<Duration> {
        const DEFAULT_S: f64 = 10.0;
        let default = self.requests.is_none().then_some(DEFAULT_S);
        self.seconds.or(default).map(Duration::from_secs_f64)
    }

    /// What is to be asked of a server with these types.
    pub(super) fn workload(
        &self,
        types: &HashMap<u16, String>,
        rng: &mut Rng,
    ) -> Result<Workload, ToolError> {
        if self.mix.has(Kind::FanOut) && types.get(&1).is_none_or(|kind| kind != "INDEX") {
            let what = "this server has no type 1 INDEX: fanout needs storage_server";
            return Err(ToolError::Usage(what.into()));
        }
        let (entries, counters, number) = self.prefixes(types)?;
        let family = |prefix: String, count| Family {
            prefix,
            ids: Ids::new(count, self.zipf),
        };
        Ok(Workload {
            mix: self.mix.clone(),
            entries: family(entries, self.keys),
            counters: family(counters, self.keys),
            indexes: family("1.".into(), self.indexes),
            value: if number {
                Value::Number
            } else {
                Value::bytes(self.value_size, rng)
            },
            multi_keys: self.multi_keys,
        })
    }

    /// How the keys of entries and of counters begin, and whether the entries are numbers.
    fn prefixes(&self, types: &HashMap<u16, String>) -> Result<(String, String, bool), ToolError> {
        // A fan-out steps counters of type 2.
        let counters = |others: &str| {
            let fan_out = self.mix.has(Kind::FanOut);
            if fan_out { "2." } else { others }.to_owned()
        };
        let KeysFrom::Type(prefix) = self.keys_from else {
            return Ok(("bench:".into(), counters("bench:counter:"), false));
        };
        let own = format!("{prefix}.");
        match types.get(&prefix).map(String::as_str) {
            Some("DATA") => Ok((own, counters("2."), false)),
            Some("COUNTER" | "COUNTER64") => Ok((own.clone(), counters(&own), true)),
            Some(kind) => Err(ToolError::Usage(format!(
                "type {prefix} is {kind}: --keys-from takes a type of counters or of DATA; \
                 --mix fanout loads indexes"
            ))),
            None => Err(ToolError::Usage(format!(
                "the server declares no type {prefix}: see `show types`"
            ))),
        }
    }
}
