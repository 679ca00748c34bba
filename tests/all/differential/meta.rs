//! The meta commands at random: every flag in any order, keys as they are and as base64, quiet
//! and not, malformed; on the keys of the classic commands and on some that only base64 can say.
//!
//! What the moment decides is left out: whether a time to live is over, or shorter than another
//! one, is the same whenever it is asked.

use super::ask::Ask;
use super::classic::{longest, some_delta, some_exptime, some_key, some_value};
use crate::support::Random;

/// A flag of a line.
enum Flag {
    Text(String),
    /// `C` with the cas unique that was shown last for the key.
    Compare,
}

/// The flags of a line, in any order.
#[derive(Default)]
struct Flags(Vec<Flag>);

impl Flags {
    fn maybe(mut self, random: &mut Random, times: u64, flag: impl Into<String>) -> Self {
        if random.one_in(times) {
            self.0.push(Flag::Text(flag.into()));
        }
        self
    }

    /// Each of these letters, or not.
    fn some_of(mut self, random: &mut Random, times: u64, letters: &str) -> Self {
        for letter in letters.chars() {
            self = self.maybe(random, times, letter);
        }
        self
    }

    fn compare(mut self, random: &mut Random, times: u64) -> Self {
        if random.one_in(times) {
            let number = random.pick(&["0", "1", "9223372036854775808", "18446744073709551615"]);
            self.0.push(match random.below(4) {
                0 => Flag::Text(format!("C{number}")),
                _ => Flag::Compare,
            });
        }
        self
    }

    /// Flags that any of the commands takes, whether it has a use for them or not.
    fn common(self, random: &mut Random) -> Self {
        let opaque = "o".repeat(random.below(32) as usize);
        let of_proxy = random.pick(&["L", "Lx", "P", "Px"]);
        let flags = self.some_of(random, 4, "kq");
        let flags = flags.maybe(random, 5, format!("O{opaque}"));
        flags.maybe(random, 20, of_proxy)
    }

    /// The line's end after its key and length.
    fn end(mut self, random: &mut Random, mut ask: Ask, key: &str) -> Ask {
        while !self.0.is_empty() {
            let at = random.below(self.0.len() as u64) as usize;
            ask = ask.text(space(random));
            ask = match self.0.swap_remove(at) {
                Flag::Text(flag) => ask.text(&flag),
                Flag::Compare => ask.text("C").unique(key),
            };
        }
        ask.text(random.pick(&["\r\n", "\r\n", "\r\n", " \r\n", "\n"]))
    }
}

/// A space between two words, as some clients write it.
fn space(random: &mut Random) -> &'static str {
    if random.one_in(30) { "  " } else { " " }
}

/// One request.
pub(super) fn ask(random: &mut Random) -> Ask {
    match random.below(100) {
        0..=36 => get(random),
        37..=61 => set(random),
        62..=70 => delete(random),
        71..=86 => arith(random),
        87..=88 => Ask::new(random.pick(&["mn\r\n", "mn x\r\n", "mn\n", " mn \r\n"])),
        89..=91 => debug(random),
        _ => malformed(random),
    }
}

/// The beginning of a line, and the flag that goes with its key.
fn begin(random: &mut Random, verb: &str) -> (Ask, String, Flags) {
    let ask = Ask::new(verb).text(space(random));
    let key = some_key(random);
    // The longest would be longer than a key may be.
    match random.below(5) {
        0 if key.len() < 100 => {
            let key = if random.one_in(3) {
                "b\u{1}\u{e4}".to_owned()
            } else {
                key
            };
            let flags = Flags(vec![Flag::Text("b".to_owned())]);
            (ask.base64(&key), key, flags)
        }
        _ => (ask.key(&key), key, Flags::default()),
    }
}

/// Expiries that leave something to tell of.
fn lasting(random: &mut Random) -> i64 {
    random.pick(&[0, 100_000, 2_592_000, 2_147_483_647])
}

/// Expiries; what is shown of an entry that is over at once is among the differences.
fn expiry(random: &mut Random, shown: bool) -> i64 {
    if shown {
        lasting(random)
    } else {
        some_exptime(random)
    }
}

fn get(random: &mut Random) -> Ask {
    let (ask, key, mut flags) = begin(random, "mg");
    let shows_end = random.one_in(3);
    if shows_end {
        flags = flags.some_of(random, 2, "ct");
    }
    flags = flags
        .some_of(random, 2, "v")
        .some_of(random, 4, "fhlsu")
        .common(random);
    let (touch, vivify) = (expiry(random, shows_end), expiry(random, shows_end));
    // None of the expiries, so that it does not matter when a second ends.
    let recache = random.pick(&[-1, 0, 30, 50_000, 1_000_000, 2_000_000_000]);
    flags = flags
        .maybe(random, 8, format!("T{touch}"))
        .maybe(random, 6, format!("N{vivify}"))
        .maybe(random, 6, format!("R{recache}"))
        .maybe(random, 40, "I")
        .maybe(random, 40, "F5")
        .compare(random, 40);
    flags.end(random, ask, &key).showing(&key)
}

