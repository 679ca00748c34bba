//! A worker: one thread, one runtime, its connections. The heart is the end of the turn: when
//! every connection that was ready has been executed, the journal's buffer is written once and
//! then all replies leave.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::connection::Connection;
use super::output::Output;
use super::session::{Flow, Session};
use super::shared::{Client, Shared};
use super::socket::{Accepted, Reader};
use super::task::Task;
use crate::clock::Tick;
use crate::engine::Turn;
use crate::journal::Failed;
use crate::limits::{BUFFER_BYTES_FREE, READ_BYTES};
use crate::stats::{Metric, Tally};

/// How long a stopping worker waits for its connections.
const DRAIN: Duration = Duration::from_secs(3);

/// How many connections' buffers for replies are kept for others.
const SPARE_OUTPUTS: usize = 64;

/// How often a turn's end is put off while another worker writes the journal.
const FLUSH_TRIES: usize = 4;

/// How many threads read values from files for one worker.
const READERS: usize = 8;

/// What a worker is told.
pub enum Message {
    /// A client for it.
    Client {
        /// The connection's number.
        number: u64,
        /// Its socket.
        socket: Accepted,
        /// As the other threads see it.
        client: Arc<Client>,
    },
    /// Finish what was received, and end.
    Stop,
}

/// A worker as the acceptor sees it.
pub struct Handle {
    messages: UnboundedSender<Message>,
    /// How many connections it has.
    load: Arc<AtomicUsize>,
}

impl Handle {
    /// How many connections the worker has.
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// Tells the worker something. A client counts at once, so that the next one goes elsewhere.
    pub fn tell(&self, message: Message) {
        if matches!(message, Message::Client { .. }) {
            self.load.fetch_add(1, Relaxed);
        }
        // A worker ends only when it is told to, after which it is told nothing more.
        let _ = self.messages.send(message);
    }
}

/// The worker that has the fewest connections.
pub fn least_loaded(workers: &[Handle]) -> Option<&Handle> {
    workers.iter().min_by_key(|worker| worker.load())
}

/// A worker, on its own thread.
pub struct Worker {
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    load: Arc<AtomicUsize>,
    turn: RefCell<Turn>,
    /// A turn has begun and not ended.
    in_turn: Cell<bool>,
    turn_begun: Notify,
    scratch: RefCell<Box<[u8]>>,
    /// Memory for replies that no connection holds now.
    spare_outputs: RefCell<Vec<Output>>,
    /// Connections with replies of this turn.
    queued: RefCell<Vec<Rc<Connection>>>,
    /// Connections whose replies wait for a sync.
    held: RefCell<Vec<Rc<Connection>>>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    /// The requests whose time has been counted.
    timed_requests: Cell<u64>,
    connection_ended: Notify,
}

/// Starts worker `number` on a thread of its own.
pub fn start(
    shared: &Arc<Shared>,
    number: usize,
) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
    let (messages, inbox) = tokio::sync::mpsc::unbounded_channel();
    let load = Arc::new(AtomicUsize::new(0));
    let handle = Handle {
        messages,
        load: Arc::clone(&load),
    };
    let shared = Arc::clone(shared);
    let (tell, started) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            // It stays on the thread that makes it.
            let runtime = match runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            drop(tell.send(Ok(())));
            let tally = shared.tallies().get(number).cloned().unwrap_or_default();
            run_to_end(runtime, Worker::run(shared, tally, load, inbox));
        })?;
    started.recv().map_err(std::io::Error::other)??;
    Ok((handle, thread))
}

fn runtime() -> std::io::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READERS)
        .build_local(LocalOptions::default())
}

/// Runs `work`. A value that is still being read from a file then is not waited for: a disk that
/// hangs must not keep the server from stopping.
fn run_to_end(runtime: LocalRuntime, work: impl Future<Output = ()>) {
    runtime.block_on(work);
    runtime.shutdown_background();
}

impl Worker {
    async fn run(
        shared: Arc<Shared>,
        tally: Arc<Tally>,
        load: Arc<AtomicUsize>,
        mut inbox: UnboundedReceiver<Message>,
    ) {
        let synced = Arc::new(Notify::new());
        let waker = Arc::clone(&synced);
        shared
            .engine()
            .journal()
            .subscribe(Arc::new(move || waker.notify_one()));
        let worker = Rc::new(Self {
            turn: RefCell::new(shared.engine().turn()),
            shared,
            tally,
            load,
            in_turn: Cell::new(false),
            turn_begun: Notify::new(),
            scratch: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            spare_outputs: RefCell::default(),
            queued: RefCell::default(),
            held: RefCell::default(),
            connections: RefCell::default(),
            timed_requests: Cell::new(0),
            connection_ended: Notify::new(),
        });
        tokio::task::spawn_local(Rc::clone(&worker).end_turns());
        tokio::task::spawn_local(Rc::clone(&worker).release_synced(synced));
        tokio::task::spawn_local(Rc::clone(&worker).close_silent());
        while let Some(message) = inbox.recv().await {
            match message {
                Message::Client {
                    number,
                    socket,
                    client,
                } => worker.admit(number, socket, client),
                Message::Stop => break,
            }
        }
        worker.drain().await;
    }

