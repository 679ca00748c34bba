//! One connection: read what has arrived, execute all of it, leave the replies to the end of
//! the worker's turn. A task on its worker's thread; nothing here is shared between threads.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::sync::{Notify, oneshot};

use super::output::Output;
use super::session::{Flow, Session};
use super::shared::Client;
use super::socket::{Reader, Writer};
use super::upkeep::{Asked, Order};
use super::worker::Worker;
use crate::limits::BUFFER_BYTES_KEPT;
use crate::protocol::memcached::encode;
use crate::stats::Metric;

/// How long a closing connection waits for the client to close its side, so that the last reply
/// is not lost to a reset.
const LINGER: Duration = Duration::from_millis(500);

/// How long a client may leave its replies unread before it is given up.
const SEND_PATIENCE: Duration = Duration::from_mins(1);

/// The part of a connection that its worker sends for.
pub struct Connection {
    writer: Writer,
    client: Arc<Client>,
    output: RefCell<Output>,
    state: Cell<State>,
    /// The task waits for the state to be idle.
    awaited: Cell<bool>,
    idle: Notify,
    /// Nothing more is read: the server stops, or the client was silent for too long.
    closing: Cell<bool>,
    /// No further request is executed, not even one that has arrived.
    given_up: Cell<bool>,
    /// Replies that the client does not read are not waited for any longer.
    abandoned: Notify,
    /// Wakes the task while it waits for input.
    reading: RefCell<Option<Waker>>,
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

impl Connection {
    /// A connection without replies.
    pub fn new(writer: Writer, client: Arc<Client>) -> Self {
        Self {
            writer,
            client,
            output: RefCell::default(),
            state: Cell::new(State::Idle),
            awaited: Cell::new(false),
            idle: Notify::new(),
            closing: Cell::new(false),
            given_up: Cell::new(false),
            abandoned: Notify::new(),
            reading: RefCell::default(),
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

    /// Nothing more is read; what has been read is finished.
    pub fn close(&self) {
        self.closing.set(true);
        if let Some(waker) = self.reading.take() {
            waker.wake();
        }
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
    }

    /// Sends the replies; in the background if the client does not read them at once.
    pub fn send(self: &Rc<Self>, worker: &Rc<Worker>) {
        match self.try_send(worker) {
            Poll::Ready(()) => self.be_idle(),
            Poll::Pending => {
                self.state.set(State::Sending);
                let (connection, worker) = (Rc::clone(self), Rc::clone(worker));
                tokio::task::spawn_local(async move {
                    while connection.is_writable().await
                        && connection.try_send(&worker).is_pending()
                    {}
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
                tracing::info!(client = %self.client.peer.name, "closed: replies are not read");
                false
            }
        };
        if !alive {
            self.give_up();
        }
        alive
    }

    fn give_up(&self) {
        *self.output.borrow_mut() = Output::default();
        self.closing.set(true);
        self.given_up.set(true);
    }

    /// The client is gone, or its replies could not be made good: nothing more is executed.
    fn is_given_up(&self) -> bool {
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
        while !output.unsent().is_empty() {
            match self.writer.try_write(output.unsent()) {
                Ok(count) => {
                    worker.tally().add(Metric::BytesWritten, count as u64);
                    output.mark_sent(count);
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
        self.state.set(State::Idle);
        if self.awaited.get() {
            self.idle.notify_one();
        }
    }

    /// Waits until the replies have been sent.
    async fn idle(&self) {
        while self.state.get() != State::Idle {
            self.awaited.set(true);
            self.idle.notified().await;
            self.awaited.set(false);
        }
    }

    /// Replies wait for something slower than the end of the turn.
    fn is_behind(&self) -> bool {
        matches!(self.state.get(), State::Held | State::Sending)
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut reading = self.reading.borrow_mut();
        if !reading
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *reading = Some(cx.waker().clone());
        }
    }
}

/// The task of a connection.
pub struct Task {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    reader: Reader,
    session: Session,
    /// What has arrived and is not a whole request yet, or has to wait.
    input: Vec<u8>,
}

/// What reading gave.
enum Arrived {
    /// Something, but earlier replies are still held or unsent: requests wait for them, so that
    /// nothing leaves with them before its own turn has ended.
    Behind,
    /// Requests, which have been executed. `all` that one turn takes: there may be more.
    Input { flow: Flow, all: bool },
    /// The client has closed its side, or the connection is to close.
    End,
}

impl Task {
    /// The task of `connection`, which reads from `reader`.
    pub fn new(worker: Rc<Worker>, connection: Rc<Connection>, reader: Reader) -> Self {
        let session = Session::new(connection.client.peer.clone());
        Self {
            worker,
            connection,
            reader,
            session,
            input: Vec::new(),
        }
    }

    /// Serves until the client or the server ends it.
    pub async fn run(mut self) {
        let mut flow = Flow::Read;
        loop {
            flow = match flow {
                Flow::Read => match poll_fn(|cx| self.poll_input(cx)).await {
                    Ok(Arrived::Input { flow, all }) => {
                        if all {
                            // One read a turn: the others have theirs first.
                            tokio::task::yield_now().await;
                        }
                        flow
                    }
                    Ok(Arrived::Behind) => {
                        self.connection.idle().await;
                        Flow::Read
                    }
                    Ok(Arrived::End) => Flow::Close,
                    Err(_) => return,
                },
                Flow::Later => {
                    self.connection.idle().await;
                    // The others have their turn first.
                    tokio::task::yield_now().await;
                    if self.connection.is_given_up() {
                        return;
                    }
                    self.advance_rest()
                }
                Flow::Cold => {
                    self.read_cold().await;
                    if self.connection.is_given_up() {
                        return;
                    }
                    self.advance_rest()
                }
                Flow::Reopen => {
                    self.connection.idle().await;
                    self.ask_upkeep("reopen", Order::Reload).await;
                    self.advance_rest()
                }
                Flow::Snapshot => {
                    self.connection.idle().await;
                    self.ask_upkeep("snapshot", Order::Snapshot).await;
                    self.advance_rest()
                }
                Flow::Terminate => {
                    self.answer(|out| out.extend_from_slice(b"OK\r\n"));
                    self.worker.shared().order(Order::Terminate);
                    Flow::Close
                }
                Flow::Close => {
                    self.connection.idle().await;
                    return self.linger().await;
                }
            }
        }
    }

    /// Reads once and executes what has arrived.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrived>> {
        if self.connection.is_behind() {
            return Poll::Ready(Ok(Arrived::Behind));
        }
        let worker = Rc::clone(&self.worker);
        let mut scratch = worker.scratch();
        let mut buf = ReadBuf::new(&mut scratch);
        if self.reader.poll_read(cx, &mut buf)?.is_pending() {
            if self.connection.closing.get() {
                return Poll::Ready(Ok(Arrived::End));
            }
            self.connection.remember(cx);
            return Poll::Pending;
        }
        let arrived = buf.filled();
        if arrived.is_empty() {
            return Poll::Ready(Ok(Arrived::End));
        }
        let all = buf.remaining() == 0;
        worker.tally().add(Metric::BytesRead, arrived.len() as u64);
        self.connection
            .client
            .last_heard_s
            .store(worker.shared().uptime_s(), Relaxed);
        let mut flow = if self.input.is_empty() {
            let (taken, flow) = worker.advance(&self.connection, &mut self.session, arrived);
            self.input
                .extend_from_slice(arrived.get(taken..).unwrap_or_default());
            flow
        } else {
            self.input.extend_from_slice(arrived);
            self.advance_rest()
        };
        if flow == Flow::Read && self.connection.closing.get() {
            flow = Flow::Close;
        }
        Poll::Ready(Ok(Arrived::Input { flow, all }))
    }

    /// Executes what is left of the input.
    fn advance_rest(&mut self) -> Flow {
        let (taken, flow) = self
            .worker
            .advance(&self.connection, &mut self.session, &self.input);
        if taken < self.input.len() {
            self.input.drain(..taken);
        } else {
            self.input.clear();
            self.input.shrink_to(BUFFER_BYTES_KEPT);
        }
        flow
    }

    fn answer(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.connection.output.borrow_mut().bytes());
        self.worker.enqueue(&self.connection);
    }

    /// Reads the values that the conversation waits for, on another thread. What it has said so
    /// far is sent meanwhile.
    async fn read_cold(&mut self) {
        let cold = self.session.cold();
        let shared = self.worker.shared_arc();
        let reading = tokio::task::spawn_blocking(move || {
            let engine = shared.engine();
            cold.iter().map(|cold| engine.read_cold(cold)).collect()
        });
        self.connection.idle().await;
        match reading.await {
            Ok(read) => self
                .session
                .thaw(self.worker.shared(), self.worker.tally(), read),
            // The runtime is ending.
            Err(_) => self.connection.give_up(),
        }
    }

    /// Gives the upkeep thread an order; the answer comes when it is carried out.
    async fn ask_upkeep(&self, verb: &str, order: fn(Option<Asked>) -> Order) {
        tracing::info!(client = %self.connection.client.peer.name, "{verb}: a client asks");
        let (done, result) = oneshot::channel();
        let ordered = self.worker.shared().order(order(Some(done)));
        let result = if ordered { result.await.ok() } else { None };
        self.answer(|out| match result {
            Some(Ok(())) => out.extend_from_slice(b"OK\r\n"),
            Some(Err(error)) => encode::write_line(format_args!("SERVER_ERROR {error}"), out),
            None => out.extend_from_slice(b"SERVER_ERROR the server is stopping\r\n"),
        });
    }

    /// Closes so that the last replies arrive: a socket closed with unread input would be reset,
    /// and the client could lose what was sent before.
    async fn linger(mut self) {
        if self.connection.writer.finish().is_err() {
            return;
        }
        let worker = Rc::clone(&self.worker);
        let until_end = poll_fn(|cx| {
            loop {
                let mut scratch = worker.scratch();
                let mut buf = ReadBuf::new(&mut scratch);
                match self.reader.poll_read(cx, &mut buf) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
        });
        let _ = tokio::time::timeout(LINGER, until_end).await;
    }
}
