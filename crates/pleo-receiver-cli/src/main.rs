//! The program `pleo-receiver`.
//!
//! Data goes to standard output, logs and errors to standard error. Exit codes: 0 done, 1 failed,
//! 2 wrong usage or configuration.

mod admin;
mod admin_client;
mod args;
mod certificate;
mod commands;
mod config;
mod escape;
mod failure;
mod files;
mod http_client;
mod inbox_url;
mod input;
mod invocation;
mod listen;
mod log;
mod message;
mod output;
mod pleo;
mod samples;
mod secret_ref;
mod signals;
#[cfg(unix)]
mod systemd;
#[cfg(feature = "otel")]
mod traces;

use core::time::Duration;
use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Cli, Command};
use crate::commands::{
    catch_up, completions, demo, dev, doctor, health, inbox, man, sandbox, send, serve, setup,
    sign, subscriptions, verify,
};
use crate::failure::Failure;
use crate::log::{Log, LogDefaults, LogFormat, LogSettings};

/// How long the end of the program waits for threads that may hang, as when they read a file on a
/// network disk.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let given = LogSettings {
        filter: cli.log,
        format: cli.log_format,
    };
    let log = Log::start(given, log_defaults(&cli.command));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(cli.command, &matches, &log));
            runtime.shutdown_timeout(SHUTDOWN_LIMIT);
            result
        }
        Err(error) => Err(Failure::Run(format!(
            "cannot start threads: {error}; raise the limits of threads and memory (`ulimit -a`)"
        ))),
    };
    let code = result.as_ref().map_or_else(Failure::exit_code, |()| 0);
    if let Err(failure) = &result
        && code != 0
        && !matches!(failure, Failure::AlreadyReported)
    {
        log.print_error(&failure.to_string());
    }
    // Dropping the log writes its pending lines.
    drop(log);
    ExitCode::from(code)
}

async fn run(command: Command, matches: &ArgMatches, log: &Log) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Dev(args) => dev::run(*args, log).await,
        Command::Sandbox(args) => sandbox::run(args).await,
        Command::Serve(mut args) => {
            args.flags = flags(matches.subcommand_matches("serve"));
            serve::run(*args, log).await
        }
        Command::Inbox(command) => inbox::run(command).await,
        Command::Sign(args) => sign::run(args),
        Command::Send(args) => send::run(args).await,
        Command::Verify(args) => verify::run(&args),
        Command::Subscriptions(command) => subscriptions::run(*command).await,
        Command::Setup(args) => setup::run(*args).await,
        Command::Doctor(args) => doctor::run(*args).await,
        Command::CatchUp(args) => catch_up::run(*args).await,
        Command::Health(args) => health::run(args).await,
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

const fn log_defaults(command: &Command) -> LogDefaults {
    let (level, piped) = match command {
        Command::Serve(_) => (LevelFilter::INFO, LogFormat::Json),
        // They print their own progress.
        Command::Demo(_) | Command::Dev(_) => (LevelFilter::ERROR, LogFormat::Text),
        _ => (LevelFilter::INFO, LogFormat::Text),
    };
    LogDefaults { level, piped }
}

/// Returns the ids of the arguments on the command line, without those from the environment.
fn flags(matches: Option<&ArgMatches>) -> BTreeSet<String> {
    let ids = matches.into_iter().flat_map(|matches| {
        let is_flag = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        matches.ids().map(clap::Id::as_str).filter(is_flag)
    });
    ids.map(str::to_owned).collect()
}
