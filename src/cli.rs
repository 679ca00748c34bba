//! The command line: its arguments, and the configuration that they lead to.
//!
//! Invariant: what [`load`] gives has been checked as a whole - file, arguments, and the two
//! together - and nothing has been started or changed before it succeeds. Called by `main`, and
//! [`reload`] by `server` on a HUP.

use crate::config::{Config, ConfigError};
use crate::exit::Exit;
use crate::limits;
use crate::server::access::{Access, AccessError};
use crate::server::files::{self, FileError};
use crate::tools::Tool;
use clap::Parser;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;

/// A durable, typed key-value daemon that speaks the memcached protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser)]
#[command(
    name = "storage_server",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_value_name = "TOOL",
    subcommand_help_heading = "Tools"
)]
pub struct Args {
    /// Configuration [default: config.ini here, else beside the program]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The most clients at one time; overrides `max_clients`
    #[arg(short = 'n', long, value_name = "MAX", value_parser = max_clients)]
    pub max_clients: Option<usize>,

    /// Print every command to standard output; in the foreground only
    #[arg(short = 't', long)]
    pub print_commands: bool,

    /// Check the configuration, start nothing: exit code 0 or 78
    #[arg(long)]
    pub check: bool,

    /// A tool to run instead of the server
    #[command(subcommand)]
    pub tool: Option<Tool>,
}

fn max_clients(text: &str) -> Result<usize, String> {
    let range = 1..=limits::CLIENTS_MAX;
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(format!(
            "it takes a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// This file.
    File(PathBuf),
    /// No file was found: the built-in defaults.
    BuiltIn,
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(out, "{}", path.display()),
            Self::BuiltIn => out.write_str("built-in defaults (no config.ini was found)"),
        }
    }
}

/// Why there is no configuration to run with. At a start each of them ends the process with
/// [`Exit::Config`]; at a HUP the running configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The users or the certificate that it names cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The file is wrong.
    #[error("{0:#}")]
    Config(#[from] ConfigError),
    /// `-t` together with `daemon = 1`.
    #[error(
        "-t prints commands to standard output, which a daemon does not have: \
         leave out -t, or set daemon = 0 in [server]"
    )]
    PrintCommandsDetached,
}

/// Reads the command line, the program's name first. On an error - and after `--help` and
/// `--version` - what there is to say has been printed, and the process ends with the result.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, Exit> {
    Args::try_parse_from(args).map_err(|message| {
        // The terminal may be gone; there is nowhere left to say so.
        let _ = message.print();
        if message.use_stderr() {
            Exit::Usage
        } else {
            Exit::Ok
        }
    })
}

/// Finds and reads the configuration that the arguments ask for.
pub fn load(args: &Args) -> Result<(Config, ConfigSource), LoadError> {
    let source = match &args.config {
        Some(path) => ConfigSource::File(path.clone()),
        None => files::find_config().map_or(ConfigSource::BuiltIn, ConfigSource::File),
    };
    let config = reload(args, &source)?;
    Ok((config, source))
}

/// Reads the configuration again from where it came from.
pub fn reload(args: &Args, source: &ConfigSource) -> Result<Config, LoadError> {
    let mut config = match source {
        ConfigSource::File(path) => {
            Config::parse(&files::read_config(path)?, &path.display().to_string())?
        }
        ConfigSource::BuiltIn => Config::default(),
    };
    if let Some(max_clients) = args.max_clients {
        config.max_clients = max_clients;
    }
    if args.print_commands && config.daemon {
        return Err(LoadError::PrintCommandsDetached);
    }
    Ok(config)
}

/// Carries out `--check`: a line to `out` if all is well, the errors to `err` if not.
pub fn check(args: &Args, out: &mut impl Write, err: &mut impl Write) -> Exit {
    let checked = load(args).and_then(|(config, source)| {
        Access::load(&config)?;
        Ok(source)
    });
    let (written, exit) = match checked {
        Ok(source) => (writeln!(out, "{source}: ok"), Exit::Ok),
        Err(error) => (writeln!(err, "{error}"), Exit::Config),
    };
    // A verdict that nobody could read is not a success.
    match written {
        Ok(()) => exit,
        Err(_) => Exit::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn args(line: &str) -> Result<Args, Exit> {
        let words = std::iter::once("storage_server").chain(line.split_whitespace());
        parse(words.map(OsString::from))
    }

    fn file(text: &str) -> (tempfile::TempDir, Args) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.ini");
        std::fs::write(&path, text).unwrap();
        let config = Some(path);
        (
            dir,
            Args {
                config,
                ..Args::default()
            },
        )
    }

    #[test]
    fn the_declaration_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn short_and_long_forms_mean_the_same() {
        let expected = Args {
            config: Some(PathBuf::from("f")),
            max_clients: Some(5),
            print_commands: true,
            check: true,
            tool: None,
        };
        assert_eq!(args("-c f -n 5 -t --check"), Ok(expected.clone()));
        let long = "--config f --max-clients 5 --print-commands --check";
        assert_eq!(args(long), Ok(expected));
        assert_eq!(args(""), Ok(Args::default()));
    }

    #[test]
    fn help_is_not_a_failure_and_nonsense_is() {
        for (line, exit) in [
            ("-h", Exit::Ok),
            ("--version", Exit::Ok),
            ("-V", Exit::Ok),
            ("-x", Exit::Usage),
            ("-n 0", Exit::Usage),
            ("-n 1048577", Exit::Usage),
            ("extra", Exit::Usage),
        ] {
            assert_eq!(args(line), Err(exit), "{line}");
        }
    }

    #[test]
    fn the_argument_wins_over_the_file() {
        let (_dir, mut args) = file("[server]\nmax_clients = 5\nthreads = 3\n");
        args.max_clients = Some(7);
        let (config, source) = load(&args).unwrap();
        assert_eq!((config.max_clients, config.threads), (7, Some(3)));
        assert_eq!(source, ConfigSource::File(args.config.clone().unwrap()));
    }

    #[test]
    fn printing_commands_needs_the_foreground() {
        let (_dir, mut args) = file("[server]\ndaemon = 1\n");
        load(&args).unwrap();
        args.print_commands = true;
        assert!(matches!(load(&args), Err(LoadError::PrintCommandsDetached)));
    }

    #[test]
    fn check_says_ok_or_what_is_wrong() {
        let run = |args: &Args| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let exit = check(args, &mut out, &mut err);
            (
                exit,
                String::from_utf8(out).unwrap(),
                String::from_utf8(err).unwrap(),
            )
        };
        let (_dir, good) = file("");
        let (exit, out, err) = run(&good);
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
        assert!(out.ends_with("config.ini: ok\n"), "{out}");
        let (_dir, bad) = file("[data]\nfsync = 1\n");
        let (exit, out, err) = run(&bad);
        assert_eq!((exit, out.as_str()), (Exit::Config, ""));
        assert!(
            err.contains("config.ini:2:9: data.fsync = 1 is not possible"),
            "{err}"
        );
        let missing = Args {
            config: Some(PathBuf::from("/nonexistent/x")),
            ..Args::default()
        };
        let (exit, _, err) = run(&missing);
        assert_eq!(exit, Exit::Config);
        assert!(err.starts_with("cannot read /nonexistent/x: "), "{err}");
    }
}
