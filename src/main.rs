//! The daemon: arguments, configuration, the terminal, the log; then the server, and how it ended
//! as an exit code.
//!
//! The allocator is that of the C library, by measurement. Growth of the resident set in bytes
//! for each of a million, one connection, after some seconds of idleness; the CPU time of a `set`
//! differed by less than the machine's noise:
//!
//! | | glibc 2.36 | mimalloc 3 | mimalloc 3, purging at once | jemalloc 5.3 |
//! |---|---|---|---|---|
//! | counters | 21.1 | 30.9 | 23.2 | 23.5 |
//! | the empty daemon, MiB | 6.5 | 16 | 16 | 7.8 |
//!
//! Old tables, which both peers keep for a while, are what differs. A header of items of 32 bytes
//! was 99 bytes an item with glibc, which adds 8 to each, and 89 with both peers; the header of 24
//! that it has now is what fits the sizes of all three.

use std::io::{self, Write as _};
use std::process::ExitCode;
use storage_server::cli;
use storage_server::exit::Exit;
use storage_server::server::{self, detach, logging};
use storage_server::tools;

fn main() -> ExitCode {
    let args = match cli::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    if let Some(tool) = &args.tool {
        return tools::run(tool, &mut io::stdout().lock(), &mut io::stderr()).into();
    }
    if args.check {
        return cli::check(&args, &mut io::stdout(), &mut io::stderr()).into();
    }
    let (config, source) = match cli::load(&args) {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error, Exit::Config),
    };
    if config.daemon {
        if !detach::is_child() {
            return detach::parent(std::env::args_os().skip(1));
        }
        if let Err(error) = detach::child_start() {
            return fail(&error, Exit::Internal);
        }
    }
    let log = match logging::init(config.log_file.as_deref(), config.log_level) {
        Ok(log) => log,
        Err(error) => return fail(&error, Exit::Io),
    };
    tracing::info!("storage_server {}: {source}", env!("CARGO_PKG_VERSION"));
    let logs_to_file = config.log_file.is_some();
    match server::run(config, (args, source), log) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            tracing::error!("{error}");
            let exit = error.exit();
            if logs_to_file {
                fail(&error, exit)
            } else {
                exit.into()
            }
        }
    }
}

/// Says why nothing was started.
fn fail(error: &dyn std::error::Error, exit: Exit) -> ExitCode {
    // Without a terminal the exit code has to do.
    let _ = writeln!(io::stderr(), "{error}");
    exit.into()
}