fn set(random: &mut Random) -> Ask {
    let (ask, key, mut flags) = begin(random, "ms");
    let value = some_value(random);
    let of_client = random.pick(&[0, 1, 65_535, u32::MAX]);
    let shows_unique = random.one_in(3);
    if shows_unique {
        flags = flags.maybe(random, 1, "c");
    }
    let exptime = expiry(random, shows_unique);
    let mode = random.pick(&["MS", "ME", "MA", "MA", "MP", "MR", "MX", "M", "Mset"]);
    let flags = flags
        .some_of(random, 3, "I")
        .some_of(random, 30, "vthlfu")
        .common(random)
        .maybe(random, 4, format!("F{of_client}"))
        .maybe(random, 4, format!("T{exptime}"))
        .maybe(random, 2, mode)
        .compare(random, 3);
    let ask = ask.text(&format!(" {}", value.len()));
    flags.end(random, ask, &key).bytes(&value).text("\r\n")
}

fn delete(random: &mut Random) -> Ask {
    let (ask, key, flags) = begin(random, "md");
    let exptime = some_exptime(random);
    let flags = flags
        .some_of(random, 2, "I")
        .some_of(random, 30, "vtc")
        .common(random)
        .maybe(random, 4, format!("T{exptime}"))
        .compare(random, 3);
    flags.end(random, ask, &key)
}

fn arith(random: &mut Random) -> Ask {
    let (ask, key, mut flags) = begin(random, "ma");
    let shows_time = random.one_in(4);
    if shows_time {
        flags = flags.maybe(random, 1, "t");
    }
    let (touch, vivify) = (expiry(random, shows_time), expiry(random, shows_time));
    let (initial, delta) = (some_delta(random), some_delta(random));
    let goes_down = random.one_in(3);
    let mode = if goes_down {
        "MD"
    } else {
        random.pick(&["MI", "M+", "M-", "MX", "Mincr"])
    };
    let flags = flags
        .some_of(random, 2, "v")
        .some_of(random, 4, "c")
        .some_of(random, 30, "fhlsuI")
        .common(random)
        .maybe(random, 4, format!("N{vivify}"))
        .maybe(random, 4, format!("J{initial}"))
        .maybe(random, 2, format!("D{delta}"))
        .maybe(random, if goes_down { 1 } else { 2 }, mode)
        .compare(random, 5);
    // Of a number that gets longer it is among the differences.
    let flags = if goes_down {
        flags.maybe(random, 3, format!("T{touch}"))
    } else {
        flags
    };
    flags.end(random, ask, &key).stepping(&key)
}

fn debug(random: &mut Random) -> Ask {
    let (ask, _, flags) = begin(random, "me");
    flags.end(random, ask, "")
}

/// Lines that are wrong and that have no block, or one that is passed over.
fn malformed(random: &mut Random) -> Ask {
    let key = some_key(random);
    let verb = random.pick(&["mg", "md", "ma"]);
    let flags = [
        "z", "v v", "k k", "Cx", "C", "C-1", "Tx", "T", "T1x", "Nx", "Rx", "Fx", "F", "Dx", "D-1",
        "Jx", "J", "M", "Mxx", "Fx Cx", "Cx Fx", "Cx z", "Cx v v", "Dx Tx", "Tx Dx", "\x7f",
        "\u{e4}",
    ];
    let flags = random.pick(&flags);
    let long = longest(1);
    match random.below(10) {
        9 => many_flags(random),
        0 => Ask::new(random.pick(&["mg", "ms", "md", "ma", "me", "mx", "m", "mgx"])).text("\r\n"),
        1..=3 => Ask::new(verb)
            .text(" ")
            .key(&key)
            .text(&format!(" {flags}\r\n")),
        4..=5 => {
            let ask = Ask::new("ms ").key(&key);
            ask.text(&format!(" 3 {flags}\r\nabc\r\n"))
        }
        6 => {
            let ask = Ask::new(verb).text(" ").key(&key);
            ask.text(" a b c d e f g h i j k l m n o p q r s t u v w x\r\n")
        }
        7 => {
            let ask = Ask::new(random.pick(&["mg", "md", "ma", "me"]));
            ask.text(" ")
                .key(&long)
                .text(random.pick(&["\r\n", " v\r\n", " b q\r\n"]))
        }
        _ => {
            let keys = ["Y", "YQ", "YQ=", "=", "==="];
            let ask = Ask::new(verb).text(" ").text(random.pick(&keys));
            ask.text(random.pick(&[" b\r\n", " b Tx\r\n", " Tx b\r\n", " b q k\r\n"]))
        }
    }
}

/// About as many flags as a line may have.
fn many_flags(random: &mut Random) -> Ask {
    const FLAGS: [&str; 19] = [
        "c", "f", "h", "I", "k", "l", "L", "O", "P", "s", "u", "v", "N0", "R0", "F0", "J1", "D1",
        "C0", "q",
    ];
    let (verb, key) = (random.pick(&["mg ", "md ", "ma "]), some_key(random));
    let mut ask = Ask::new(verb).key(&key);
    for flag in &FLAGS[..random.pick(&[16, 17, 18, 19])] {
        ask = ask.text(" ").text(flag);
    }
    ask.text("\r\n").showing(&key).stepping(&key)
}
