//! The arguments of `pleo-receiver subscriptions`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pleo_api::{Cursor, Status};
use uuid::Uuid;

use super::pleo::{ApiArgs, ConfigArgs};
use crate::secret_ref::SecretRef;

const HEADERS: &str = "Headers of each delivery";
const PAGES: &str = "Pages";

#[derive(Debug, Subcommand)]
pub(crate) enum Subscriptions {
    /// List all subscriptions, or a page of them.
    #[command(after_help = "\
Examples:
  pleo-receiver subscriptions list
  pleo-receiver subscriptions list --status ACTIVE --event v1.vendor.created")]
    List(List),
    /// Create a subscription.
    #[command(after_help = "\
Example:
  pleo-receiver subscriptions create --url https://example.com/pleo \\
      --event v1.export-job.created")]
    Create(Create),
    /// Show a subscription.
    #[command(after_help = "\
Example:
  pleo-receiver subscriptions get ID")]
    Get(ById),
    /// Change a subscription. Fields without a flag stay unchanged.
    #[command(after_help = "\
Example:
  pleo-receiver subscriptions update ID --status INACTIVE")]
    Update(Update),
    /// Delete a subscription. Its pending deliveries are lost.
    #[command(after_help = "\
Example:
  pleo-receiver subscriptions delete ID")]
    Delete(ById),
    /// Print the signing secret of a subscription, or write it to a file.
    #[command(after_help = "\
Example:
  pleo-receiver subscriptions secret ID --output pleo.secret")]
    Secret(Secret),
    /// List the operations on a subscription.
    #[command(after_help = "\
Example:
  pleo-receiver subscriptions activities ID --operation UPDATE")]
    Activities(Activities),
    /// Make the subscriptions at Pleo match the configuration. Shows the plan; `--yes` applies it.
    #[command(after_help = "\
Examples:
  pleo-receiver subscriptions sync                 # show the plan
  pleo-receiver subscriptions sync --yes           # create and update
  pleo-receiver subscriptions sync --yes --delete  # also delete

`sync` marks each subscription that it creates with the name in the table
`[subscriptions]` of the file, and deletes only subscriptions with this name.
A copy of the file, such as one for staging, must not have this table: the next
`setup` or `sync --yes` writes a new name. If the file declares none of the
subscriptions with its name, `sync` takes it for a copy and changes nothing.")]
    Sync(Sync),
}

/// Selects a page of a list. Without these flags, all pages are listed.
#[derive(Args, Debug)]
pub(crate) struct PageArgs {
    /// List the page that ends before this cursor.
    #[arg(
        long,
        value_name = "CURSOR",
        conflicts_with_all = ["after", "offset"],
        help_heading = PAGES
    )]
    pub(crate) before: Option<Cursor>,

    /// List the page that starts after this cursor.
    #[arg(long, value_name = "CURSOR", conflicts_with = "offset", help_heading = PAGES)]
    pub(crate) after: Option<Cursor>,

    /// List the page that starts after this many entries.
    #[arg(long, value_name = "N", help_heading = PAGES)]
    pub(crate) offset: Option<u64>,

    /// List at most this many entries.
    #[arg(long, value_name = "N", help_heading = PAGES)]
    pub(crate) limit: Option<u32>,

    /// Sort by this key: `createdAt`, `createdAt:DESC`. Repeatable.
    #[arg(long, value_name = "KEY[:ORDER]", help_heading = PAGES)]
    pub(crate) sort: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// List only subscriptions with this status: `ACTIVE` or `INACTIVE`.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    pub(crate) status: Option<Status>,

    /// List only subscriptions to this event type. Repeatable.
    #[arg(long = "event", value_name = "TYPE")]
    pub(crate) events: Vec<String>,

    #[command(flatten)]
    pub(crate) page: PageArgs,

    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Headers that Pleo sends with each delivery, besides the signature.
#[derive(Args, Debug)]
pub(crate) struct HeaderArgs {
    /// The header: `env:NAME`, `file:PATH`, or itself, such as `x-tenant: acme`. Repeatable.
    #[arg(
        long = "header",
        short = 'H',
        value_name = "NAME: VALUE",
        help_heading = HEADERS
    )]
    pub(crate) headers: Vec<SecretRef>,

    /// The user name of Basic credentials.
    #[arg(long, value_name = "USER", requires = "password", help_heading = HEADERS)]
    pub(crate) username: Option<SecretRef>,

    /// The password of Basic credentials: `env:NAME`, `file:PATH`, or the password itself, which
    /// other users of this machine can read.
    #[arg(long, value_name = "PASSWORD", requires = "username", help_heading = HEADERS)]
    pub(crate) password: Option<SecretRef>,
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// The public `https` URL that Pleo delivers to.
    #[arg(long)]
    pub(crate) url: String,

    /// The event type to deliver. Repeatable.
    #[arg(long = "event", value_name = "TYPE", required = true)]
    pub(crate) events: Vec<String>,

    /// The status: `ACTIVE`, or `INACTIVE` to deliver nothing yet.
    #[arg(long, value_name = "STATUS", value_parser = status, default_value = "ACTIVE")]
    pub(crate) status: Status,

    #[command(flatten)]
    pub(crate) headers: HeaderArgs,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ById {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// The id of the subscription.
    pub(crate) id: Uuid,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// The id of the subscription.
    pub(crate) id: Uuid,

    /// The new public `https` URL that Pleo delivers to.
    #[arg(long)]
    pub(crate) url: Option<String>,

    /// The event type to deliver, instead of the present ones. Repeatable.
    #[arg(long = "event", value_name = "TYPE")]
    pub(crate) events: Vec<String>,

    /// The new status: `ACTIVE` or `INACTIVE`.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    pub(crate) status: Option<Status>,

    #[command(flatten)]
    pub(crate) headers: HeaderArgs,

    /// Remove this header. Repeatable.
    #[arg(long, value_name = "NAME", help_heading = HEADERS)]
    pub(crate) remove_header: Vec<String>,

    /// Remove the Basic credentials.
    #[arg(long, conflicts_with = "username", help_heading = HEADERS)]
    pub(crate) remove_credentials: bool,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Secret {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// The id of the subscription.
    pub(crate) id: Uuid,

    /// Write the secret to this file, readable by its owner only, instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Activities {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// The id of the subscription. It may be a deleted one.
    pub(crate) id: Uuid,

    /// List only operations of this type: `CREATE`, `UPDATE` or `DELETE`. Repeatable.
    #[arg(long = "operation", value_name = "TYPE")]
    pub(crate) operations: Vec<String>,

    #[command(flatten)]
    pub(crate) page: PageArgs,

    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Sync {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    #[command(flatten)]
    pub(crate) receiver: ConfigArgs,

    /// Create and update subscriptions, but delete none.
    #[arg(long)]
    pub(crate) yes: bool,

    /// With `--yes`, also delete the subscriptions with the file's name that it no longer declares.
    /// Their pending deliveries are lost.
    #[arg(long)]
    pub(crate) delete: bool,

    /// Print one JSON object per line.
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
