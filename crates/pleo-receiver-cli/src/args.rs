//! The command line: every command, flag and environment variable.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::{Span, SpanRelativeTo, Timestamp};
use tracing_subscriber::filter::LevelFilter;

use crate::secret_ref::SecretRef;
pub(crate) mod pleo;

use self::pleo::{CatchUp, Doctor, Setup, Subscriptions};

/// Receives Pleo webhooks: verifies each, stores it durably, only then answers, and hands it on.
#[derive(Debug, Parser)]
#[command(name = "pleo-receiver", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// What is logged, to standard error: off, error, warn, info, debug or trace.
    #[arg(long, env = "PLEO_LOG", global = true, value_name = "LEVEL")]
    pub(crate) log: Option<LevelFilter>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show it all at once, on loopback, with a throw-away secret and inbox.
    Demo(Demo),
    /// Receive webhooks.
    Serve(Box<Serve>),
    /// Look at what was received, and hand it on again.
    #[command(subcommand)]
    Inbox(Inbox),
    /// Print the three signature headers for the body on standard input.
    Sign(Sign),
    /// Sign an event and post it, as Pleo would.
    Send(Send),
    /// Say why a delivery is refused: give its headers, and its body on standard input.
    Verify(Verify),
    /// Subscribe at Pleo, fetch the signing secret, and write both into the configuration.
    Setup(Box<Setup>),
    /// See whether all is well from the configuration to Pleo, and say what to do where it isn't.
    Doctor(Box<Doctor>),
    /// Put pending export jobs into the inbox that no webhook told of, once.
    CatchUp(Box<CatchUp>),
    /// Look after the subscriptions at Pleo.
    #[command(subcommand)]
    Subscriptions(Box<Subscriptions>),
}

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// End after the requests; exit code 0 only when each was answered as expected.
    #[arg(long)]
    pub(crate) once: bool,

    /// Where to listen.
    #[arg(
        long,
        env = "PLEO_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:0"
    )]
    pub(crate) listen: SocketAddr,
}

/// A flag beats its environment variable, and that beats the file.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    /// The TOML file with the configuration; each long flag below is also a key in it.
    #[arg(long, env = "PLEO_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where to listen for HTTP [default: 127.0.0.1:8787, or nowhere beside --tls-listen].
    #[arg(long, env = "PLEO_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,

    /// Where to listen for HTTPS; nowhere unless set.
    #[arg(long, env = "PLEO_TLS_LISTEN", value_name = "ADDR")]
    pub(crate) tls_listen: Option<SocketAddr>,

    /// The PEM file with the certificate for HTTPS and those that it is signed with. It is read again
    /// when it changes, as the key is.
    #[arg(long, env = "PLEO_TLS_CERTIFICATE", value_name = "FILE")]
    pub(crate) tls_certificate: Option<PathBuf>,

    /// The PEM file with the certificate's key.
    #[arg(long, env = "PLEO_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The path of the endpoint [default: /webhooks/pleo]. Several endpoints go into the file.
    #[arg(long, env = "PLEO_PATH", value_name = "PATH")]
    pub(crate) path: Option<String>,

    /// The signing secret, better given as `env:NAME` or `file:PATH` than as it is; again for
    /// another one while secrets are rotated.
    #[arg(
        long,
        env = "PLEO_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub(crate) secret: Vec<SecretRef>,

    /// How many seconds a timestamp may be off [default: 300].
    #[arg(long, env = "PLEO_TOLERANCE", value_name = "SECONDS")]
    pub(crate) tolerance: Option<u64>,

    /// The inbox: `sqlite:FILE`, or `memory:` to lose everything at the end [default:
    /// sqlite:pleo-inbox.db].
    #[arg(long, env = "PLEO_INBOX", value_name = "URL")]
    pub(crate) inbox: Option<String>,

    /// Post each message to this URL; anything but an answer of 2xx is tried again.
    #[arg(
        long,
        env = "PLEO_FORWARD",
        hide_env_values = true,
        value_name = "URL",
        conflicts_with = "exec"
    )]
    pub(crate) forward: Option<SecretRef>,

    /// Sign what is forwarded with this secret; without it, it goes unsigned.
    #[arg(
        long,
        env = "PLEO_FORWARD_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub(crate) forward_secret: Option<SecretRef>,

    /// Run this command for each message, without a shell, with the body on standard input; any exit
    /// code but 0 is tried again.
    #[arg(long, env = "PLEO_EXEC", value_name = "COMMAND")]
    pub(crate) exec: Option<String>,

    /// Serve counters for Prometheus at `/metrics` here; nowhere unless set.
    #[arg(long, env = "PLEO_METRICS", value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,

    /// Believe `X-Forwarded-For` and `Forwarded` from this address or network; may be given again.
    #[arg(
        long = "trusted-proxy",
        env = "PLEO_TRUSTED_PROXIES",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub(crate) trusted_proxies: Vec<String>,

    /// The arguments that were given as flags, not by the environment.
    #[arg(skip)]
    pub(crate) flags: BTreeSet<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Inbox {
    /// List messages, the oldest first, without their bodies.
    List(InboxList),
    /// Show one message whole.
    Show(InboxShow),
    /// Hand messages on again, whether or not a handler took them before.
    Replay(InboxReplay),
    /// Delete old messages, but never one that is still pending.
    Prune(InboxPrune),
    /// Show the newest messages.
    Tail(InboxTail),
}

