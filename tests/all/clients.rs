//! Real memcached clients, by the scripts in `tests/clients`.

use std::path::Path;
use std::process::Command;

fn run(server: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run.sh");
    let output = Command::new(script).arg(server).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert!(output.status.success(), "{text}");
}

#[test]
fn real_clients_work() {
    run(env!("CARGO_BIN_EXE_storage_server"));
}
