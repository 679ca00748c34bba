//! A start that takes a while tells the service manager so, over a real socket.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

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

    let path = home.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let mut child = home
        .command(&[])
        .env("NOTIFY_SOCKET", &path)
        .stdout(File::create(home.path("out")).unwrap())
        .stderr(File::create(home.path("err")).unwrap())
        .spawn()
        .unwrap();
    let mut told = Vec::new();
    while !told.iter().any(|line| line == "READY=1") {
        let mut bytes = [0; 4096];
        let received = socket.recv(&mut bytes);
        let Ok(len) = received else { break };
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        told.extend(text.lines().map(str::to_owned));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let place = |word: &str, other: &str| {
        let found = told
            .iter()
            .position(|line| line.starts_with(word) && line.contains(other));
        found.unwrap_or_else(|| panic!("no {word}{other} in {told:?}"))
    };
    let ready = place("READY=1", "");
    assert!(place("EXTEND_TIMEOUT_USEC=", "") < ready, "{told:?}");
    let status = place("STATUS=loading", "%");
    assert!(
        status < ready && !told[status].contains(" 100 %"),
        "{told:?}"
    );
}
