//! A real memcached, to be asked the same.

use std::net::{Ipv4Addr, SocketAddr};
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
        // It takes a free port by itself and tells it in a file.
        let told = tempfile::tempdir().unwrap();
        let ports = told.path().join("ports");
        let mut command = Command::new(program);
        command
            .env("MEMCACHED_PORT_FILENAME", &ports)
            .args(["-l", "127.0.0.1", "-t", "1", "-U", "0", "-p", "-1"])
            .args(args);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let child = command.spawn().unwrap();
        let port = until("memcached listens", PATIENCE, || {
            let text = std::fs::read_to_string(&ports).ok()?;
            let port = text.strip_prefix("TCP INET: ")?.strip_suffix('\n')?;
            port.parse().ok()
        });
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { child, addr }
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
