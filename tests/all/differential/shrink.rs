//! The shortest stream that still fails, as far as it is cheap to find.

use super::ask::Stream;

/// How many streams are tried.
const TRIES: usize = 200;

/// Leaves out requests as long as `fails` says that what is left still fails.
pub(super) fn shrink(mut stream: Stream, mut fails: impl FnMut(&Stream) -> bool) -> Stream {
    let mut size = stream.asks.len().div_ceil(2);
    let mut tries = 0;
    while size > 0 && tries < TRIES {
        let mut begin = 0;
        let mut shorter = false;
        while begin < stream.asks.len() && tries < TRIES {
            let mut less = stream.clone();
            less.asks
                .drain(begin..(begin + size).min(stream.asks.len()));
            tries += 1;
            if !less.asks.is_empty() && fails(&less) {
                stream = less;
                shorter = true;
            } else {
                begin += size;
            }
        }
        if !shorter || size > 1 {
            size /= 2;
        }
    }
    stream
}

#[test]
fn what_does_not_matter_is_left_out() {
    use super::ask::Ask;
    use crate::support::Random;

    let mut number = 0;
    let stream = Stream::generate(&mut Random::new(1), 100, |_| {
        number += 1;
        Ask::new(&format!("[{number}]"))
    });
    let fails = |stream: &Stream| {
        let text = stream.to_string();
        text.contains("[17]") && text.contains("[80]")
    };
    let shortest = shrink(stream, fails);
    assert_eq!(shortest.to_string(), "> [17]\n> [80]\n");
}
