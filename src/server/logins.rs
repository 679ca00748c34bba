//! The threads that check passwords: two at once, so that however many clients log in, those that
//! are served have the processor; and a queue with an end, so that waiting takes no memory to
//! speak of.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::users::Users;

/// How many passwords are checked at the same time. Each takes 19 MiB for some 20 ms.
const AT_ONCE: usize = 2;

/// How many may wait.
const WAITING_MAX: usize = 4096;

/// The way to the threads.
pub struct Logins(SyncSender<Login>);

/// A login to be checked.
pub struct Login {
    /// The users of now.
    pub users: Arc<Users>,
    /// Who it says it is.
    pub user: Box<[u8]>,
    /// The password.
    pub password: Box<[u8]>,
    /// Hears whether it is right.
    pub checked: oneshot::Sender<bool>,
}

impl Logins {
    /// Starts the threads. They end with this.
    pub fn start() -> io::Result<Self> {
        let (logins, waiting) = sync_channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..AT_ONCE {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new()
                .name(format!("logins-{number}"))
                .spawn(move || check_all(&waiting))?;
        }
        Ok(Self(logins))
    }

    /// Has a login checked. False if too many wait already.
    pub fn check(&self, login: Login) -> bool {
        self.0.try_send(login).is_ok()
    }
}

fn check_all(waiting: &Mutex<Receiver<Login>>) {
    loop {
        // Whoever waits for the next login holds the lock; the other thread is at work or waits
        // for the lock.
        let next = waiting.lock().recv();
        let Ok(login) = next else {
            return;
        };
        if login.checked.is_closed() {
            continue;
        }
        let allowed = login.users.allow(&login.user, &login.password);
        // The client may have gone.
        let _ = login.checked.send(allowed);
    }
}
