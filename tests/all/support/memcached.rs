//! A real memcached, to be asked the same.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::until;
use super::wire::PATIENCE;

/// A memcached of its own.
pub(crate) struct Memcached {
    child: Child,
    addr: SocketAddr,
}

impl Memcached {
    /// Debian's memcached, if it is installed.
    pub(crate) fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/bin")])
            .map(|folder| folder.join("memcached"))
            .find(|program| program.is_file())
    }

    pub(crate) fn start(program: &Path) -> Self {
        Self::start_with(program, &[])
    }

    pub(crate) fn start_with(program: &Path, args: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let mut command = Command::new(program);
        command
            .args(["-l", "127.0.0.1", "-t", "1", "-U", "0", "-p"])
            .arg(addr.port().to_string())
            .args(args);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let child = command.spawn().unwrap();
        let server = Self { child, addr };
        until("memcached listens", PATIENCE, || {
            TcpStream::connect(addr).ok()
        });
        server
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
