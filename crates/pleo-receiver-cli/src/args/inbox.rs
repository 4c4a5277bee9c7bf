//! The arguments of `pleo-receiver inbox`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{Finished, State, TimeOrAge};
use crate::secret_ref::SecretRef;

#[derive(Debug, Subcommand)]
pub(crate) enum Inbox {
    /// List the newest messages, the oldest of them first.
    ///
    /// A narrow terminal shows the first columns, up to the id at least. A wide one, a pipe and --json
    /// show all.
    #[command(after_help = "\
Examples:
  pleo-receiver inbox list
  pleo-receiver inbox list --state dead
  pleo-receiver inbox list --json | jq -r .webhook_id")]
    List(InboxList),
    /// Show one message with its headers, its attempts and its body.
    #[command(after_help = "\
Example:
  pleo-receiver inbox show msg_2b7Tj9")]
    Show(InboxShow),
    /// Verify the signature of a stored message, at any time after its arrival.
    #[command(after_help = "\
Examples:
  pleo-receiver inbox verify msg_2b7Tj9
  pleo-receiver inbox verify msg_2b7Tj9 --secret file:old.secret")]
    Verify(InboxVerify),
    /// Dispatch messages again, also those that a handler has processed.
    #[command(after_help = "\
Examples:
  pleo-receiver inbox replay msg_2b7Tj9
  pleo-receiver inbox replay --dead
  pleo-receiver inbox replay --event-type v1.vendor.created --since 12h")]
    Replay(InboxReplay),
    /// Delete old messages, except pending ones.
    #[command(after_help = "\
Example:
  pleo-receiver inbox prune --older-than 30d")]
    Prune(InboxPrune),
    /// Show the newest messages.
    #[command(after_help = "\
Example:
  pleo-receiver inbox tail --follow")]
    Tail(InboxTail),
    /// Show counts by endpoint and state, the oldest pending age, the next expiry, and sizes.
    #[command(after_help = "\
Example:
  pleo-receiver inbox stats --json | jq .endpoints")]
    Stats(InboxStats),
    /// Stop dispatching the messages of an endpoint. New messages are stored.
    #[command(after_help = "\
Example:
  pleo-receiver inbox pause /webhooks/pleo")]
    Pause(InboxPause),
    /// Dispatch the messages of a paused endpoint again.
    #[command(after_help = "\
Example:
  pleo-receiver inbox resume /webhooks/pleo")]
    Resume(InboxPause),
    /// Copy the inbox to a new file.
    #[command(after_help = "\
Example:
  pleo-receiver inbox backup backup.db")]
    Backup(InboxBackup),
    /// Check the file or the server of the inbox, and read each message.
    #[command(after_help = "\
Examples:
  pleo-receiver inbox check
  pleo-receiver inbox check --inbox backup.db")]
    Check(InboxCheck),
    /// Create the schema of an inbox in PostgreSQL, or upgrade it to this release.
    #[command(after_help = "\
Example:
  pleo-receiver inbox migrate --inbox postgres://pleo@db.example/pleo")]
    Migrate(InboxMigrate),
    /// Move all messages with their history from a file to PostgreSQL. No receiver may be running on
    /// the file. After an interruption, run it again.
    #[command(after_help = "\
Example:
  pleo-receiver inbox move --from pleo-inbox.db --to postgres://pleo@db.example/pleo")]
    Move(InboxMove),
}

#[derive(Args, Debug)]
pub(crate) struct InboxUrl {
    /// The TOML file with the configuration [default: pleo.toml if it exists].
    #[arg(long, env = "PLEO_CONFIG", value_name = "FILE", help_heading = "Inbox")]
    pub(crate) config: Option<PathBuf>,

    /// The inbox: `sqlite:FILE` or FILE, `postgres://USER@HOST/DATABASE`, or `env:NAME` or
    /// `file:PATH` of a URL [default: the one in the configuration, or pleo-inbox.db].
    #[arg(
        long,
        env = "PLEO_INBOX",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Inbox"
    )]
    pub(crate) inbox: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct InboxList {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// List only messages in this state.
    #[arg(long)]
    pub(crate) state: Option<State>,

    /// List only messages of this endpoint.
    #[arg(long, value_name = "NAME")]
    pub(crate) endpoint: Option<String>,

    /// List the newest N messages [default: 50; with --json, all].
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,

    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxShow {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// The message's `webhook-id`, or its end: at least 8 characters, as `dev` prints them.
    pub(crate) id: String,

    /// Print one JSON object per line, with the body in `body`, or in `body_base64` if it is not UTF-8.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxReplay {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// The `webhook-id` of each message, or its end: at least 8 characters, as `dev` prints them.
    #[arg(value_name = "ID", required_unless_present_any = ["dead", "state", "endpoint", "event_type", "since", "until"])]
    pub(crate) ids: Vec<String>,

    /// Replay dead messages. The same as `--state dead`.
    #[arg(long, conflicts_with_all = ["ids", "state"])]
    pub(crate) dead: bool,

    /// Replay messages in this state. If several conditions are given, all must hold.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) state: Option<State>,

    /// Replay messages of this endpoint.
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    pub(crate) endpoint: Option<String>,

    /// Replay messages of this event type.
    #[arg(long, value_name = "TYPE", conflicts_with = "ids")]
    pub(crate) event_type: Option<String>,

    /// Replay messages received at or after this time: `2026-11-24T08:00:00Z`, or an age such as
    /// `12h`.
    #[arg(long, value_name = "TIME", conflicts_with = "ids")]
    pub(crate) since: Option<TimeOrAge>,

    /// Replay messages received before this time.
    #[arg(long, value_name = "TIME", conflicts_with = "ids")]
    pub(crate) until: Option<TimeOrAge>,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxPrune {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// Delete messages received before this time or age: `30d`, `12h`. Pleo may repeat a delivery
    /// for days, and a deleted message is then stored and dispatched again.
    #[arg(long, value_name = "AGE", default_value = "30d")]
    pub(crate) older_than: TimeOrAge,

    /// Delete messages in this state.
    #[arg(long, default_value = "done")]
    pub(crate) state: Finished,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxTail {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// How many messages to show.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub(crate) lines: u32,

    /// Show new messages as they arrive.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxVerify {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// The message's `webhook-id`, or its end: at least 8 characters, as `dev` prints them.
    pub(crate) id: String,

    /// The signing secret: `env:NAME`, `file:PATH`, or the `whsec_…` itself, which other users of
    /// this machine can read. Repeatable [default: those of the endpoint in the configuration, or
    /// PLEO_WEBHOOK_SECRET].
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<SecretRef>,

    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxStats {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxPause {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// The name of the endpoint; its path unless it has a `name`.
    pub(crate) endpoint: String,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxBackup {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// The new file. Only its owner can read it.
    pub(crate) file: PathBuf,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxCheck {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxMigrate {
    #[command(flatten)]
    pub(crate) inbox: InboxUrl,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InboxMove {
    /// The file that has the messages: `sqlite:FILE` or FILE. Once all are moved, it is named `FILE.moved`.
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,

    /// The inbox that gets the messages: `postgres://USER@HOST/DATABASE`, or `env:NAME` or
    /// `file:PATH` of a URL.
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
