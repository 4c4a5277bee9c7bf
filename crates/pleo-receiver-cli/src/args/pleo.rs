//! The flags of the commands that talk to Pleo.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::SignedDuration;
use pleo_api::{Cursor, Status};
use uuid::Uuid;

use crate::secret_ref::SecretRef;

/// Who asks Pleo, and where Pleo is. Behind a proxy that opens TLS, SSL_CERT_FILE names the
/// certificate authorities to trust.
#[derive(Args, Debug)]
pub(crate) struct Api {
    /// The token (JWT) that Pleo gave you, better given as `env:NAME` or `file:PATH` than as it is.
    #[arg(
        long,
        env = "PLEO_API_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "api_key"
    )]
    pub(crate) token: Option<SecretRef>,

    /// The API key that Pleo gave you instead, likewise.
    #[arg(long, env = "PLEO_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<SecretRef>,

    /// Ask Pleo's staging environment.
    #[arg(long, conflicts_with = "api_url")]
    pub(crate) staging: bool,

    /// Ask here instead of Pleo's production environment.
    #[arg(long, env = "PLEO_API_URL", value_name = "URL")]
    pub(crate) api_url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Subscriptions {
    /// List subscriptions: all of them, or one page.
    List(List),
    /// Make a subscription.
    Create(Create),
    /// Show one subscription.
    Get(One),
    /// Change one subscription; what no flag speaks of stays.
    Update(Update),
    /// End one subscription. What Pleo still tries to deliver for it is lost.
    Delete(One),
    /// Show what the deliveries of one subscription are signed with.
    Secret(Secret),
    /// List what was done to one subscription.
    Activities(Activities),
    /// Make Pleo match the configuration: shows the difference, and applies it with `--yes`.
    ///
    /// What it makes is marked with the name in the table `[subscriptions]`, and only what has that
    /// mark is ever deleted. A copy of a configuration, such as one for staging, must not have the
    /// table: the next `setup` or `sync` gives it a name of its own. A configuration that names none
    /// of what has its mark is taken for a copy, and nothing is done.
    Sync(Sync),
}

/// Which page; all of them where nothing is said.
#[derive(Args, Debug)]
pub(crate) struct Paging {
    /// The page that ends before this cursor.
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["after", "offset"])]
    pub(crate) before: Option<Cursor>,

    /// The page that begins after this cursor.
    #[arg(long, value_name = "CURSOR", conflicts_with = "offset")]
    pub(crate) after: Option<Cursor>,

    /// The page that begins after so many entries.
    #[arg(long, value_name = "N")]
    pub(crate) offset: Option<u64>,

    /// A page of at most so many entries.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,

    /// Sort by this key, such as `createdAt`, or `createdAt:DESC`; again for further keys.
    #[arg(long, value_name = "KEY[:ORDER]")]
    pub(crate) sort: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) api: Api,

    /// Only those with this status: `ACTIVE` or `INACTIVE`.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    pub(crate) status: Option<Status>,

    /// Only those for this type of event; again for others.
    #[arg(long = "event", value_name = "TYPE")]
    pub(crate) events: Vec<String>,

    #[command(flatten)]
    pub(crate) paging: Paging,

    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What Pleo sends along with each delivery, beside the signature.
#[derive(Args, Debug)]
pub(crate) struct Extras {
    /// A header, such as `x-tenant: acme`, better given as `env:NAME` or `file:PATH`; again for
    /// others.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<SecretRef>,

    /// The user name of Basic credentials.
    #[arg(long, value_name = "USER", requires = "password")]
    pub(crate) username: Option<SecretRef>,

