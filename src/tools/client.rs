//! A connection to a running server, for tools that talk to one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
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
    #[arg(short, long, value_name = "ADDRESS", value_parser = parse)]
    server: Option<ListenAddr>,
    /// The server's configuration [default: found as the server finds it]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn parse(text: &str) -> Result<ListenAddr, String> {
    ListenAddr::parse(text).map_err(|error| error.to_string())
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
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
        let address = match &server.server {
            Some(address) => address.clone(),
            None => configured(server)?,
        };
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
        let sent = match self.stream.get_mut() {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        };
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
