//! `daemon = 1`: leaving the terminal.
//!
//! A process with threads must not fork, and this one forbids unsafe code, so it starts itself
//! again: the first process, the parent, stays at the terminal until the second one, the child,
//! is ready or has failed. The child's standard output is a pipe to the parent, over which it says
//! that it is ready; its standard error is the terminal until then, so that whatever goes wrong
//! at the start is seen. The current directory stays, so relative paths keep their meaning.
//!
//! Invariant: the parent exits with 0 only if the child serves; otherwise with the child's code.
//! Called by `main` ([`is_child`], [`parent`]) and by `server` once it listens ([`child_ready`]).

use super::files;
use crate::exit::Exit;
use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};

/// Set in the environment of the child.
const MARK: &str = "STORAGE_SERVER_DETACHED";
/// What the child says when it serves.
const READY: &[u8] = b"ready\n";

/// True in the process that [`parent`] started.
pub fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts this program again as a daemon, with `args` (without the program's name), and waits
/// until it is ready or has ended.
pub fn parent(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let spawned = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args(args)
            .env(MARK, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    });
    match spawned.and_then(wait_until_ready) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "cannot start the daemon: {error}");
            Exit::Internal.into()
        }
    }
}

/// 0 once the child is ready, or the code that it ended with.
fn wait_until_ready(mut child: Child) -> io::Result<u8> {
    let mut said = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(READY.len() as u64).read_to_end(&mut said)?;
    }
    if said == READY {
        return Ok(Exit::Ok.code());
    }
    let ended = child.wait()?;
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    // Neither a signal nor an early success is a daemon that serves.
    Ok(code
        .filter(|code| *code != 0)
        .unwrap_or(Exit::Internal.code()))
}

/// Leaves the terminal's session, so that closing it does not end this process. Called in the
/// child before threads are started.
pub fn child_start() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Tells the parent that this process serves, and lets go of the terminal. An error means that
/// the parent is gone: somebody interrupted the start.
pub fn child_ready() -> io::Result<()> {
    let null = files::open_null()?;
    rustix::stdio::dup2_stderr(&null)?;
    let told = {
        let mut pipe = io::stdout().lock();
        pipe.write_all(READY).and_then(|()| pipe.flush())
    };
    rustix::stdio::dup2_stdout(&null)?;
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> u8 {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until_ready(child).unwrap()
    }

    #[test]
    fn the_parent_passes_on_how_the_start_went() {
        assert_eq!(shell("echo ready; exec sleep 1"), 0);
        assert_eq!(shell("exit 78"), 78);
        assert_eq!(shell("exit 0"), Exit::Internal.code());
        assert_eq!(shell("kill -9 $$"), Exit::Internal.code());
        assert_eq!(shell("echo rea; exit 65"), 65);
    }
}
