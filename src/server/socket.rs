//! TCP and unix sockets, and TLS on TCP, as one thing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use super::tls;

/// An accepted socket on its way to a worker, without a runtime.
pub enum Accepted {
    /// From a TCP listener.
    Tcp(std::net::TcpStream),
    /// From a unix listener.
    Unix(std::os::unix::net::UnixStream),
    /// From a TLS listener, after the handshake.
    Tls(std::net::TcpStream, Box<ServerConnection>),
}

/// The reading half.
pub enum Reader {
    /// Of a TCP socket.
    Tcp(tcp::OwnedReadHalf),
    /// Of a unix socket.
    Unix(unix::OwnedReadHalf),
    /// Of a TLS connection.
    Tls(Rc<tls::Stream>),
}

/// The writing half.
pub enum Writer {
    /// Of a TCP socket.
    Tcp(tcp::OwnedWriteHalf),
    /// Of a unix socket.
    Unix(unix::OwnedWriteHalf),
    /// Of a TLS connection.
    Tls(Rc<tls::Stream>),
}

impl Accepted {
    /// Takes the socket out of the acceptor's runtime.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.into_std().map(Self::Tcp)
    }

    /// Takes the socket out of the acceptor's runtime.
    pub fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.into_std().map(Self::Unix)
    }

    /// Turns the client away with a line; in TLS without.
    pub fn say_and_close(self, line: &[u8]) {
        use std::io::Write as _;
        // The socket is new and does not block: the line goes into its buffer or nowhere.
        let _ = match self {
            Self::Tcp(mut stream) => stream.write(line),
            Self::Unix(mut stream) => stream.write(line),
            Self::Tls(..) => Ok(0),
        };
    }

    /// The file descriptor's number.
    pub fn fd(&self) -> i32 {
        match self {
            Self::Tcp(stream) | Self::Tls(stream, _) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Takes the socket into this thread's runtime.
    pub fn split(self) -> io::Result<(Reader, Writer)> {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = TcpStream::from_std(stream)?.into_split();
                Ok((Reader::Tcp(reader), Writer::Tcp(writer)))
            }
            Self::Unix(stream) => {
                let (reader, writer) = UnixStream::from_std(stream)?.into_split();
                Ok((Reader::Unix(reader), Writer::Unix(writer)))
            }
            Self::Tls(stream, session) => {
                let stream = tls::Stream::new(TcpStream::from_std(stream)?, *session);
                let stream = Rc::new(stream);
                Ok((Reader::Tls(Rc::clone(&stream)), Writer::Tls(stream)))
            }
        }
    }
}

impl Reader {
    /// Reads what has arrived. (The runtime spares the read that would find nothing more, which
    /// its `try_read` would not.)
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl Writer {
    /// Sends as much as the kernel takes at once.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write(bytes),
            Self::Unix(half) => half.try_write(bytes),
            Self::Tls(stream) => stream.try_write(bytes),
        }
    }

    /// Sends what was taken and is still on this side of the kernel.
    pub fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(stream) => stream.try_flush(),
        }
    }

    /// Waits until the kernel takes more.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.writable().await,
            Self::Unix(half) => half.writable().await,
            Self::Tls(stream) => stream.socket().writable().await,
        }
    }

    /// Tells the client that nothing more will come.
    pub fn finish(&self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.say_goodbye();
        }
        rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Write).map_err(io::Error::from)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(half) => half.as_ref().as_fd(),
            Self::Unix(half) => half.as_ref().as_fd(),
            Self::Tls(stream) => stream.socket().as_fd(),
        }
    }
}
