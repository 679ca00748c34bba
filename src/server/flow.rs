//! What a conversation asks of its connection when its turn ends.

/// What the connection does after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Everything that has arrived is done: read on.
    Read,
    /// There are too many unsent replies, or the others have waited for long enough: send, then
    /// go on with the rest of the input.
    Later,
    /// Send the replies and close.
    Close,
    /// Read the values that the session says are cold, hand them to it, then go on with the rest
    /// of the input.
    Cold,
    /// Wait until others have read enough of their replies that there is room for what the next
    /// request may find, then go on with the rest of the input.
    Crowded,
    /// Check the credentials that were given, tell the session, then go on with the rest of the
    /// input.
    Login,
    /// As HUP; answer, then go on with the rest of the input.
    Reopen,
    /// Write a snapshot; answer, then go on with the rest of the input.
    Snapshot,
    /// As TERM; answer.
    Terminate,
}
