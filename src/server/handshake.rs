//! The threads that do TLS handshakes: signing and key exchange take a millisecond, which nobody
//! who is served should wait for. A connection comes here from its listener and goes on to a
//! worker.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::logging::RateLimit;
use super::shared::{Client, Shared};
use super::socket::Accepted;
use super::worker::{Handle, Message, least_loaded};
use crate::clock::Tick;

/// How many threads there are.
const THREADS: usize = 2;

/// How many handshakes may be under way, most of which wait for their clients.
const UNDER_WAY_MAX: usize = 4096;

/// How long a client has for its part.
const PATIENCE: Duration = Duration::from_secs(10);

static FAILED: RateLimit = RateLimit::new("TLS handshake failed", 5);

/// A connection whose handshake is to be done.
pub struct Arrival {
    /// The connection's number.
    pub number: u64,
    /// Its socket, without a runtime.
    pub socket: std::net::TcpStream,
    /// As the other threads see it.
    pub client: Arc<Client>,
}

/// The way to the threads.
pub struct Handshakes {
    threads: Vec<(UnboundedSender<Arrival>, JoinHandle<()>)>,
    next: AtomicUsize,
    under_way: Arc<AtomicUsize>,
}

impl Handshakes {
    /// Starts the threads, if the configuration has TLS.
    pub fn start(shared: &Arc<Shared>, workers: &Arc<[Handle]>) -> io::Result<Self> {
        let count = if shared.access().tls().is_some() {
            THREADS
        } else {
            0
        };
        let under_way = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for number in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (arrivals, inbox) = unbounded_channel();
            let place = Place {
                shared: Arc::clone(shared),
                workers: Arc::clone(workers),
                under_way: Arc::clone(&under_way),
            };
            let thread = std::thread::Builder::new()
                .name(format!("handshake-{number}"))
                .spawn(move || LocalSet::new().block_on(&runtime, receive(place, inbox)))?;
            threads.push((arrivals, thread));
        }
        Ok(Self {
            threads,
            next: AtomicUsize::new(0),
            under_way,
        })
    }

    /// Begins a handshake. False if too many are under way.
    pub fn begin(&self, arrival: Arrival) -> bool {
        if self.under_way.fetch_add(1, Relaxed) >= UNDER_WAY_MAX {
            self.under_way.fetch_sub(1, Relaxed);
            return false;
        }
        let turn = self.next.fetch_add(1, Relaxed) % self.threads.len().max(1);
        let thread = self.threads.get(turn);
        thread.is_some_and(|(arrivals, _)| arrivals.send(arrival).is_ok())
    }

    /// Ends the threads; handshakes under way are given up.
    pub fn stop(self) {
        for (arrivals, thread) in self.threads {
            drop(arrivals);
            super::join(thread);
        }
    }
}

/// What a thread works with.
struct Place {
    shared: Arc<Shared>,
    workers: Arc<[Handle]>,
    under_way: Arc<AtomicUsize>,
}

async fn receive(place: Place, mut inbox: UnboundedReceiver<Arrival>) {
    let place = Rc::new(place);
    while let Some(arrival) = inbox.recv().await {
        let place = Rc::clone(&place);
        tokio::task::spawn_local(async move {
            let (number, client) = (arrival.number, Arc::clone(&arrival.client));
            let done = tokio::time::timeout(PATIENCE, place.shake(arrival.socket)).await;
            place.under_way.fetch_sub(1, Relaxed);
            let result = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match result {
                Ok(socket) => {
                    if let Some(worker) = least_loaded(&place.workers) {
                        worker.tell(Message::Client {
                            number,
                            socket,
                            client,
                        });
                    }
                }
                Err(error) => {
                    FAILED.run(Tick::now(), || {
                        tracing::info!(client = %client.peer, "TLS handshake failed: {error}");
                    });
                    place.shared.leave(number);
                }
            }
        });
    }
}

impl Place {
    async fn shake(&self, socket: std::net::TcpStream) -> io::Result<Accepted> {
        let config = self.shared.access().tls();
        let config = config.ok_or(io::ErrorKind::Unsupported)?;
        let socket = TcpStream::from_std(socket)?;
        let stream = TlsAcceptor::from(config).accept(socket).await?;
        let (socket, session) = stream.into_inner();
        Ok(Accepted::Tls(socket.into_std()?, Box::new(session)))
    }
}
