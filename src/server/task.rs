//! The reading side of a connection: read what has arrived, execute all of it, leave the replies
//! to the end of the worker's turn. A task on its worker's thread.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::connection::Connection;
use super::entrance::Credentials;
use super::logins::Login;
use super::session::{Flow, Session};
use super::shared::Phase;
use super::socket::Reader;
use super::upkeep::{Asked, Order};
use super::worker::Worker;
use crate::clock::Tick;
use crate::limits::{BUFFER_BYTES_FREE, LOGIN_BYTES_MAX, LONG_LINE_BYTES_MAX, READ_BYTES};
use crate::protocol::memcached::encode;
use crate::stats::Metric;

/// How long a closing connection waits for the client to close its side, so that the last reply
/// is not lost to a reset.
const LINGER: Duration = Duration::from_millis(500);

/// How long a small request may take to arrive, how long a large one may hold memory that others
/// wait for, and how long one waits for it.
const REQUEST_PATIENCE: Duration = Duration::from_mins(1);

/// What a client hears whose request found no memory in that time, as from memcached.
const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory reading request\r\n";

/// The same for the reply to a retrieval.
const NO_MEMORY_TO_REPLY: &[u8] = b"SERVER_ERROR out of memory writing get response\r\n";

/// How often a retrieval looks whether there is room for its reply.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A fan-out over more counters takes milliseconds, which nobody is to wait for twice.
const LONG_FAN_OUT: u64 = 100_000;

/// How long a client has to say who it is.
const LOGIN_PATIENCE: Duration = Duration::from_secs(10);

/// The task of a connection.
pub struct Task {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    reader: Reader,
    session: Session,
    /// What has arrived and is not a whole request yet, or has to wait.
    input: Vec<u8>,
    /// Room among all clients' memory for the request that is arriving.
    admitted: Option<OwnedSemaphorePermit>,
}

/// What reading gave.
enum Arrived {
    /// Something, but earlier replies are still held or unsent: requests wait for them, so that
    /// nothing leaves with them before its own turn has ended.
    Behind,
    /// Requests, which have been executed. `all` that one turn takes: there may be more.
    Input { flow: Flow, all: bool },
    /// Nothing: what is arriving is large and there is no memory for it.
    Crowded,
    /// The client has closed its side, or the connection is to close.
    End,
}

/// When a client that begins now, or tries again, must have said who it is.
fn login_due_s(worker: &Worker) -> u64 {
    worker.shared().uptime_s() + LOGIN_PATIENCE.as_secs()
}

impl Task {
    /// The task of `connection`, which reads from `reader`.
    pub fn new(worker: Rc<Worker>, connection: Rc<Connection>, reader: Reader) -> Self {
        let must_log_in = connection.client().must_log_in;
        if must_log_in {
            connection.login().set(Some(login_due_s(&worker)));
        }
        let session = Session::new(connection.client().peer.clone(), must_log_in);
        Self {
            worker,
            connection,
            reader,
            session,
            input: Vec::new(),
            admitted: None,
        }
    }

