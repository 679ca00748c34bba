//! The sending side of a connection: its replies, until they are safe and the client has read
//! them. Nothing here is shared between threads.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::buffers::{Rest, Share};
use super::due::Due;
use super::output::Output;
use super::pace::Pace;
use super::shared::{Client, Phase};
use super::socket::Writer;
use super::worker::Worker;
use crate::stats::Metric;

/// How long a client may leave its replies unread before it is given up.
const SEND_PATIENCE: Duration = Duration::from_mins(1);

/// The part of a connection that its worker sends for.
pub struct Connection {
    writer: Writer,
    client: Arc<Client>,
    output: RefCell<Output>,
    /// What the replies take of all clients' memory.
    share: RefCell<Share>,
    pace: Pace,
    state: Cell<State>,
    /// The task waits for the state to be idle.
    awaited: Cell<bool>,
    idle: Notify,
    /// Nothing more is read: the server stops, or the client was silent for too long.
    closing: Cell<bool>,
    /// No further request is executed, not even one that has arrived.
    given_up: Cell<bool>,
    /// How many times more others go first.
    courtesy: Cell<u8>,
    /// Replies that the client does not read are not waited for any longer.
    abandoned: Notify,
    /// When it must have said who it is; nothing is due once it has, or while that is looked at.
    login: Due,
    /// The same for a request that holds memory which others wait for.
    large_request: Due,
    /// The same for any other request that has begun to arrive.
    small_request: Due,
    /// Wakes the task while it waits for input.
    reading: RefCell<Option<Waker>>,
    /// The task waits for input, and for nothing else.
    awaits_input: Cell<bool>,
    /// When it was last seen at work for its client, in seconds since the server's start.
    busy_s: Cell<u64>,
}

/// Where the replies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There are none.
    Idle,
    /// They wait for the end of the turn.
    Queued,
    /// They wait for a sync.
    Held,
    /// They wait for the client to read.
    Sending,
}

/// How often others go first after a request that took long: with many of them there is always
/// one that could.
const COURTESY: u8 = 4;

impl Connection {
    /// A connection without replies.
    pub fn new(writer: Writer, client: Arc<Client>, share: Share) -> Self {
        Self {
            writer,
            client,
            output: RefCell::default(),
            share: RefCell::new(share),
            pace: Pace::default(),
            state: Cell::new(State::Idle),
            awaited: Cell::new(false),
            idle: Notify::new(),
            closing: Cell::new(false),
            given_up: Cell::new(false),
            courtesy: Cell::new(0),
            abandoned: Notify::new(),
            login: Due::default(),
            large_request: Due::default(),
            small_request: Due::default(),
            reading: RefCell::default(),
            awaits_input: Cell::new(false),
            busy_s: Cell::new(0),
        }
    }

    /// As the other threads see it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The unsent replies.
    pub fn output(&self) -> &RefCell<Output> {
        &self.output
    }

    /// Takes note of the memory that the replies hold now: due whenever it has changed.
    pub fn count(&self, output: &Output) {
        self.share.borrow_mut().set(output.capacity());
    }

    /// The same, and of what is still to be written.
    pub fn count_all(&self, output: &Output, rest: Rest) {
        self.share.borrow_mut().set_all(output.capacity(), rest);
    }

    /// Once a second: true if the client reads its replies too slowly for times when others need
    /// the memory.
    pub fn reads_too_slowly(&self) -> bool {
        let is_awaited = self.state.get() == State::Sending;
        let owes = self.share.borrow().takes_some();
        self.pace.is_slow(owes, is_awaited)
    }

    /// A request has kept the worker from others for milliseconds.
    pub fn took_long(&self) {
        self.courtesy.set(COURTESY);
    }

    /// True some times after that.
    pub fn lets_others_first(&self) -> bool {
        let left = self.courtesy.get().checked_sub(1);
        left.inspect(|left| self.courtesy.set(*left)).is_some()
    }

    /// Nothing more is read; what has been read is finished.
    pub fn close(&self) {
        self.closing.set(true);
        if let Some(waker) = self.reading.take() {
            waker.wake();
        }
    }

    /// When the client must have said who it is.
    pub fn login(&self) -> &Due {
        &self.login
    }

    /// When a request that has been given memory must have arrived.
    pub fn large_request(&self) -> &Due {
        &self.large_request
    }

    /// When any other request that has begun to arrive must have.
    pub fn small_request(&self) -> &Due {
        &self.small_request
    }

    /// True if nothing more is read.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Tells the client that nothing more will come.
    pub fn finish(&self) -> io::Result<()> {
        self.writer.finish()
    }