    /// Their password, better given as `env:NAME` or `file:PATH` than as it is.
    #[arg(long, value_name = "PASSWORD", requires = "username")]
    pub(crate) password: Option<SecretRef>,
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) api: Api,

    /// Where to deliver: a public `https` URL.
    #[arg(long)]
    pub(crate) url: String,

    /// The type of event to deliver; again for others.
    #[arg(long = "event", value_name = "TYPE", required = true)]
    pub(crate) events: Vec<String>,

    /// `ACTIVE`, or `INACTIVE` to deliver nothing yet.
    #[arg(long, value_name = "STATUS", value_parser = status, default_value = "ACTIVE")]
    pub(crate) status: Status,

    #[command(flatten)]
    pub(crate) extras: Extras,

    /// A JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct One {
    #[command(flatten)]
    pub(crate) api: Api,

    /// The subscription.
    pub(crate) id: Uuid,

    /// A JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    #[command(flatten)]
    pub(crate) api: Api,

    /// The subscription.
    pub(crate) id: Uuid,

    /// Where to deliver.
    #[arg(long)]
    pub(crate) url: Option<String>,

    /// The type of event to deliver instead of those so far; again for others.
    #[arg(long = "event", value_name = "TYPE")]
    pub(crate) events: Vec<String>,

    /// `ACTIVE` or `INACTIVE`.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    pub(crate) status: Option<Status>,

    #[command(flatten)]
    pub(crate) extras: Extras,

    /// A header to send no more; again for others.
    #[arg(long, value_name = "NAME")]
    pub(crate) remove_header: Vec<String>,

    /// Send no Basic credentials any more.
    #[arg(long, conflicts_with = "username")]
    pub(crate) remove_credentials: bool,

    /// A JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Secret {
    #[command(flatten)]
    pub(crate) api: Api,

    /// The subscription.
    pub(crate) id: Uuid,

    /// Write it to this file, for its owner only, instead of showing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// A JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Activities {
    #[command(flatten)]
    pub(crate) api: Api,

    /// The subscription, which may be deleted already.
    pub(crate) id: Uuid,

    /// Only operations of this type: `CREATE`, `UPDATE` or `DELETE`; again for others.
    #[arg(long = "operation", value_name = "TYPE")]
    pub(crate) operations: Vec<String>,

    #[command(flatten)]
    pub(crate) paging: Paging,

    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The configuration of the receiver.
#[derive(Args, Debug)]
pub(crate) struct Receiver {
    /// The TOML file with the receiver's configuration.
    #[arg(
        long,
        env = "PLEO_CONFIG",
        value_name = "FILE",
        default_value = "pleo.toml"
    )]
    pub(crate) config: PathBuf,

    /// The receiver's inbox, where it isn't the one in the file.
    #[arg(long, env = "PLEO_INBOX", value_name = "URL")]
    pub(crate) inbox: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Sync {
    #[command(flatten)]
    pub(crate) api: Api,

    #[command(flatten)]
    pub(crate) receiver: Receiver,

    /// Apply the difference, but delete nothing.
    #[arg(long)]
    pub(crate) yes: bool,

    /// With `--yes`, delete also what was made for this configuration and is no longer in it. What
    /// Pleo still tries to deliver for it is lost.
    #[arg(long)]
    pub(crate) delete: bool,

    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Setup {
    #[command(flatten)]
    pub(crate) api: Api,

    #[command(flatten)]
    pub(crate) receiver: Receiver,

    /// The public `https` URL at which Pleo reaches the receiver.
    #[arg(long)]
    pub(crate) url: String,

    /// The type of event to receive; again for others.
    #[arg(
        long = "event",
        value_name = "TYPE",
        default_value = "v1.export-job.created"
    )]
    pub(crate) events: Vec<String>,

    /// The path at which the receiver gets what is sent to the URL [default: the path of the URL].
    #[arg(long)]
    pub(crate) path: Option<String>,

    /// What to call the endpoint [default: its path].
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Where to write the signing secret [default: a file beside the configuration].
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,

    /// Subscribe also to a type of event that this version doesn't know.
    #[arg(long)]
    pub(crate) unknown_events: bool,

    /// Only show what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// What was done, as a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) api: Api,

    #[command(flatten)]
    pub(crate) receiver: Receiver,

    /// Don't send a test delivery.
    #[arg(long)]
    pub(crate) no_delivery: bool,

    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CatchUp {
    #[command(flatten)]
    pub(crate) api: Api,

    #[command(flatten)]
    pub(crate) receiver: Receiver,

    /// Leave alone jobs that are younger than this: their webhook may be on its way still.
    #[arg(long, value_name = "AGE", default_value = "1m")]
    pub(crate) min_age: SignedDuration,

    /// Only show what would be put into the inbox.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

fn status(text: &str) -> Result<Status, String> {
    match Status::from(text) {
        Status::Active => Ok(Status::Active),
        Status::Inactive => Ok(Status::Inactive),
        _ => Err("it is neither `ACTIVE` nor `INACTIVE`".to_owned()),
    }
}
