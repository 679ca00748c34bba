//! Listening and accepting: one acceptor, and the least loaded worker gets the connection.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::files;
use super::logging::RateLimit;
use super::session::Peer;
use super::shared::{Client, Shared};
use super::socket::Accepted;
use super::worker::{Handle, Message};
use crate::clock::Tick;
use crate::config::ListenAddr;

/// What a client hears that is turned away at `max_clients`, as from memcached.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// How long accepting pauses when the system has no descriptors left: doubled each time, up to
/// the second figure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

static REJECTED: RateLimit = RateLimit::new("connection rejected", 5);

/// A listening socket.
pub struct Listener {
    socket: Socket,
    /// The address as it really is, port included.
    name: Arc<str>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// Listens on an address; a host name may stand for several.
pub async fn listen(address: &ListenAddr, unix_mode: u32) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    match address {
        ListenAddr::Tcp { host, port } => {
            for resolved in tokio::net::lookup_host((host.as_str(), *port)).await? {
                let socket = TcpListener::bind(resolved).await?;
                let name = socket.local_addr()?.to_string().into();
                listeners.push(Listener {
                    socket: Socket::Tcp(socket),
                    name,
                });
            }
        }
        ListenAddr::Unix(path) => {
            files::remove_stale_socket(path)?;
            let socket = UnixListener::bind(path)?;
            files::set_mode(path, unix_mode)?;
            let name = format!("unix:{}", path.display()).into();
            listeners.push(Listener {
                socket: Socket::Unix(socket, path.clone()),
                name,
            });
        }
    }
    Ok(listeners)
}

impl Listener {
    /// The address as it really is, port included.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, if it is a TCP address.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Accepts until it is cancelled.
    pub async fn accept_all(&self, shared: &Shared, workers: &[Handle], numbers: &AtomicU64) {
        let mut pause = PAUSE.0;
        loop {
            match self.accept().await {
                Ok((socket, peer)) => {
                    pause = PAUSE.0;
                    self.admit(shared, workers, numbers, socket, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    shared.clients().pauses.fetch_add(1, Relaxed);
                    REJECTED.run(Tick::now(), || {
                        tracing::warn!(%error, listener = %self.name, "accepting pauses");
                    });
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let local = address.ip().to_canonical().is_loopback();
                Ok((
                    Accepted::tcp(stream)?,
                    Peer {
                        name: format!("tcp:{address}"),
                        local,
                    },
                ))
            }
            Socket::Unix(listener, path) => {
                let (stream, _) = listener.accept().await?;
                let name = format!("unix:{}", path.display());
                Ok((Accepted::unix(stream)?, Peer { name, local: true }))
            }
        }
    }

    fn admit(
        &self,
        shared: &Shared,
        workers: &[Handle],
        numbers: &AtomicU64,
        socket: Accepted,
        peer: Peer,
    ) {
        shared.clients().total.fetch_add(1, Relaxed);
        if !shared.admit() {
            REJECTED.run(Tick::now(), || {
                let max_clients = shared.config().max_clients;
                tracing::warn!(client = %peer.name, max_clients, "rejected: too many connections");
            });
            socket.say_and_close(TOO_MANY);
            return;
        }
        let Some(worker) = workers.iter().min_by_key(|worker| worker.load()) else {
            return;
        };
        tracing::debug!(client = %peer.name, "connected");
        let number = numbers.fetch_add(1, Relaxed);
        let client = Arc::new(Client {
            peer,
            listener: Arc::clone(&self.name),
            fd: socket.fd(),
            last_heard_s: AtomicU64::new(shared.uptime_s()),
        });
        shared
            .clients()
            .connected
            .insert(number, Arc::clone(&client));
        worker.tell(Message::Client {
            number,
            socket,
            client,
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            files::remove_socket(path);
        }
    }
}

/// Errors of `accept` that are the one client's own: it was gone before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
