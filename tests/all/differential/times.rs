//! What a moment decides, asked so that the moment does not matter: what ends soon is looked at
//! only when it is over for both. And values that grow larger than they may.

use std::time::Duration;

use super::ask::Ask;
use super::classic::some_key;
use crate::support::Random;

/// memcached counts whole seconds of its own, so that a time may be over a second early; here it is
/// not over before it is.
const LATE: Duration = Duration::from_millis(1300);

/// More than a value and what memcached keeps with it may be together with [`PIECE`].
const NEARLY_ALL: usize = 1_040_000;
const PIECE: usize = 20_000;

/// One request, or several.
pub(super) fn ask(random: &mut Random) -> Ask {
    match random.below(6) {
        0..=1 => short_life(random),
        2 => flush_soon(random),
        3 => flush_of_1970(random),
        4 => flush_put_off(random),
        _ => outgrow(random),
    }
}

/// An expiry in some way to give one, and the time until it is over.
fn short_life(random: &mut Random) -> Ask {
    let (key, seconds) = (some_key(random), 1 + random.below(2));
    let (verb, line) = random.pick(&[
        ("set ", " 3 {} 1\r\n5\r\n"),
        ("add ", " 3 {} 1\r\n5\r\n"),
        ("touch ", " {}\r\n"),
        ("gat {} ", "\r\n"),
        ("ms ", " 1 T{}\r\n5\r\n"),
        ("mg ", " T{}\r\n"),
        ("mg ", " N{}\r\n"),
        ("md ", " I T{}\r\n"),
        ("ma ", " N{}\r\n"),
    ]);
    let seconds_text = seconds.to_string();
    let ask = Ask::new(&verb.replace("{}", &seconds_text)).key(&key);
    ask.text(&line.replace("{}", &seconds_text))
        .showing(&key)
        .stepping(&key)
        .pausing(Duration::from_secs(seconds) + LATE)
}

/// Everything goes, but not at once; memcached is up to two seconds early.
fn flush_soon(random: &mut Random) -> Ask {
    let seconds = 1 + random.below(3);
    let end = random.pick(&["", " noreply"]);
    let ask = Ask::new(&format!("flush_all {seconds}{end}\r\n"));
    ask.pausing(Duration::from_secs(seconds) + LATE)
}

/// A delay of more than 30 days is a time long ago. What an earlier flush removed is back with
/// memcached until the next one.
fn flush_of_1970(random: &mut Random) -> Ask {
    let time = random.pick(&["2592001", "5000000", "1000000000"]);
    kept_through(random, time)
}

/// What a later flush would remove is there until then.
fn flush_put_off(random: &mut Random) -> Ask {
    let delay = random.pick(&["100", "100000", "2592000", "2147483647"]);
    kept_through(random, delay)
}

fn kept_through(random: &mut Random, exptime: &str) -> Ask {
    let key = some_key(random);
    let ask = Ask::new("set ").key(&key).text(" 0 0 1\r\n5\r\nflush_all ");
    let ask = ask.text(exptime).text("\r\ntouch ").key(&key);
    ask.text(" 0\r\nflush_all\r\n").showing(&key)
}

/// A value that would be too large together with what is there.
fn outgrow(random: &mut Random) -> Ask {
    let key = some_key(random);
    let set = format!(" 0 0 {NEARLY_ALL}\r\n{}\r\n", "v".repeat(NEARLY_ALL));
    let mut ask = Ask::new("set ").key(&key).text(&set);
    let piece = "p".repeat(PIECE);
    for _ in 0..2 {
        let (verb, line) = random.pick(&[
            ("append ", " 0 0 {}"),
            ("prepend ", " 0 0 {}"),
            ("append ", " 0 0 {} noreply"),
            ("ms ", " {} MA"),
            ("ms ", " {} MP q"),
            ("ms ", " {} MA c k Oo C0"),
        ]);
        let line = line.replace("{}", &PIECE.to_string());
        let more = format!("{line}\r\n{piece}\r\n");
        ask = ask.text(verb).key(&key).text(&more);
    }
    let ask = ask.text("mg ").key(&key).text(" s\r\nset ").key(&key);
    ask.text(" 0 0 1\r\nx\r\n").showing(&key).stepping(&key)
}
