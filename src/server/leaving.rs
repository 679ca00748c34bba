//! The thread that lets large values leave memory once they last: after each sync, so that
//! neither the sync thread nor a worker has to.

use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};

use super::shared::Shared;

/// Starts the thread. It ends when nothing else uses what the threads share.
pub fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let (wake, woken) = sync_channel(1);
    let waker = Arc::new(move || {
        // One waiting call is enough for all syncs until it is answered.
        let _ = wake.try_send(());
    });
    shared.engine().journal().subscribe_leaving(waker);
    let shared: Weak<Shared> = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("leaving".into())
        .spawn(move || {
            while woken.recv().is_ok() {
                if let Some(shared) = shared.upgrade() {
                    shared.engine().put_away();
                }
            }
        })?;
    Ok(())
}
