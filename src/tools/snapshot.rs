//! `snapshot`: has a running server write one, and waits until it can be relied on.

use std::io::{self, Write};
use std::time::Duration;

use crate::exit::Exit;

use super::ToolError;
use super::client::{Client, Server};

/// The page of `--help`.
pub(super) const PAGE: &str = "\
Have a running server write a snapshot now, and wait until it is complete.

The snapshot is made in the background while the server goes on serving. Once it has been written,
synced and read back, it is what a restart begins with; older snapshots and journal files go, and
with them the way back before a flush_all. Use it before a planned restart to make that fast, or
before copying the data directory to make the copy small.

It makes no copy: for a backup see INSTALL.md. The server answers it from where it answers reopen.";

/// The arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = "\
EXIT CODES
  0   the snapshot is complete
  69  the server cannot be reached, or does not know the command
  74  the server could not write it: see its log
  78  the configuration cannot be read

EXAMPLES
  storage_server snapshot
  storage_server snapshot --server unix:/run/storage_server.sock
")]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// No progress on standard error
    #[arg(short, long)]
    quiet: bool,
}

const TELL_EVERY: Duration = Duration::from_secs(5);

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, ToolError> {
    let mut client = Client::connect(&args.server)?;
    client.send(b"snapshot\r\n")?;
    client
        .set_patience(TELL_EVERY)
        .map_err(|error| client.lost(&error))?;
    let reply = loop {
        match client.line() {
            Ok(line) => break line,
            Err(error) if is_timeout(&error) => {
                if !args.quiet {
                    // Nobody may be listening.
                    let _ = writeln!(io::stderr(), "the server is writing the snapshot");
                }
            }
            Err(error) => return Err(client.lost(&error)),
        }
    };
    if reply != "OK" {
        let text = format!("the server answered: {reply}");
        let refused = reply.starts_with("SERVER_ERROR");
        return Err(if refused {
            ToolError::Server(text)
        } else {
            ToolError::Unavailable(text)
        });
    }
    let stats = client.list("stats")?;
    let stat = |name: &str| {
        let prefix = format!("STAT {name} ");
        let mut values = stats.iter().filter_map(|line| line.strip_prefix(&prefix));
        values.next().unwrap_or("?").to_owned()
    };
    let (number, bytes) = (stat("snapshot_number"), stat("snapshot_bytes"));
    writeln!(out, "snapshot {number} is complete: {bytes} bytes")?;
    Ok(Exit::Ok)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
