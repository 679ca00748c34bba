//! `passwd`: makes the line of a users file.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use crate::exit::Exit;
use crate::users::{self, UsersError};

use super::{ToolError, files};

/// The page of `--help`.
pub(super) const PAGE: &str = "\
Make the line of a users file: the user's name and the hash of a password.

The password is asked for twice on a terminal, else read as one line from standard input. The line
goes to standard output; with --file it takes the place of the user's line in that file, or is
added to it. A file that is made is for its owner only (mode 600); one that others may read is
refused. A running server reads its users file again on HUP.";

/// The arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = "\
EXIT CODES
  0   the line is made
  64  the name or the password cannot be used
  74  the file cannot be read or written

EXAMPLES
  storage_server passwd --file /var/lib/storage_server/users alice
  printf '%s\\n' \"$PASSWORD\" | storage_server passwd alice
")]
pub struct Args {
    /// The users file to change
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The user
    user: String,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, ToolError> {
    let unusable = |error: UsersError| ToolError::Usage(error.to_string());
    users::check_name(&args.user).map_err(unusable)?;
    let password = ask(&args.user)?;
    let line = users::line(&args.user, password.as_bytes(), salt()?).map_err(unusable)?;
    match &args.file {
        None => writeln!(out, "{line}")?,
        Some(path) => {
            let failed = |doing| {
                let path = path.clone();
                move |source| ToolError::File {
                    doing,
                    path,
                    source,
                }
            };
            let old = files::read_secret(path).map_err(failed("read"))?;
            let new = users::with_line(&String::from_utf8_lossy(&old), &args.user, &line);
            files::replace_secret(path, new.as_bytes()).map_err(failed("write"))?;
        }
    }
    Ok(Exit::Ok)
}

fn ask(user: &str) -> Result<String, ToolError> {
    let failed = |error: io::Error| ToolError::Usage(format!("cannot read the password: {error}"));
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map_err(failed)?;
        let password = line.strip_suffix('\n').unwrap_or(&line);
        return Ok(password.strip_suffix('\r').unwrap_or(password).to_owned());
    }
    let first = rpassword::prompt_password(format!("Password of {user}: ")).map_err(failed)?;
    let again = rpassword::prompt_password("Again: ").map_err(failed)?;
    if first != again {
        return Err(ToolError::Usage("the passwords differ".to_owned()));
    }
    Ok(first)
}

/// Random bytes of the system.
fn salt() -> Result<[u8; users::SALT_BYTES], ToolError> {
    let mut salt = [0; users::SALT_BYTES];
    let mut filled = 0;
    while let Some(rest) = salt.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(rest, flags).map_err(io::Error::from)?;
    }
    Ok(salt)
}
