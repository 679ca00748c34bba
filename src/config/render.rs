//! The table of keys as text for people: the example file and the table of the manual.
//!
//! Invariant: nothing is said here that `KEYS` does not say; a test compares the files of the
//! repository with these texts, and another parses the example to the defaults. Called by tests
//! and by whoever wants the full reference.

use super::keys::{Applies, KEYS, KeyRow, SECTIONS};
use std::fmt::Write as _;

const HEAD: &str = "\
# The configuration of storage_server: TOML by syntax, and each value below is the default.
# Check a changed file before it is used: storage_server --check -c config.ini
# Values marked [HUP] are applied by SIGHUP; the others need a restart.
";

const TYPES: &str = "\
# What the keys NUMBER.ID hold. 1 INDEX and 2 COUNTER always exist and cannot be changed. [HUP]
# Kinds: COUNTER (unsigned 32-bit number), COUNTER64 (64-bit), INDEX (set of ids), DATA (bytes).
# incr on an INDEX increments a counter for each of its ids: of type 2, or of its target.
# DATA longer than its keep_in_memory may leave memory and is then read from the data files.
# durable = false keeps entries in memory only: they are gone after a restart and in no file.
# when_full = \"evict\" makes room at memory_limit by removing what is least likely to be wanted.
# Counters: initial is what a missing one starts from (min), min and max are its bounds (0 and
# what the kind holds), overflow is what a step beyond them does: \"wrap\" goes on from min above
# max and stops at min below it, \"saturate\" stops at both, \"error\" is refused; ttl is for how
# many seconds a counter lives that incr, decr or a fan-out creates.
# weighted = true multiplies what a fan-out adds by each id's attribute.
# A type that has entries cannot be taken out, nor change its kind but from COUNTER to COUNTER64.
#3 = \"DATA\"
#4 = \"COUNTER\"
#5 = { kind = \"INDEX\", target = 4 }
#6 = { kind = \"DATA\", keep_in_memory = \"1k\" }
#7 = { kind = \"DATA\", durable = false, when_full = \"evict\" }
#8 = { kind = \"COUNTER\", max = 100, overflow = \"error\", ttl = 60 }
#9 = { kind = \"INDEX\", target = 8, weighted = true }
";

/// The text of `config.ini.example`: every key at its default, with its documentation.
pub fn render_example() -> String {
    let mut out = HEAD.to_owned();
    for section in SECTIONS {
        let _ = write!(out, "\n[{section}]\n");
        if section == "types" {
            out.push_str(TYPES);
        }
        for row in KEYS.iter().filter(|row| row.section() == section) {
            for line in row.doc {
                let _ = writeln!(out, "# {line}");
            }
            let hup = match row.applies {
                Applies::OnHup => " [HUP]",
                Applies::AtRestart => "",
            };
            let _ = writeln!(out, "# Takes {}.{hup}", row.form);
            let _ = writeln!(out, "{} = {}\n", row.name(), row.default);
        }
        let kept = out.trim_end().len();
        out.truncate(kept);
        out.push('\n');
    }
    out
}

/// The table of keys for INSTALL.md.
pub fn render_markdown() -> String {
    let mut out = "| Key | Default | Takes | Applied | What it does |\n".to_owned();
    out.push_str("|---|---|---|---|---|\n");
    for row in KEYS {
        out.push_str(&markdown_row(row));
    }
    out.push_str(
        "| `types.N` | | `\"KIND\"`, `{ kind = \"INDEX\", target = 4 }` or \
         `{ kind = \"DATA\", keep_in_memory = \"1k\" }` | on HUP | \
         What the keys `N.ID` hold: COUNTER, COUNTER64, INDEX or DATA. `durable = false` keeps \
         them in memory only; `when_full = \"evict\"` makes room at `memory_limit` by \
         removing those least likely to be wanted. |\n",
    );
    out
}

fn markdown_row(row: &KeyRow) -> String {
    let applied = match row.applies {
        Applies::OnHup => "on HUP",
        Applies::AtRestart => "at a restart",
    };
    let (key, default, takes) = (row.key, row.default, row.form.to_string());
    let doc = row.doc.join(" ").replace('|', "\\|");
    format!("| `{key}` | `{default}` | {takes} | {applied} | {doc} |\n")
}
