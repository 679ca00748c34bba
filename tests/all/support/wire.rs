//! Whatever takes bytes and gives bytes back: a socket, or the protocol in memory.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// What came of waiting for bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes(Vec<u8>),
    Closed,
    /// Nothing came while there was time (in memory: there is nothing more).
    Nothing,
}

/// One connection, seen from the client.
pub(crate) trait Wire {
    /// Sends these bytes at once. A connection closed by the other side takes them silently:
    /// that it is closed shows in `receive`.
    fn send(&mut self, bytes: &[u8]);

    /// Waits for the next bytes.
    fn receive(&mut self) -> Received;
}

/// A connection over TCP.
pub(crate) struct TcpWire(TcpStream);

/// How long a reply may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

impl TcpWire {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("connect");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// The same connection, whose replies may take so long.
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        self.0.set_read_timeout(Some(patience)).unwrap();
        self
    }

    /// The same connection, to send while the first one receives.
    pub(crate) fn second(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }

    /// Nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.0.shutdown(Shutdown::Write).ok();
    }
}

impl Wire for TcpWire {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).ok();
    }

    fn receive(&mut self) -> Received {
        let mut bytes = vec![0; 64 << 10];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return Received::Closed,
                Ok(count) => {
                    bytes.truncate(count);
                    return Received::Bytes(bytes);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Received::Nothing,
                    _ => return Received::Closed,
                },
            }
        }
    }
}
