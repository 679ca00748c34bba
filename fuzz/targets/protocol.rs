//! The protocol's parser: the same bytes give the same requests, however they arrive, and no
//! request is longer or larger than was allowed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_server::protocol::memcached::parse::{Parser, Step};

/// Small, so that values which are too large are found soon.
const VALUE_MAX: usize = 100;

/// What each step gave, as text, when so many bytes arrive at a time.
fn steps(input: &[u8], mut arrive: impl FnMut() -> usize) -> Vec<String> {
    let (mut parser, mut steps) = (Parser::default(), Vec::new());
    let (mut at, mut arrived) = (0, 0);
    loop {
        let seen = &input[at..arrived];
        let (taken, step) = parser.next(seen, VALUE_MAX);
        assert!(
            taken <= seen.len(),
            "{taken} bytes were taken of {}",
            seen.len()
        );
        at += taken;
        let ends = match &step {
            Step::Incomplete if arrived == input.len() => true,
            Step::Incomplete => {
                arrived = input.len().min(arrived + arrive().max(1));
                continue;
            }
            Step::Complaint { complaint, .. } => complaint.closes(),
            Step::Request(_) => {
                assert!(taken > 0, "a request of no bytes");
                false
            }
        };
        steps.push(format!("{step:?}"));
        if ends {
            return steps;
        }
    }
}

fuzz_target!(|input: &[u8]| {
    // The first bytes say how the rest is cut.
    let (cuts, input) = input.split_at(input.len().min(4));
    let whole = steps(input, || input.len());
    let mut next = cuts.iter().cycle();
    let cut = steps(input, || next.next().map_or(1, |cut| usize::from(*cut)));
    for (number, (whole, cut)) in whole.iter().zip(&cut).enumerate() {
        assert_eq!(whole, cut, "step {number}");
    }
    assert_eq!(whole.len(), cut.len(), "steps");
});
