//! The command line: every command, flag and environment variable.

pub(crate) mod dev;
pub(crate) mod inbox;
pub(crate) mod pleo;
pub(crate) mod sandbox;
pub(crate) mod subscriptions;
pub(crate) mod values;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use self::dev::Dev;
use self::inbox::{Inbox, InboxUrl};
use self::pleo::{CatchUp, Doctor, Setup};
use self::sandbox::Sandbox;
use self::subscriptions::Subscriptions;
use self::values::address;
use crate::log::{LogFilter, LogFormat};
use crate::secret_ref::SecretRef;

/// Receives Pleo webhooks: verifies each delivery, stores it durably, answers, and dispatches it to
/// a handler.
#[derive(Debug, Parser)]
#[command(
    name = "pleo-receiver",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  pleo-receiver dev --exec ./handle
  pleo-receiver demo
  pleo-receiver sandbox
  PLEO_WEBHOOK_SECRET=whsec_… pleo-receiver serve --exec ./handle
  PLEO_API_TOKEN=file:token pleo-receiver setup --url https://example.com/pleo

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// The level of the log on standard error: off, error, warn, info, debug or trace. With levels of
    /// dependencies: `info,h2=warn`.
    #[arg(
        long,
        env = "PLEO_LOG",
        global = true,
        value_name = "LEVEL",
        help_heading = "Log"
    )]
    pub(crate) log: Option<LogFilter>,

    /// The format of the log. `auto` is text on a terminal. Otherwise it is JSON for `serve`, and text
    /// for the other commands.
    #[arg(
        long,
        env = "PLEO_LOG_FORMAT",
        global = true,
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = "Log"
    )]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send sample deliveries to a temporary receiver, and show each answer.
    #[command(after_help = "\
Example:
  pleo-receiver demo --once")]
    Demo(Demo),
    /// Develop a handler: run a receiver, a local Pleo and the inspection page, and show each delivery.
    #[command(after_help = "\
Examples:
  pleo-receiver dev
  pleo-receiver dev --forward http://127.0.0.1:3000/
  PLEO_API_TOKEN=file:token pleo-receiver dev --url https://example.com/pleo

`--url` needs a tunnel to this machine, and access to Pleo's API.")]
    Dev(Box<Dev>),
    /// Run a local Pleo: its API, signed deliveries, and a page with an *Export* button.
    #[command(after_help = "\
Examples:
  pleo-receiver sandbox
  pleo-receiver sandbox --seed 7 --compress 1000 --port 0 --json")]
    Sandbox(Sandbox),
    /// Receive webhooks.
    #[command(after_help = "\
Examples:
  PLEO_WEBHOOK_SECRET=whsec_… pleo-receiver serve --exec './handle --all'
  pleo-receiver serve --secret file:pleo.secret --forward http://127.0.0.1:3000/
  pleo-receiver serve --config pleo.toml

A flag beats its environment variable, and that beats the configuration file.
SIGHUP reloads the configuration, SIGTERM stops the receiver.")]
    Serve(Box<Serve>),
    /// Manage the stored messages and the file that holds them.
    #[command(
        subcommand,
        after_help = "\
Examples:
  pleo-receiver inbox list
  pleo-receiver inbox replay --dead"
    )]
    Inbox(Inbox),
    /// Print the signature headers for the body on standard input.
    #[command(after_help = "\
Example:
  pleo-receiver sign --secret file:pleo.secret < body.json")]
    Sign(Sign),
    /// Sign a message, post it as Pleo does, and show its outcome.
    #[command(after_help = "\
Examples:
  pleo-receiver send --secret file:pleo.secret
  pleo-receiver send https://example.com/pleo --event v1.vendor.created")]
    Send(Send),
    /// Explain why a delivery is rejected, from its headers and its body on standard input.
    #[command(after_help = "\
Example:
  pleo-receiver verify --secret file:pleo.secret --headers headers.txt < body")]
    Verify(Verify),
    /// Subscribe at Pleo, and write the signing secret and the endpoint into the configuration.
    #[command(after_help = "\
Example:
  PLEO_API_TOKEN=file:token pleo-receiver setup --url https://example.com/pleo")]
    Setup(Box<Setup>),
    /// Check the configuration, the receiver, its public URL and the subscription, and suggest fixes.
    #[command(after_help = "\
Example:
  PLEO_API_TOKEN=file:token pleo-receiver doctor")]
    Doctor(Box<Doctor>),
    /// Store pending export jobs whose webhook never arrived.
    #[command(after_help = "\
Example:
  PLEO_API_TOKEN=file:token pleo-receiver catch-up --dry-run")]
    CatchUp(Box<CatchUp>),
    /// Manage the subscriptions at Pleo.
    #[command(
        subcommand,
        after_help = "\
Examples:
  PLEO_API_TOKEN=file:token pleo-receiver subscriptions list
  PLEO_API_TOKEN=file:token pleo-receiver subscriptions sync"
    )]
    Subscriptions(Box<Subscriptions>),
    /// Ask the running receiver whether it is alive: exit code 0 or 1. Needs its admin listener.
    #[command(after_help = "\
