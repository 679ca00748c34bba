//! A whole conversation: any bytes are answered, the same bytes in the same way however they
//! are cut, and a start on the killed server's disk finds what it showed.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use storage_server::journal::sim::SimDisk;

mod support;
use support::CONFIG;
use support::memory::MemoryServer;

/// So many conversations share two servers: to start some is slower than to talk to them.
const CONVERSATIONS: u32 = 200;

struct Pair {
    whole: MemoryServer,
    cut: MemoryServer,
    conversations: u32,
}

impl Pair {
    fn start() -> Self {
        let start = || MemoryServer::start(CONFIG, SimDisk::new());
        Self {
            whole: start(),
            cut: start(),
            conversations: 0,
        }
    }

    fn converse(&mut self, cuts: &[u8], input: &[u8]) {
        for server in [&self.whole, &self.cut] {
            assert_eq!(server.connect().ask(b"flush_all\r\n"), b"OK\r\n");
        }
        // The order of entries in a dump is each store's own.
        let dumps = input.windows(11).any(|word| word == b"lru_crawler");
        let comparable = |replies: &[u8]| {
            let mut lines = without_cas(replies);
            if dumps {
                lines.sort_unstable();
            }
            lines.join(&b'\n')
        };
        let whole = comparable(&self.whole.connect().ask(input));
        let mut wire = self.cut.connect();
        let (mut cut, mut at) = (Vec::new(), 0);
        for length in cuts.iter().cycle() {
            if at == input.len() {
                break;
            }
            let end = input.len().min(at + 1 + usize::from(*length));
            cut.extend(wire.ask(&input[at..end]));
            at = end;
        }
        let cut = comparable(&cut);
        // Figures differ: of turns, of time, of bytes.
        let figures = input.windows(5).any(|word| word == b"stats");
        assert!(
            figures || whole == cut,
            "{}\nbut cut:\n{}",
            whole.escape_ascii(),
            cut.escape_ascii()
        );
        self.conversations += 1;
    }

    /// What a start on the disk of a killed server shows is what that showed.
    fn check(&self) {
        let question = b"gets k a b 1.1 1.2 2.1 2.2 3.1 4.1 5.1 6.1 7.1 name greeting\r\n\
            mg k k c v\r\nmg a k c v\r\nmg name k c v\r\nmg 3.1 k c v\r\nmn\r\n";
        // Whoever sees a stale entry first changes it: what counts is what is shown after that.
        self.whole.connect().ask(question);
        let shown = self.whole.connect().ask(question);
        let again = MemoryServer::start(CONFIG, self.whole.disk.kill());
        assert_eq!(again.connect().ask(question), shown);
    }
}

/// The lines of replies without what depends on the millisecond: the cas unique of a counter that
/// ends, and the times that meta commands and dumps show.
fn without_cas(replies: &[u8]) -> Vec<Vec<u8>> {
    let timed = |word: &&[u8]| {
        matches!(word, [b'c' | b't' | b'l', b'0'..=b'9', ..])
            || [&b"exp="[..], b"la=", b"cas="]
                .iter()
                .any(|name| word.starts_with(name))
    };
    let line = |line: &[u8]| {
        let cas = line
            .strip_prefix(b"VALUE ")
            .is_some_and(|rest| rest.iter().filter(|byte| **byte == b' ').count() == 3);
        let end = line.iter().rposition(|byte| *byte == b' ');
        let line = &line[..end.filter(|_| cas).unwrap_or(line.len())];
        let shows_times = [&b"HD "[..], b"VA ", b"ME ", b"key="]
            .iter()
            .any(|code| line.starts_with(code));
        let words = line.split(|byte| *byte == b' ');
        let words: Vec<_> = words.filter(|word| !(shows_times && timed(word))).collect();
        words.join(&b' ')
    };
    replies.split(|byte| *byte == b'\n').map(line).collect()
}

thread_local! {
    static PAIR: RefCell<Option<Pair>> = const { RefCell::new(None) };
}

fuzz_target!(|input: &[u8]| {
    let (cuts, input) = input.split_at(input.len().min(4));
    if cuts.is_empty() {
        return;
    }
    PAIR.with_borrow_mut(|pair| {
        let servers = pair.get_or_insert_with(Pair::start);
        servers.converse(cuts, input);
        if servers.conversations == CONVERSATIONS {
            servers.check();
            *pair = None;
        }
    });
});
