//! What a run is about, and where its results are kept.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Below this line of the file is what people wrote.
const END: &str = "<!-- end of the run -->";

/// When, where and what.
pub(super) fn about() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| {
        model.trim_start_matches([' ', '\t', ':'])
    });
    let system = rustix::system::uname();
    let peers = [
        said("memcached", "--version"),
        said("redis-server", "--version"),
    ];
    let peers: Vec<_> = peers.into_iter().flatten().collect();
    format!(
        "{}, commit {}, {}\n{} cores of {model}, Linux {}\nbeside {}\n",
        said("date", "--utc").unwrap_or_default(),
        commit().unwrap_or("unknown".into()),
        concat!("storage_server ", env!("CARGO_PKG_VERSION")),
        super::cores(),
        system.release().to_string_lossy(),
        peers.join(" and "),
    )
}

/// The first line that a program says.
fn said(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}

fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Puts the run in the place of the last one.
pub(super) fn save(about: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/RESULTS.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let notes = old.split_once(END).map_or("\n", |(_, notes)| notes);
    let about: Vec<_> = about.lines().map(|line| format!("- {line}")).collect();
    let about = about.join("\n");
    let text = format!(
        "# Results\n\nA whole run of `cargo bench --bench compare -- --save`, which says what is \
         measured:\n\n{about}\n\n{table}\n\n{END}{notes}"
    );
    fs::write(path, text).unwrap();
}