Examples:
  pleo-receiver health
  pleo-receiver health --ready --config pleo.toml")]
    Health(Health),
    /// Print the completions of a shell.
    #[command(after_help = "\
Example:
  pleo-receiver completions bash > /etc/bash_completion.d/pleo-receiver")]
    Completions(Completions),
    /// Print the manual page, or write those of all commands.
    #[command(after_help = "\
Examples:
  pleo-receiver man | man -l -
  pleo-receiver man --dir /usr/local/share/man/man1")]
    Man(Man),
}

#[derive(Args, Debug)]
pub(crate) struct Health {
    /// The TOML file with the receiver's configuration [default: pleo.toml if it exists].
    #[arg(long, env = "PLEO_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Ask whether the receiver is ready for deliveries, not only alive.
    #[arg(long)]
    pub(crate) ready: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write a page for each command into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Exit after the sample deliveries. The exit code is 0 if every answer was as expected.
    #[arg(long)]
    pub(crate) once: bool,

    /// The address to listen on.
    #[arg(
        long,
        env = "PLEO_LISTEN",
        value_name = "ADDR",
        value_parser = address,
        default_value = "127.0.0.1:0"
    )]
    pub(crate) listen: SocketAddr,
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Serve {
    /// The TOML file with the configuration. Each flag below is also a key in it [default:
    /// pleo.toml if it exists].
    #[arg(long, env = "PLEO_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Check the whole configuration and exit: 0, or 2 with what is wrong. Opens no inbox and no
    /// listener.
    #[arg(long)]
    pub(crate) check: bool,

    /// The address to listen on for HTTP [default: 127.0.0.1:8787, or none with --tls-listen].
    #[arg(
        long,
        env = "PLEO_LISTEN",
        value_name = "ADDR",
        value_parser = address,
        help_heading = "Network"
    )]
    pub(crate) listen: Option<SocketAddr>,

    /// The address to listen on for HTTPS.
    #[arg(
        long,
        env = "PLEO_TLS_LISTEN",
        value_name = "ADDR",
        value_parser = address,
        help_heading = "Network"
    )]
    pub(crate) tls_listen: Option<SocketAddr>,

    /// The PEM file with the certificate chain for HTTPS. Certificate and key are reloaded when they
    /// change.
    #[arg(
        long,
        env = "PLEO_TLS_CERTIFICATE",
        value_name = "FILE",
        help_heading = "Network"
    )]
    pub(crate) tls_certificate: Option<PathBuf>,

    /// The PEM file with the private key of the certificate.
    #[arg(
        long,
        env = "PLEO_TLS_KEY",
        value_name = "FILE",
        help_heading = "Network"
    )]
    pub(crate) tls_key: Option<PathBuf>,

    /// Trust `X-Forwarded-For` and `Forwarded` from this address or network. Repeatable.
    #[arg(
        long = "trusted-proxy",
        env = "PLEO_TRUSTED_PROXIES",
        value_name = "NETWORK",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub(crate) trusted_proxies: Vec<String>,

    /// The path of the endpoint [default: /webhooks/pleo]. Several endpoints need a configuration
    /// file.
    #[arg(
        long,
        env = "PLEO_PATH",
        value_name = "PATH",
        help_heading = "Endpoint"
    )]
    pub(crate) path: Option<String>,

    /// The signing secret: `env:NAME`, `file:PATH`, or the `whsec_…` itself, which other users of
    /// this machine can read. Repeatable, to rotate secrets.
    #[arg(
        long,
        env = "PLEO_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        help_heading = "Endpoint"
    )]
    pub(crate) secret: Vec<SecretRef>,

    /// The tolerance: how many seconds a timestamp may differ from now [default: 300].
    #[arg(
        long,
        env = "PLEO_TOLERANCE",
        value_name = "SECONDS",
        help_heading = "Endpoint"
    )]
    pub(crate) tolerance: Option<u64>,

    /// Run this command for each message, without a shell, with the body on standard input. Exit code
    /// 0 is a success, 65 makes the message dead, any other schedules a retry.
    #[arg(
        long,
        env = "PLEO_EXEC",
        value_name = "COMMAND",
        help_heading = "Handler"
    )]
    pub(crate) exec: Option<String>,

    /// Post each message to this URL. An answer of 2xx is a success, 410 makes the message dead, any
    /// other schedules a retry.
    #[arg(
        long,
        env = "PLEO_FORWARD",
        hide_env_values = true,
        value_name = "URL",
        conflicts_with = "exec",
        help_heading = "Handler"
    )]
    pub(crate) forward: Option<SecretRef>,

    /// Sign forwarded messages with this secret.
    #[arg(
        long,
        env = "PLEO_FORWARD_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        help_heading = "Handler"
    )]
    pub(crate) forward_secret: Option<SecretRef>,

    /// The inbox: `sqlite:FILE` or FILE; `postgres://USER@HOST/DATABASE`, which several receivers
    /// share; `memory:` keeps messages only while the receiver runs. `env:NAME` and `file:PATH` hold a
    /// URL with a password [default: pleo-inbox.db].
    #[arg(
        long,
        env = "PLEO_INBOX",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Operation"
    )]
    pub(crate) inbox: Option<String>,

    /// Whether to create and upgrade the schema of an inbox in PostgreSQL: on or off. With off, run
    /// `pleo-receiver inbox migrate` before [default: on].
    #[arg(
        long,
        env = "PLEO_MIGRATE",
        value_name = "ON|OFF",
        value_parser = BoolishValueParser::new(),
        help_heading = "Operation"
    )]
    pub(crate) migrate: Option<bool>,

    /// Allow an inbox in a directory that other users can write to. They can then delete or replace
    /// it.
    #[arg(long, env = "PLEO_ALLOW_SHARED_DIRECTORY", help_heading = "Operation")]
    pub(crate) allow_shared_directory: bool,

    /// The address of the admin listener: the inspection page, `/livez`, `/readyz` and `/metrics`.
    /// Without credentials only an address of this machine itself.
    #[arg(
        long,
        env = "PLEO_ADMIN",
        value_name = "ADDR",
        value_parser = address,
        help_heading = "Operation"
    )]
    pub(crate) admin: Option<SocketAddr>,

    /// The former name of `--admin`.
    #[arg(
        long,
        env = "PLEO_METRICS",
        value_name = "ADDR",
        value_parser = address,
        hide = true
    )]
    pub(crate) metrics: Option<SocketAddr>,

    /// Require this bearer token of the admin listener's clients, except for `/livez`: `env:NAME` or
    /// `file:PATH`.
    #[arg(
        long,
        env = "PLEO_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Operation"
    )]
    pub(crate) admin_token: Option<SecretRef>,

    /// Allow this bearer token too, without actions on the inspection page: `env:NAME` or `file:PATH`.
    #[arg(
        long,
        env = "PLEO_ADMIN_READ_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Operation"
    )]
    pub(crate) admin_read_token: Option<SecretRef>,

    /// Allow these Basic credentials too, or instead.
    #[arg(
        long,
        env = "PLEO_ADMIN_USER",
        hide_env_values = true,
        value_name = "NAME",
        help_heading = "Operation"
    )]
    pub(crate) admin_user: Option<SecretRef>,

    /// The password of `--admin-user`: `env:NAME` or `file:PATH`.
    #[arg(
        long,
        env = "PLEO_ADMIN_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        help_heading = "Operation"
    )]
    pub(crate) admin_password: Option<SecretRef>,

    /// The ids of the arguments on the command line, without those from the environment.
    #[arg(skip)]
    pub(crate) flags: BTreeSet<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Signing {
    /// The signing secret: `env:NAME`, `file:PATH`, or the `whsec_…` itself, which other users of
    /// this machine can read. Repeatable, for a signature by each.
    #[arg(
        long,
        env = "PLEO_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub(crate) secret: Vec<SecretRef>,

    /// The message id [default: a new one].
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,

    /// The time of signing, in Unix seconds [default: now].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timestamp: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Sign {
    #[command(flatten)]
    pub(crate) signing: Signing,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) signing: Signing,

    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// The URL of the receiver's endpoint.
    #[arg(
        default_value = "http://127.0.0.1:8787/webhooks/pleo",
        value_name = "URL"
    )]
    pub(crate) url: SecretRef,

    /// Send a sample event of this type. An unknown type has empty data.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "v1.export-job.created",
        conflicts_with = "body"
    )]
    pub(crate) event: String,

    /// Send the body in this file, or on standard input (`-`).
    #[arg(long, value_name = "FILE")]
    pub(crate) body: Option<PathBuf>,

    /// Send this header too, such as `authorization: Basic …`. Repeatable.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<SecretRef>,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The signing secret: `env:NAME`, `file:PATH`, or the `whsec_…` itself, which other users of
    /// this machine can read. Repeatable.
    #[arg(
        long,
        env = "PLEO_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub(crate) secret: Vec<SecretRef>,

    /// A header of the delivery, such as `webhook-id: msg_…`. Repeatable.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,

    /// The file with the headers of the delivery, one a line.
    #[arg(long = "headers", value_name = "FILE")]
    pub(crate) headers_file: Option<PathBuf>,

    /// The file with the body [default: standard input].
    #[arg(long, value_name = "FILE")]
    pub(crate) body: Option<PathBuf>,

    /// The time of arrival, in Unix seconds [default: now].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) at: Option<u64>,

    /// The tolerance: how many seconds the timestamp may differ from the time of arrival.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        env = "PLEO_TOLERANCE"
    )]
    pub(crate) tolerance: u64,
}
