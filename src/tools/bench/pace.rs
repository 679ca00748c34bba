//! When requests are sent: as replies come back, or at a rate whatever the replies do.
//!
//! Invariant: at a rate the moment that counts for a request is the one at which it was due. Time
//! that it spent waiting to be sent, because the server was slow to answer others, is part of its
//! latency: no slow moment is left out of the figures because it held up the load.

/// The requests of one thread over time, in nanoseconds from the start.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Between two requests; `None` without a rate.
    every_ns: Option<f64>,
    /// When the first one is due.
    first_ns: f64,
    /// How many there may be at most.
    count: u64,
    /// From then on none are sent.
    end_ns: u64,
    taken: u64,
}

impl Pace {
    /// The part of thread `thread` of `threads` in `count` requests up to `end_ns`, at `rate`
    /// requests a second of all threads together.
    pub(super) fn new(
        (thread, threads): (u64, u64),
        count: Option<u64>,
        end_ns: Option<u64>,
        rate: Option<f64>,
    ) -> Self {
        let own = |count: u64| count / threads + u64::from(thread < count % threads);
        let gap_ns = rate.map(|rate| 1e9 / rate);
        Self {
            every_ns: gap_ns.map(|gap_ns| gap_ns * threads as f64),
            first_ns: gap_ns.unwrap_or_default() * thread as f64,
            count: count.map_or(u64::MAX, own),
            end_ns: end_ns.unwrap_or(u64::MAX),
            taken: 0,
        }
    }

    /// When the request after `taken` is due.
    fn due_ns(&self, now_ns: u64) -> u64 {
        self.every_ns.map_or(now_ns, |every_ns| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a time from the start, which is positive and below u64"
            )]
            let due_ns = (self.first_ns + every_ns * self.taken as f64) as u64;
            due_ns
        })
    }

    /// The moment that counts for the next request, if one is to be sent now.
    pub(super) fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.due_ns(now_ns);
        let is_due = self.taken < self.count && due_ns <= now_ns && due_ns < self.end_ns;
        is_due.then(|| {
            self.taken += 1;
            due_ns
        })
    }

    /// True if there are no more requests: all are taken, or the time is over.
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        self.taken >= self.count || now_ns >= self.end_ns
    }

    /// True if requests have their times.
    pub(super) fn has_rate(&self) -> bool {
        self.every_ns.is_some()
    }

    /// How long until the next request is due; without a rate, until the time is over.
    pub(super) fn wait_ns(&self, now_ns: u64) -> u64 {
        let next_ns = if self.has_rate() {
            self.due_ns(now_ns).min(self.end_ns)
        } else {
            self.end_ns
        };
        next_ns.saturating_sub(now_ns)
    }

    /// Takes the requests that are due and were never sent, at the end; how many they are.
    pub(super) fn left_behind(&mut self, now_ns: u64) -> u64 {
        let mut left = 0;
        while self.has_rate() && self.take(now_ns).is_some() {
            left += 1;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn threads_share_the_requests_and_the_rate() {
        let mut due = Vec::new();
        for thread in 0..3 {
            let mut pace = Pace::new((thread, 3), Some(1000), None, Some(1000.0));
            while let Some(at) = pace.take(SECOND) {
                due.push(at);
            }
            assert!(pace.is_over(SECOND));
        }
        due.sort_unstable();
        assert_eq!(due.len(), 1000);
        for (at, due) in (0_u64..).zip(due) {
            assert!(due.abs_diff(at * SECOND / 1000) <= 1);
        }
    }

    #[test]
    fn a_late_request_counts_from_when_it_was_due() {
        let mut pace = Pace::new((0, 1), None, Some(2 * SECOND), Some(4.0));
        assert_eq!(pace.take(0), Some(0));
        assert_eq!(pace.take(0), None);
        assert_eq!(pace.wait_ns(0), SECOND / 4);
        // A second passes in which nothing could be sent.
        assert_eq!(pace.take(SECOND), Some(SECOND / 4));
        assert_eq!(pace.take(SECOND), Some(SECOND / 2));
        assert_eq!(pace.wait_ns(SECOND), 0);
        // What is due from the end on is not sent, and what was due before it is counted.
        assert_eq!(pace.left_behind(5 * SECOND), 5);
        assert!(pace.is_over(2 * SECOND));
    }

    #[test]
    fn without_a_rate_each_request_is_due_when_it_can_be_sent() {
        let mut pace = Pace::new((1, 2), Some(3), Some(SECOND), None);
        assert_eq!(pace.take(7), Some(7));
        assert_eq!(pace.take(7), None, "the other thread has two of the three");
        let mut pace = Pace::new((0, 1), None, Some(SECOND), None);
        assert!(pace.take(SECOND - 1).is_some() && pace.take(SECOND).is_none());
        assert_eq!(pace.left_behind(SECOND), 0);
    }
}
