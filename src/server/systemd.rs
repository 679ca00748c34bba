//! What the service manager is told. Without `NOTIFY_SOCKET` in the environment each call does
//! nothing.
//!
//! Invariant: a manager that cannot be reached never disturbs the service. Called by `server`.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::Tick;

/// The start or the reload is complete.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload has begun; [`ready`] ends it. The manager takes it only with a time stamp.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock for the service manager"),
    }
}

/// The stop has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// How often the manager is asked to wait.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How much longer it may take, from then on.
const EXTEND: Duration = Duration::from_secs(30);

/// Has the manager wait for a start or a reload that takes a while.
#[derive(Default)]
pub struct Patience {
    asked: Option<Tick>,
}

impl Patience {
    /// It goes on: asks for more time, if it is time to. False if it is not yet.
    pub fn ask(&mut self) -> bool {
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return false;
        }
        self.asked = Some(Tick::now());
        let usec = u32::try_from(EXTEND.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::ExtendTimeoutUsec(usec)]);
        true
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be reached");
    }
}
