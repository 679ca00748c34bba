//! The daemon: arguments, configuration, the terminal, the log; then the server, and how it ended
//! as an exit code.
//!
//! The allocator is that of the C library, by measurement. Growth of the resident set in bytes
//! for each of a million entries or of 10,000 connections, after half a minute of idleness; and
//! instructions of user code for a request in pipelines of 64, which callgrind counts and which
//! do not vary with what else the machine does:
//!
//! | | glibc 2.36 | mimalloc 3.3 | mimalloc 3.3, purging at once | jemalloc 5.3 |
//! |---|---|---|---|---|
//! | the empty daemon, MiB | 5.7 | 17.3 | 16.9 | 8.0 |
//! | a counter | 21.0 | 31.3 | 22.5 | 23.8 |
//! | an item of 32 bytes | 83.1 | 85.9 | 86.6 | 87.0 |
//! | an idle connection | 1,472 | 1,692 | 1,738 | 1,347 |
//! | a `get`'s instructions | 100 % | 100.0 % | 100.1 % | 100.0 % |
//! | a `set`'s instructions | 100 % | 97.5 % | 97.6 % | 98.3 % |
//!
//! A `get` allocates nothing, and of a `set` both peers save one instruction in forty; where
//! requests come one at a time the kernel's sockets, which are not counted here, are most of the
//! cost. Old tables, which both keep for a while, were what a counter took more; since then large
//! tables are the system's (`pages`). Glibc adds 8 bytes to each allocation: an item's header of
//! 24 bytes fits the sizes of all three.

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