    /// For how many seconds it has had nothing to do but wait for the client's next word. What
    /// is being sent, looked up or asked for counts as work, however long it takes.
    pub fn silent_s(&self, now_s: u64) -> u64 {
        if self.state.get() != State::Idle || !self.awaits_input.get() {
            self.busy_s.set(now_s);
        }
        let last_s = self.client.last_heard_s.load(Relaxed);
        now_s.saturating_sub(last_s.max(self.busy_s.get()))
    }

    /// Closes without waiting for the client to read its replies.
    pub fn abandon(&self) {
        self.close();
        if self.state.get() == State::Sending {
            self.abandoned.notify_one();
        }
    }

    /// True once: the replies wait for the end of the turn from now on.
    pub fn enqueue(&self) -> bool {
        let was_idle = self.state.get() == State::Idle;
        if was_idle {
            self.state.set(State::Queued);
        }
        was_idle
    }

    /// The replies wait for a sync from now on.
    pub fn hold(&self) {
        self.state.set(State::Held);
        self.client.enter(Phase::Wait);
    }

    /// Sends the replies; in the background if the client does not read them at once.
    pub fn send(self: &Rc<Self>, worker: &Rc<Worker>) {
        match self.try_send(worker) {
            Poll::Ready(()) => {
                worker.take_back(self);
                self.be_idle();
            }
            Poll::Pending => {
                self.state.set(State::Sending);
                self.client.enter(Phase::Write);
                let (connection, worker) = (Rc::clone(self), Rc::clone(worker));
                tokio::task::spawn_local(async move {
                    while connection.is_writable().await
                        && connection.try_send(&worker).is_pending()
                    {}
                    worker.take_back(&connection);
                    connection.be_idle();
                });
            }
        }
    }

    /// Waits until the client has read something. False if it is gone or does not read: what is
    /// unsent is thrown away and the connection closes.
    async fn is_writable(&self) -> bool {
        let alive = tokio::select! {
            writable = self.writer.writable() => writable.is_ok(),
            () = self.abandoned.notified() => false,
            () = tokio::time::sleep(SEND_PATIENCE) => {
                tracing::info!(client = %self.client.peer, "closed: replies are not read");
                false
            }
        };
        if !alive {
            self.give_up();
        }
        alive
    }

    /// Throws the replies away: the client is gone or does not read them.
    pub fn give_up(&self) {
        let mut output = self.output.borrow_mut();
        *output = Output::default();
        self.count(&output);
        self.closing.set(true);
        self.given_up.set(true);
    }

    /// The client is gone, or its replies could not be made good: nothing more is executed.
    pub fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    /// The replies were spoiled by a failed storage: what is sent is sent, then it closes.
    pub fn spoil(&self) {
        self.close();
        self.given_up.set(true);
    }

    /// Ready when everything has been sent or the client is gone.
    fn try_send(&self, worker: &Worker) -> Poll<()> {
        let mut output = self.output.borrow_mut();
        loop {
            let all = output.unsent().is_empty();
            let sent = if all {
                self.writer.try_flush().map(|()| 0)
            } else {
                self.writer.try_write(output.unsent())
            };
            match sent {
                Ok(_) if all => break,
                Ok(count) => {
                    worker.tally().add(Metric::BytesWritten, count as u64);
                    output.mark_sent(count);
                    self.pace.add(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(_) => {
                    drop(output);
                    self.give_up();
                    break;
                }
            }
        }
        Poll::Ready(())
    }

    fn be_idle(&self) {
        let was = self.state.replace(State::Idle);
        if matches!(was, State::Held | State::Sending) {
            self.client.enter(Phase::Read);
        }
        if self.awaited.get() {
            self.idle.notify_one();
        }
    }

    /// Waits until the replies have been sent.
    pub async fn idle(&self) {
        while self.state.get() != State::Idle {
            self.awaited.set(true);
            self.idle.notified().await;
            self.awaited.set(false);
        }
    }

    /// Replies wait for something slower than the end of the turn.
    pub fn is_behind(&self) -> bool {
        matches!(self.state.get(), State::Held | State::Sending)
    }

    /// The task has input, or waits for something else.
    pub fn resume(&self) {
        self.awaits_input.set(false);
    }

    /// The task waits for input: has [`Self::close`] wake it.
    pub fn remember(&self, cx: &Context<'_>) {
        self.awaits_input.set(true);
        let mut reading = self.reading.borrow_mut();
        if !reading
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *reading = Some(cx.waker().clone());
        }
    }
}
