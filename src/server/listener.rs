//! Listening and accepting: one acceptor, and the least loaded worker gets the connection.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::fs::Mode;
use tokio::net::{TcpListener, UnixListener};

use super::files;
use super::handshake::{Arrival, Handshakes};
use super::logging::RateLimit;
use super::shared::{Client, Listening, Peer, Shared};
use super::socket::Accepted;
use super::worker::{Handle, Message, least_loaded};
use crate::clock::Tick;
use crate::config::{Config, ListenAddr};

/// What a client hears that is turned away at `max_clients`, as from memcached.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// How long accepting pauses when the system has no descriptors left: doubled each time, up to
/// the second figure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

static REJECTED: RateLimit = RateLimit::new("connection rejected", 5);

/// A listening socket.
pub struct Listener {
    socket: Socket,
    /// Its clients must say who they are.
    must_log_in: bool,
    /// The address as it really is, port included.
    name: Arc<str>,
}

enum Socket {
    Tcp(TcpListener),
    Tls(TcpListener),
    Unix(UnixListener, Arc<Path>),
}

/// Where connections go.
pub struct Inside<'a> {
    /// What all threads share.
    pub shared: &'a Shared,
    /// Who serves them.
    pub workers: &'a [Handle],
    /// Who does their TLS handshakes.
    pub handshakes: &'a Handshakes,
    /// The next connection's number.
    pub numbers: AtomicU64,
}

/// Listens on an address; a host name may stand for several.
pub async fn listen(address: &ListenAddr, config: &Config) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    match address {
        ListenAddr::Tcp { host, port, tls } => {
            for resolved in tokio::net::lookup_host((host.as_str(), *port)).await? {
                let socket = TcpListener::bind(resolved).await?;
                let address = socket.local_addr()?;
                let (socket, name) = if *tls {
                    (Socket::Tls(socket), format!("tls:{address}"))
                } else {
                    (Socket::Tcp(socket), address.to_string())
                };
                listeners.push(Listener {
                    socket,
                    must_log_in: config.users.is_some(),
                    name: name.into(),
                });
            }
        }
        ListenAddr::Unix(path) => {
            files::remove_stale_socket(path)?;
            let socket = bind_closed(path)?;
            files::set_mode(path, config.unix_mode)?;
            let name = format!("unix:{}", path.display()).into();
            listeners.push(Listener {
                socket: Socket::Unix(socket, path.as_path().into()),
                must_log_in: config.users.is_some() && config.login_on_unix,
                name,
            });
        }
    }
    Ok(listeners)
}

/// Binds a unix socket that nobody may connect to before its permissions are set. The mask is
/// the process's: this is called at the start, when nothing else creates files.
fn bind_closed(path: &Path) -> io::Result<UnixListener> {
    let mask = rustix::process::umask(Mode::from_raw_mode(0o777));
    let socket = UnixListener::bind(path);
    rustix::process::umask(mask);
    socket
}

impl Listener {
    /// The address as it really is, port included.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As `stats` shows it.
    pub fn listening(&self) -> Listening {
        let fd = match &self.socket {
            Socket::Tcp(socket) | Socket::Tls(socket) => socket.as_raw_fd(),
            Socket::Unix(socket, _) => socket.as_raw_fd(),
        };
        let name = Arc::clone(&self.name);
        Listening { fd, name }
    }

    /// The same, if it is an address that telnet can talk to.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Tls(_) | Socket::Unix(..) => None,
        }
    }

    /// Accepts until it is cancelled.
    pub async fn accept_all(&self, inside: &Inside<'_>) {
        let mut pause = PAUSE.0;
        loop {
            match self.accept().await {
                Ok((socket, peer)) => {
                    pause = PAUSE.0;
                    self.admit(inside, socket, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    let clients = inside.shared.clients();
                    clients.pauses.fetch_add(1, Relaxed);
                    clients.pausing.fetch_add(1, Relaxed);
                    REJECTED.run(Tick::now(), || {
                        tracing::warn!(%error, listener = %self.name, "accepting pauses");
                    });
                    let begun = Tick::now();
                    tokio::time::sleep(pause).await;
                    let paused_us = u64::try_from(begun.elapsed().as_micros());
                    clients
                        .paused_us
                        .fetch_add(paused_us.unwrap_or_default(), Relaxed);
                    clients.pausing.fetch_sub(1, Relaxed);
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) | Socket::Tls(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Accepted::tcp(stream)?, Peer::Tcp(address)))
            }
            Socket::Unix(listener, path) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::unix(stream)?, Peer::Unix(Arc::clone(path))))
            }
        }
    }

    fn admit(&self, inside: &Inside<'_>, socket: Accepted, peer: Peer) {
        let shared = inside.shared;
        shared.clients().total.fetch_add(1, Relaxed);
        if !shared.admit() {
            REJECTED.run(Tick::now(), || {
                let max_clients = shared.clients_max();
                tracing::warn!(client = %peer, max_clients, "rejected: too many connections");
            });
            if !matches!(self.socket, Socket::Tls(_)) {
                socket.say_and_close(TOO_MANY);
            }
            return;
        }
        tracing::debug!(client = %peer, "connected");
        let number = inside.numbers.fetch_add(1, Relaxed);
        let client = Arc::new(Client {
            peer,
            listener: Arc::clone(&self.name),
            fd: socket.fd(),
            must_log_in: self.must_log_in,
            last_heard_s: AtomicU64::new(shared.uptime_s()),
            phase: AtomicU8::default(),
        });
        shared
            .clients()
            .connected
            .insert(number, Arc::clone(&client));
        let taken = match (&self.socket, socket) {
            (Socket::Tls(_), Accepted::Tcp(socket)) => inside.handshakes.begin(Arrival {
                number,
                socket,
                client,
            }),
            (Socket::Tcp(_) | Socket::Unix(..) | Socket::Tls(_), socket) => {
                let message = Message::Client {
                    number,
                    socket,
                    client,
                };
                let worker = least_loaded(inside.workers);
                worker.map(|worker| worker.tell(message)).is_some()
            }
        };
        if !taken {
            shared.leave(number);
        }
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
