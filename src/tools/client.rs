//! A connection to a running server, for tools that talk to one.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli;
use crate::config::ListenAddr;

use super::ToolError;

const CONNECT: Duration = Duration::from_secs(10);
/// A server whose disk stalls answers late, but it answers.
const PATIENCE: Duration = Duration::from_mins(2);
/// A longer line is not one of this protocol.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Which server to talk to.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(super) struct Server {
    /// The server, as in `listen` [default: the first address of the configuration]
    #[arg(short, long, value_name = "ADDRESS", value_parser = parse_address)]
    server: Option<ListenAddr>,
    /// The server's configuration [default: found as the server finds it]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Reads an address as `listen` has them.
pub(super) fn parse_address(text: &str) -> Result<ListenAddr, String> {
    ListenAddr::parse(text).map_err(|error| error.to_string())
}

impl Server {
    /// The server at `address`, or that of the configuration which is found.
    pub(super) fn at(address: Option<ListenAddr>) -> Self {
        Self {
            server: address,
            config: None,
        }
    }

    /// Where it is.
    pub(super) fn address(&self) -> Result<ListenAddr, ToolError> {
        match &self.server {
            Some(address) => Ok(address.clone()),
            None => configured(self),
        }
    }
}

/// The bytes of a connection.
#[derive(Debug)]
pub(super) enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects.
    pub(super) fn connect(address: &ListenAddr) -> Result<Self, ToolError> {
        open(address).map_err(|error| {
            ToolError::Unavailable(format!("cannot connect to {address}: {error}"))
        })
    }

    /// Reads and writes no longer wait.
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection.
pub(super) struct Client {
    stream: BufReader<Stream>,
    address: ListenAddr,
}

impl Client {
    /// Connects.
    pub(super) fn connect(server: &Server) -> Result<Self, ToolError> {
        let address = server.address()?;
        let stream = open(&address).map_err(|error| {
            ToolError::Unavailable(format!(
                "cannot connect to {address}: {error}; is it running? --server names another one"
            ))
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
            address,
        })
    }

    /// An error of the connection.
    pub(super) fn lost(&self, error: &io::Error) -> ToolError {
        ToolError::Unavailable(format!(
            "the connection to {} is lost: {error}",
            self.address
        ))
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), ToolError> {
        let sent = self.stream.get_mut().write_all(bytes);
        sent.map_err(|error| self.lost(&error))
    }

    /// How long to wait for a reply.
    pub(super) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match self.stream.get_ref() {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(patience)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience)),
        }
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        let mut limited = self.stream.by_ref().take(LINE_BYTES_MAX);
        limited.read_until(b'\n', &mut bytes)?;
        if bytes.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What the server calls its release.
    pub(super) fn version(&mut self) -> Result<String, ToolError> {
        self.send(b"version\r\n")?;
        let line = self.line().map_err(|error| self.lost(&error))?;
        match line.strip_prefix("VERSION ") {
            Some(version) => Ok(version.to_owned()),
            None => Err(ToolError::Unavailable(format!(
                "what answers at {} does not speak memcached's protocol, or wants a login: {line}",
                self.address
            ))),
        }
    }

    /// The kinds of the declared types by their prefixes; none if the server has no types.
    pub(super) fn types(&mut self) -> Result<HashMap<u16, String>, ToolError> {
        let lines = self.list("show types")?;
        Ok(lines.iter().filter_map(|line| type_line(line)).collect())
    }

    /// A reply of several lines up to `END`; empty if the server does not know the command.
    pub(super) fn list(&mut self, command: &str) -> Result<Vec<String>, ToolError> {
        self.send(format!("{command}\r\n").as_bytes())?;
        let mut lines = Vec::new();
        loop {
            let line = self.line().map_err(|error| self.lost(&error))?;
            match line.as_str() {
                "END" => return Ok(lines),
                "ERROR" => return Ok(Vec::new()),
                _ => lines.push(line),
            }
        }
    }
}

/// `1 INDEX`
fn type_line(line: &str) -> Option<(u16, String)> {
    let (prefix, kind) = line.split_once(' ')?;
    Some((prefix.parse().ok()?, kind.split(' ').next()?.to_owned()))
}

/// The first address of the configuration that does not speak TLS, from this machine.
fn configured(server: &Server) -> Result<ListenAddr, ToolError> {
    let arguments = cli::Args {
        config: server.config.clone(),
        ..cli::Args::default()
    };
    let (config, source) = cli::load(&arguments)?;
    match config.listen.iter().find(|address| !address.is_tls()) {
        Some(ListenAddr::Tcp { host, port, .. }) => {
            let host = match host.as_str() {
                "0.0.0.0" => "127.0.0.1",
                "::" => "::1",
                host => host,
            };
            Ok(ListenAddr::Tcp {
                host: host.to_owned(),
                port: *port,
                tls: false,
            })
        }
        Some(unix @ ListenAddr::Unix(_)) => Ok(unix.clone()),
        None => Err(ToolError::Usage(format!(
            "{source} names no address without TLS: give --server"
        ))),
    }
}

fn open(address: &ListenAddr) -> io::Result<Stream> {
    match address {
        ListenAddr::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Stream::Unix(stream))
        }
        ListenAddr::Tcp { tls: true, .. } => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the tools do not speak TLS",
        )),
        ListenAddr::Tcp { host, port, .. } => {
            let mut failed = io::ErrorKind::NotFound.into();
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        stream.set_read_timeout(Some(PATIENCE))?;
                        stream.set_write_timeout(Some(PATIENCE))?;
                        return Ok(Stream::Tcp(stream));
                    }
                    Err(error) => failed = error,
                }
            }
            Err(failed)
        }
    }
}
