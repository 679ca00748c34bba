//! A start and a reload that take a while tell the service manager so, over a real socket.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;

use crate::signals::move_data;
use crate::support::daemon::send_signal;
use crate::support::{Config, Home};

/// Enough journal for several windows of the start, so that it is not complete at the first.
const VALUES: usize = 40;
const VALUE_BYTES: usize = 512 << 10;

#[test]
fn a_start_extends_its_time_and_says_how_far_it_is() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut request = Vec::new();
    for id in 0..VALUES {
        request.extend_from_slice(format!("set 3.{id} 0 0 {VALUE_BYTES}\r\n").as_bytes());
        request.resize(request.len() + VALUE_BYTES, b'v');
        request.extend_from_slice(b"\r\n");
    }
    let replies = daemon.client().pipeline(&request, VALUES).unwrap();
    assert!(replies.iter().all(|reply| reply == "STORED"));
    daemon.kill9();

    let service = Service::start(&home);
    let told = service.told_until_ready();
    let ready = place(&told, "READY=1");
    assert!(place(&told, "EXTEND_TIMEOUT_USEC=") < ready, "{told:?}");
    let status = place(&told, "STATUS=loading");
    assert!(
        status < ready && told[status].contains('%') && !told[status].contains(" 100 %"),
        "{told:?}"
    );
}

#[test]
fn a_reload_that_waits_for_new_data_files_extends_its_time() {
    let home = Home::new(Config::standard());
    let service = Service::start(&home);
    service.told_until_ready();
    assert!(move_data(&home.data(), &home.path("away")) > 0);
    send_signal(service.child.id(), Signal::HUP);
    let told = service.told_until_ready();
    let extended = place(&told, "EXTEND_TIMEOUT_USEC=");
    assert!(place(&told, "RELOADING=1") < extended, "{told:?}");
    assert!(extended < place(&told, "READY=1"), "{told:?}");
}

/// Where it is told.
fn place(told: &[String], word: &str) -> usize {
    let found = told.iter().position(|line| line.starts_with(word));
    found.unwrap_or_else(|| panic!("no {word} in {told:?}"))
}

/// A daemon and the socket of its service manager.
struct Service {
    child: Child,
    socket: UnixDatagram,
}

impl Service {
    fn start(home: &Home) -> Self {
        let path = home.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        let child = home
            .command(&[])
            .env("NOTIFY_SOCKET", &path)
            .stdout(File::create(home.path("out")).unwrap())
            .stderr(File::create(home.path("err")).unwrap())
            .spawn()
            .unwrap();
        Self { child, socket }
    }

    /// What the manager hears up to the next time that all is ready.
    fn told_until_ready(&self) -> Vec<String> {
        let mut told = Vec::new();
        while !told.iter().any(|line| line == "READY=1") {
            let mut bytes = [0; 4096];
            let received = self.socket.recv(&mut bytes);
            let Ok(len) = received else { break };
            let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
            told.extend(text.lines().map(str::to_owned));
        }
        told
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