#[derive(Args, Debug)]
pub(crate) struct InboxUrl {
    /// The TOML file with the receiver's configuration [default: pleo.toml if it is there].
    #[arg(long, env = "PLEO_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The inbox [default: the one in the configuration, or sqlite:pleo-inbox.db].
    #[arg(long, env = "PLEO_INBOX", value_name = "URL")]
    pub(crate) inbox: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct InboxList {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// Only those in this state.
    #[arg(long)]
    pub(crate) state: Option<State>,

    /// Only those of this endpoint.
    #[arg(long, value_name = "NAME")]
    pub(crate) endpoint: Option<String>,

    /// At most this many.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,

    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxShow {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// The message's `webhook-id`.
    pub(crate) id: String,

    /// One JSON object a line, with the body in `body`, or `body_base64` where it isn't text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxReplay {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// The `webhook-id` of each message.
    #[arg(value_name = "ID", required_unless_present_any = ["dead", "state", "endpoint", "event_type", "since", "until"])]
    pub(crate) ids: Vec<String>,

    /// All messages that are dead; the same as `--state dead`.
    #[arg(long, conflicts_with_all = ["ids", "state"])]
    pub(crate) dead: bool,

    /// All in this state.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) state: Option<State>,

    /// All of this endpoint.
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    pub(crate) endpoint: Option<String>,

    /// All of this type, spelled as in the message.
    #[arg(long, value_name = "TYPE", conflicts_with = "ids")]
    pub(crate) event_type: Option<String>,

    /// All received then or later: a time such as `2026-11-24T08:00:00Z`, or so long ago, such as
    /// `12h`. Of several such conditions, all must hold.
    #[arg(long, value_name = "TIME", conflicts_with = "ids")]
    pub(crate) since: Option<TimeOrAge>,

    /// All received before then.
    #[arg(long, value_name = "TIME", conflicts_with = "ids")]
    pub(crate) until: Option<TimeOrAge>,

    /// What was done, as a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxPrune {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// Only those that arrived longer ago than this: `30d`, `12h`. The sender may repeat a message
    /// for days, and one that was deleted is stored and handed on again.
    #[arg(long, value_name = "AGE", default_value = "30d")]
    pub(crate) older_than: TimeOrAge,

    /// Which ones.
    #[arg(long, default_value = "done")]
    pub(crate) state: Finished,

    /// What was done, as a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxTail {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// How many.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub(crate) lines: u32,

    /// Go on with those that arrive.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time, or how long ago it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeOrAge(pub(crate) Timestamp);

impl FromStr for TimeOrAge {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ago = || {
            let days = SpanRelativeTo::days_are_24_hours();
            let age = text.parse::<Span>().ok()?.to_duration(days).ok()?;
            let age = Some(age).filter(|age| !age.is_negative())?;
            Timestamp::now().checked_sub(age).ok()
        };
        let moment = text.parse().ok().or_else(ago).map(Self);
        moment.ok_or("neither a time such as 2026-11-24T08:00:00Z nor an age such as 30d or 12h")
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum State {
    Pending,
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Finished {
    Done,
    Dead,
}

#[derive(Args, Debug)]
pub(crate) struct Signing {
    /// The signing secret, better given as `env:NAME` or `file:PATH` than as it is; again for
    /// another signature beside the first.
    #[arg(
        long,
        env = "PLEO_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        required = true
    )]
    pub(crate) secret: Vec<SecretRef>,

    /// The message's identifier [default: a new one].
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

    /// Where to.
    #[arg(
        default_value = "http://127.0.0.1:8787/webhooks/pleo",
        value_name = "URL"
    )]
    pub(crate) url: SecretRef,

    /// A ready-made event of this type; one that is not known is sent with empty data.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "v1.export-job.created",
        conflicts_with = "body"
    )]
    pub(crate) event: String,

    /// A file with the body instead; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) body: Option<PathBuf>,

    /// A further header, such as `authorization: Basic …`; may be given again.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<SecretRef>,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The secret, better given as `env:NAME` or `file:PATH` than as it is; again for others.
    #[arg(
        long,
        env = "PLEO_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        required = true
    )]
    pub(crate) secret: Vec<SecretRef>,

    /// A header of the delivery, such as `webhook-id: msg_…`; may be given again.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,

    /// A file with the delivery's headers, one a line.
    #[arg(long = "headers", value_name = "FILE")]
    pub(crate) headers_file: Option<PathBuf>,

    /// A file with the body [default: standard input].
    #[arg(long, value_name = "FILE")]
    pub(crate) body: Option<PathBuf>,

    /// Check as if it arrived at this time, in Unix seconds [default: now].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) at: Option<u64>,

    /// How many seconds a timestamp may be off.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        env = "PLEO_TOLERANCE"
    )]
    pub(crate) tolerance: u64,
}
