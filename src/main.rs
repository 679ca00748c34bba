//! The daemon: arguments, configuration, the terminal, the log; then the server, and how it ended
//! as an exit code.

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