    /// What all threads share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The same, for another thread.
    pub fn shared_arc(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// This worker's counters.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The buffer that all connections of this worker read into.
    pub fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    /// Takes a client in, and leaves it to a task of its own.
    fn admit(self: &Rc<Self>, number: u64, socket: Accepted, client: Arc<Client>) {
        match socket.split() {
            Ok((reader, writer)) => {
                let share = self.shared.buffers().share();
                let connection = Rc::new(Connection::new(writer, client, share));
                self.connections
                    .borrow_mut()
                    .insert(number, Rc::clone(&connection));
                tokio::task::spawn_local(Rc::clone(self).serve(number, connection, reader));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was lost on the way");
                self.dismiss(number);
            }
        }
    }

    /// Serves a client to its end. What this future holds is most of what an idle client takes,
    /// so the task is made outside: an `async fn` has its arguments twice.
    fn serve(
        self: Rc<Self>,
        number: u64,
        connection: Rc<Connection>,
        reader: Reader,
    ) -> impl Future<Output = ()> {
        let mut task = Task::new(Rc::clone(&self), connection, reader);
        async move {
            task.run().await;
            drop(task);
            self.connections.borrow_mut().remove(&number);
            self.dismiss(number);
        }
    }

    /// A client has gone.
    fn dismiss(&self, number: u64) {
        self.load.fetch_sub(1, Relaxed);
        self.shared.leave(number);
        self.connection_ended.notify_one();
    }

    /// True if somebody's requests have been executed and the replies have not left.
    pub fn is_in_turn(&self) -> bool {
        self.in_turn.get()
    }

    /// Executes a connection's input as a part of this turn.
    pub fn advance(
        &self,
        connection: &Rc<Connection>,
        session: &mut Session,
        input: &[u8],
    ) -> (usize, Flow) {
        let mut turn = self.turn.borrow_mut();
        if !self.in_turn.get() {
            self.shared.engine().begin(&mut turn);
        }
        let mut output = connection.output().borrow_mut();
        if output.capacity() == 0
            && let Some(spare) = self.spare_outputs.borrow_mut().pop()
        {
            *output = spare;
        }
        output.set_room(self.shared.buffers().output_room());
        let (taken, flow) =
            session.advance(&self.shared, &mut turn, &self.tally, input, &mut output);
        let has_replies = !output.is_settled();
        connection.count_all(&output, session.rest());
        drop((turn, output));
        if has_replies {
            self.enqueue(connection);
        } else {
            self.take_back(connection);
        }
        (taken, flow)
    }

    /// Takes the memory of a connection's replies back once they have been sent: what is idle
    /// holds none, and the next one to reply finds it in the processor's cache.
    pub fn take_back(&self, connection: &Connection) {
        let mut output = connection.output().borrow_mut();
        if !output.is_settled() {
            return;
        }
        let used = std::mem::take(&mut *output);
        connection.count(&output);
        let mut spare = self.spare_outputs.borrow_mut();
        if used.capacity() <= BUFFER_BYTES_FREE && spare.len() < SPARE_OUTPUTS {
            spare.push(used);
        }
    }

    /// The connection's replies leave at the end of this turn. The first one has the turn end
    /// once every connection that is ready now has been executed: tasks run in the order in
    /// which they are woken.
    pub fn enqueue(&self, connection: &Rc<Connection>) {
        if connection.enqueue() {
            self.queued.borrow_mut().push(Rc::clone(connection));
        }
        if !self.in_turn.replace(true) {
            self.turn_begun.notify_one();
        }
    }

    async fn end_turns(self: Rc<Self>) {
        let mut queued = Vec::new();
        loop {
            self.turn_begun.notified().await;
            self.in_turn.set(false);
            std::mem::swap(&mut queued, &mut *self.queued.borrow_mut());
            let (tick, requests) = (self.turn.borrow().tick, self.tally.get(Metric::Requests));
            let failed = self.flush().await.is_err();
            for connection in queued.drain(..) {
                self.settle(connection, failed);
            }
            self.count_service_time(tick, requests);
        }
    }

    /// Writes what the turn has put into the journal's buffer. While another worker is writing,
    /// other connections are served.
    async fn flush(&self) -> Result<(), Failed> {
        let engine = self.shared.engine();
        for _ in 0..FLUSH_TRIES {
            if engine.try_flush()? {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
        engine.flush()
    }

    /// Sends a connection's replies, or has them wait for the sync that makes them true. If the
    /// storage has `failed`, reads are answered from memory, and what became of the writes
    /// nobody knows.
    fn settle(self: &Rc<Self>, connection: Rc<Connection>, failed: bool) {
        let mut output = connection.output().borrow_mut();
        if failed {
            if !output.fail_writes() {
                connection.spoil();
            }
            connection.count(&output);
        } else if self.must_wait(&output) {
            drop(output);
            connection.hold();
            self.held.borrow_mut().push(connection);
            return;
        }
        output.release();
        drop(output);
        connection.send(self);
    }

    fn must_wait(&self, output: &Output) -> bool {
        let journal = self.shared.engine().journal();
        journal.must_wait(output.seq(), output.acknowledges())
    }

    /// Lets held replies go when a sync is done, or when the storage has failed.
    async fn release_synced(self: Rc<Self>, synced: Arc<Notify>) {
        loop {
            synced.notified().await;
            let failed = self.shared.engine().journal().failed().is_some();
            let held = std::mem::take(&mut *self.held.borrow_mut());
            for connection in held {
                self.settle(connection, failed);
            }
        }
    }

    /// Counts the time of a turn that began at `tick`, for each of its requests, the last of which
    /// was the one of this number.
    fn count_service_time(&self, tick: Tick, requests: u64) {
        let before = self.timed_requests.replace(requests);
        let elapsed = u64::try_from(tick.elapsed().as_nanos());
        self.tally.add(
            Metric::ServiceNs,
            elapsed.unwrap_or(u64::MAX) * (requests - before),
        );
    }

    /// Closes connections that have been silent for too long, those that have not said who they
    /// are, and those that hold for too long what others need.
    async fn close_silent(self: Rc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let limit = self.shared.config().idle_timeout;
            let now = self.shared.uptime_s();
            for connection in self.connections.borrow().values() {
                let is_silent = limit.is_some_and(|it| connection.silent_s(now) > it.as_secs());
                let cause = self.overdue(connection, now);
                if let Some(cause) = cause {
                    tracing::info!(client = %connection.client().peer, "closed: {cause}");
                }
                if is_silent && !connection.is_closing() {
                    self.tally.add(Metric::IdleKicks, 1);
                }
                if is_silent || cause.is_some() || connection.login().is_over(now) {
                    connection.abandon();
                }
            }
        }
    }

    /// What a client has taken too long for.
    fn overdue(&self, connection: &Connection, now_s: u64) -> Option<&'static str> {
        let buffers = self.shared.buffers();
        // Not in the condition: it counts the seconds.
        let is_slow = connection.reads_too_slowly();
        if connection.large_request().is_over(now_s) && buffers.is_crowded() {
            Some("a large request does not arrive")
        } else if connection.small_request().is_over(now_s) {
            Some("a request does not arrive")
        } else if is_slow && buffers.must_be_read() {
            Some("replies are read too slowly")
        } else {
            None
        }
    }

    /// Finishes what was received, within a few seconds.
    async fn drain(&self) {
        for connection in self.connections.borrow().values() {
            connection.close();
        }
        let all_ended = async {
            while self.load.load(Relaxed) > 0 {
                self.connection_ended.notified().await;
            }
        };
        if tokio::time::timeout(DRAIN, all_ended).await.is_err() {
            tracing::warn!(
                left = self.load.load(Relaxed),
                "connections did not end in time"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_client_takes_little() {
        fn bytes<F>(_: impl FnOnce(Rc<Worker>, Rc<Connection>, Reader) -> F) -> usize {
            size_of::<F>()
        }
        let task = bytes(|worker, connection, reader| worker.serve(0, connection, reader));
        let (connection, client) = (size_of::<Connection>(), size_of::<Client>());
        // Of the 2 KiB that it may take in all. The runtime, the tables, and what the allocator
        // adds take as much again.
        assert!(
            task + connection + client <= 768,
            "{task} + {connection} + {client}"
        );
    }

    #[test]
    fn a_read_that_hangs_does_not_hold_up_the_end() {
        // The read hangs until this end is over, and for a while if that waits for it.
        let (release, hung) = mpsc::channel::<()>();
        let (done, read) = mpsc::channel();
        run_to_end(runtime().unwrap(), async {
            tokio::task::spawn_blocking(move || {
                let _ = hung.recv_timeout(Duration::from_secs(20));
                done.send(())
            });
        });
        assert_eq!(read.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(release);
        assert_eq!(read.recv(), Ok(()));
    }
}