    /// Serves until the client or the server ends it.
    pub async fn run(&mut self) {
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
                        // Nothing is read meanwhile: the rest of a request may have come.
                        self.connection.small_request().set(None);
                        self.connection.idle().await;
                        self.note_begun(Flow::Read);
                        Flow::Read
                    }
                    Ok(Arrived::Crowded) => Box::pin(self.wait_for_room()).await,
                    Ok(Arrived::End) => Flow::Close,
                    Err(_) => return,
                },
                Flow::Later | Flow::Cold | Flow::Crowded => {
                    let is_clear = self.clear_the_way(flow).await;
                    if self.connection.is_given_up() {
                        return;
                    }
                    if is_clear {
                        self.advance_rest()
                    } else {
                        Flow::Close
                    }
                }
                Flow::Login => {
                    let flow = self.log_in().await;
                    if self.connection.is_given_up() {
                        return;
                    }
                    if flow == Flow::Read {
                        self.advance_rest()
                    } else {
                        flow
                    }
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
                    return Box::pin(self.linger()).await;
                }
            }
        }
    }

    /// Waits for what is in the way of the rest of the input; false if it stays there.
    async fn clear_the_way(&mut self, flow: Flow) -> bool {
        match flow {
            Flow::Cold => self.read_cold().await,
            Flow::Crowded => return Box::pin(self.wait_to_reply()).await,
            _ => {
                self.connection.idle().await;
                // The others have their turn first.
                tokio::task::yield_now().await;
            }
        }
        true
    }

    /// Reads once and executes what has arrived.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrived>> {
        self.connection.resume();
        if self.connection.is_behind() {
            return Poll::Ready(Ok(Arrived::Behind));
        }
        if self.worker.is_in_turn() && self.connection.lets_others_first() {
            // What they have been answered leaves before the next long request begins.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(room) = self.room_to_read() else {
            return Poll::Ready(Ok(Arrived::Crowded));
        };
        let worker = Rc::clone(&self.worker);
        let mut scratch = worker.scratch();
        let mut buf = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
        if self.reader.poll_read(cx, &mut buf)?.is_pending() {
            if self.connection.is_closing() {
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
            .client()
            .last_heard_s
            .store(worker.shared().uptime_s(), Relaxed);
        let counters = worker.tally().get(Metric::FanOutCounters);
        let mut flow = if self.input.is_empty() {
            let (taken, flow) = worker.advance(&self.connection, &mut self.session, arrived);
            if let Some(rest @ [_, ..]) = arrived.get(taken..) {
                self.keep(rest);
                self.enter_reading();
            }
            self.note_begun(flow);
            flow
        } else {
            self.keep(arrived);
            self.advance_rest()
        };
        if worker.tally().get(Metric::FanOutCounters) - counters > LONG_FAN_OUT {
            self.connection.took_long();
        }
        if flow == Flow::Read && self.connection.is_closing() {
            flow = Flow::Close;
        }
        Poll::Ready(Ok(Arrived::Input { flow, all }))
    }

    /// Takes note of a request that has begun to arrive, however little comes of it at a time. One
    /// that all was taken of has ended it.
    fn note_begun(&self, flow: Flow) {
        if flow != Flow::Read || self.input.is_empty() || self.admitted.is_some() {
            self.connection.small_request().set(None);
        } else if !self.connection.small_request().is_set() {
            let shared = self.worker.shared();
            let limit = shared.config().idle_timeout.unwrap_or(REQUEST_PATIENCE);
            let due_s = shared.uptime_s() + limit.min(REQUEST_PATIENCE).as_secs();
            self.connection.small_request().set(Some(due_s));
        }
    }

    /// Executes what is left of the input.
    fn advance_rest(&mut self) -> Flow {
        let (taken, flow) = self
            .worker
            .advance(&self.connection, &mut self.session, &self.input);
        if taken > 0 {
            self.connection.small_request().set(None);
        }
        if taken < self.input.len() {
            self.input.drain(..taken);
        } else {
            self.input = Vec::new();
        }
        self.enter_reading();
        if self.admitted.is_some() && self.input.len() < BUFFER_BYTES_FREE {
            self.admitted = None;
            self.connection.large_request().set(None);
        }
        self.note_begun(flow);
        flow
    }

    /// Takes down whether a block is arriving, which is told where the rest of it is awaited.
    fn enter_reading(&self) {
        let in_block = !self.input.is_empty() && self.session.needed() > 0;
        let phase = if in_block {
            Phase::ReadBlock
        } else {
            Phase::Read
        };
        self.connection.client().enter(phase);
    }

    /// How much may be read now; `None` if a large request has to wait for memory.
    fn room_to_read(&mut self) -> Option<usize> {
        if self.session.entrance().is_some() {
            return Some(LOGIN_BYTES_MAX);
        }
        let free = self.worker.shared().buffers().input_free();
        if self.input.len() < free {
            let crowded = free < BUFFER_BYTES_FREE;
            return Some(if crowded {
                free - self.input.len()
            } else {
                READ_BYTES
            });
        }
        if self.admitted.is_none() {
            let admitted = self.worker.shared().buffers().try_admit(self.needed());
            self.be_admitted(admitted);
        }
        self.admitted.as_ref().map(|_| READ_BYTES)
    }

    /// How many bytes the request that is arriving may take.
    fn needed(&self) -> usize {
        match self.session.needed() {
            0 => LONG_LINE_BYTES_MAX,
            needed => needed,
        }
    }

    fn be_admitted(&mut self, admitted: Option<OwnedSemaphorePermit>) {
        self.admitted = admitted;
        let due_s = self.worker.shared().uptime_s() + REQUEST_PATIENCE.as_secs();
        let due_s = self.admitted.as_ref().map(|_| due_s);
        self.connection.large_request().set(due_s);
    }

    /// Waits for the memory that a large request takes.
    async fn wait_for_room(&mut self) -> Flow {
        self.connection.small_request().set(None);
        let shared = self.worker.shared_arc();
        let admitted = shared.buffers().admit(self.needed());
        let closing = async {
            // There is no hurry: who waits here has been refused nothing yet.
            while !self.connection.is_closing() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        self.connection.client().enter(Phase::Wait);
        let admitted = tokio::select! {
            admitted = tokio::time::timeout(REQUEST_PATIENCE, admitted) => admitted.ok().flatten(),
            () = closing => None,
        };
        self.enter_reading();
        self.be_admitted(admitted);
        if self.admitted.is_some() {
            return Flow::Read;
        }
        let client = &self.connection.client().peer;
        tracing::info!(%client, "closed: no memory for a large request");
        self.answer(|out| out.extend_from_slice(NO_MEMORY));
        Flow::Close
    }

    /// Waits for the memory that a retrieval's reply takes; false if there is none for long.
    async fn wait_to_reply(&mut self) -> bool {
        self.connection.idle().await;
        let shared = self.worker.shared_arc();
        let (buffers, needed) = (shared.buffers(), self.session.room_needed());
        let since = Tick::now();
        buffers.set_waiting(true);
        while !buffers.has_room(needed)
            && !self.connection.is_closing()
            && since.elapsed() < REQUEST_PATIENCE
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        buffers.set_waiting(false);
        let has_room = buffers.has_room(needed);
        if !has_room {
            let client = &self.connection.client().peer;
            tracing::info!(%client, "closed: no memory for the reply to a retrieval");
            self.answer(|out| out.extend_from_slice(NO_MEMORY_TO_REPLY));
        }
        has_room
    }

    /// Keeps what has arrived of a request; memory is taken as it comes, not as it is announced.
    fn keep(&mut self, arrived: &[u8]) {
        let length = self.input.len() + arrived.len();
        if length > self.input.capacity() {
            let doubled = length.next_power_of_two();
            let needed = self.session.needed();
            let enough = if needed > length {
                doubled.min(needed)
            } else {
                doubled
            };
            self.input.reserve_exact(enough - self.input.len());
        }
        self.input.extend_from_slice(arrived);
    }

    fn answer(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut output = self.connection.output().borrow_mut();
        write(output.bytes());
        self.connection.count(&output);
        drop(output);
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
        self.connection.client().enter(Phase::WaitForFile);
        match reading.await {
            Ok(read) => self
                .session
                .thaw(self.worker.shared(), self.worker.tally(), read),
            // The runtime is ending.
            Err(_) => self.connection.give_up(),
        }
    }

    fn credentials(&mut self) -> Option<Credentials> {
        self.session.entrance()?.credentials()
    }

    /// Has the password checked on another thread. The client may hang up its side meanwhile and
    /// still wait for the answers, so the end of its input ends nothing here.
    async fn log_in(&mut self) -> Flow {
        self.connection.login().set(None);
        let shared = self.worker.shared_arc();
        let (checked, result) = oneshot::channel();
        let asked = match (shared.logins(), shared.access().users()) {
            (Some(logins), Some(users)) => self.credentials().is_some_and(|login| {
                logins.check(Login {
                    users,
                    user: login.user,
                    password: login.password,
                    checked,
                })
            }),
            (None | Some(_), _) => false,
        };
        let allowed = if asked { result.await.ok() } else { None };
        let mut output = self.connection.output().borrow_mut();
        let (shared, tally) = (self.worker.shared(), self.worker.tally());
        let flow = self.session.checked(shared, tally, allowed, &mut output);
        self.connection.count(&output);
        drop(output);
        self.worker.enqueue(&self.connection);
        if self.session.entrance().is_some() {
            let due_s = login_due_s(&self.worker);
            self.connection.login().set(Some(due_s));
        }
        flow
    }

    /// Gives the upkeep thread an order; the answer comes when it is carried out.
    async fn ask_upkeep(&self, verb: &str, order: fn(Option<Asked>) -> Order) {
        tracing::info!(client = %self.connection.client().peer, "{verb}: a client asks");
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
    async fn linger(&mut self) {
        if self.connection.finish().is_err() {
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
