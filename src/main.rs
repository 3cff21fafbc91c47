//! The `pgweir` program: reads its arguments and hands over to the library.

use clap::{Parser, Subcommand};
use pgweir::app;
use pgweir::app::check::Report;
use pgweir::config::{CONFIG_VARIABLE, Config, environment};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a configuration that cannot be used.
const BAD_CONFIGURATION: u8 = 2;

/// A PostgreSQL proxy for serverless fleets.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file (TOML); also `PGWEIR_CONFIG`. Every setting can also be given by its variable
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Validates the configuration, reads the secrets, logs in to the target, prints the budget.
    Check,
    /// Asks the pgweir that runs here with this configuration whether it works; the exit code says it.
    Health {
        /// Also whether clients should be sent to it: its target answers and it is not stopping.
        #[arg(long)]
        ready: bool,
    },
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let variable = std::env::var_os(CONFIG_VARIABLE).filter(|name| !name.is_empty());
    arguments.config = arguments.config.or_else(|| variable.map(PathBuf::from));
    let config = match Config::load(arguments.config.as_deref(), environment()) {
        Ok(config) => config,
        Err(errors) => {
            say_error(&format!("the configuration cannot be used:\n{errors}"));
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            say_error(&format!("cannot start a runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = match arguments.command {
        None => runtime.block_on(app::run(config, arguments.config.as_deref())).map(|()| true),
        Some(Command::Check) => {
            runtime.block_on(app::check::check(&config)).map(|report| say_report(&report))
        }
        Some(Command::Health { ready }) => {
            app::ask::ask(&config, ready).map(|report| say_report(&report))
        }
    };
    // A read of a file or a look-up of a name that does not end must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say_error(&app::check::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Prints it, and yields whether all is well.
fn say_report(report: &Report) -> bool {
    // Nobody may be reading; the exit code says it too.
    let _ = std::io::stdout().write_all(report.text.as_bytes());
    report.ok
}

fn say_error(text: &str) {
    // Where not even this can be written, the exit code is all that is left.
    let _ = writeln!(std::io::stderr(), "pgweir: {text}");
}
