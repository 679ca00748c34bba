//! TLS: the certificate from its files, and a connection whose handshake is done. The handshake
//! itself is `handshake`'s; what remains here is symmetric, cheap, and never blocks.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::access::AccessError;
use super::files;

/// What a client that offers protocols must have among them: a browser, which offers HTTP only,
/// is turned away in the handshake.
const PROTOCOL: &[u8] = b"memcached";

/// What TLS addresses speak, from the files that the operator names.
pub fn load(
    cert: &Path,
    key: &Path,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, AccessError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(cert)?;
    let key_bytes = files::read_secret(key)?;
    let key_der = PrivateKeyDer::from_pem_slice(&key_bytes)
        .map_err(|error| AccessError::not_pem(key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| AccessError::tls(cert, &error))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(path)? {
                roots
                    .add(root)
                    .map_err(|error| AccessError::tls(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| AccessError::tls(path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key_der)
        .map_err(|error| AccessError::tls(cert, &error))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let bytes = files::read_small(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(AccessError::not_pem(path, &"there is no certificate in it")),
        Err(error) => Err(AccessError::not_pem(path, &error)),
    }
}

/// A connection after its handshake, shared by its reading and its writing half on one thread.
pub struct Stream {
    socket: TcpStream,
    session: RefCell<ServerConnection>,
}

/// The socket as TLS takes it: an error in place of waiting.
struct Unblocking<'a>(&'a TcpStream);

impl io::Read for Unblocking<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(bytes)
    }
}

impl io::Write for Unblocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// A connection that goes on where its handshake ended.
    pub fn new(socket: TcpStream, session: ServerConnection) -> Self {
        Self {
            socket,
            session: RefCell::new(session),
        }
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads what has arrived, as much of it as `buf` has room for.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.borrow_mut();
        loop {
            match session.reader().read(buf.initialize_unfilled()) {
                // The client has ended the conversation, or there is no room.
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(count) => {
                    buf.advance(count);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The client is gone without having said so. What it has sent were whole
                // requests or none.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if !buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.socket.poll_read_ready(cx))?;
            match session.read_tls(&mut Unblocking(&self.socket)) {
                Ok(_) => session.process_new_packets().map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            // What the protocol itself has to answer; the rest leaves with the next reply.
            let _ = self.flush(&mut session);
        }
    }

    /// Takes as many bytes as there is room for, and sends them as far as the kernel takes them.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut session = self.session.borrow_mut();
        self.flush(&mut session)?;
        let taken = session.writer().write(bytes)?;
        match self.flush(&mut session) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(taken),
        }
    }

    /// Sends what was taken and not sent; an error that it would block if the kernel is full.
    pub fn try_flush(&self) -> io::Result<()> {
        self.flush(&mut self.session.borrow_mut())
    }

    fn flush(&self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut Unblocking(&self.socket))?;
        }
        Ok(())
    }

    /// Tells the client that nothing more will come.
    pub fn say_goodbye(&self) {
        let mut session = self.session.borrow_mut();
        session.send_close_notify();
        // Who does not read it finds the socket closed.
        let _ = self.flush(&mut session);
    }
}
