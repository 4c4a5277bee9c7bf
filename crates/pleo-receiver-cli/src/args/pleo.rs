//! The arguments of `setup`, `doctor` and `catch-up`, and those of all commands that call Pleo's API.

use std::path::PathBuf;

use clap::{Args, Parser};
use jiff::SignedDuration;

use crate::secret_ref::SecretRef;

const API: &str = "Pleo's API";
const CONFIGURATION: &str = "Configuration";

/// The address of Pleo's API, and the credentials for it.
#[derive(Args, Debug)]
pub(crate) struct ApiArgs {
    /// The token (JWT): `env:NAME`, `file:PATH`, or the token itself, which other users of this
    /// machine can read.
    #[arg(
        long,
        env = "PLEO_API_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "api_key",
        help_heading = API
    )]
    pub(crate) token: Option<SecretRef>,

    /// The API key, if Pleo gave you one instead of a token: `env:NAME`, `file:PATH`, or itself.
    #[arg(
        long,
        env = "PLEO_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = API
    )]
    pub(crate) api_key: Option<SecretRef>,

    /// Use Pleo's staging environment.
    #[arg(long, conflicts_with = "api_url", help_heading = API)]
    pub(crate) staging: bool,

    /// The base URL of the API, if not Pleo's production. Behind a proxy that intercepts TLS,
    /// SSL_CERT_FILE names the certificate authorities to trust.
    #[arg(long, env = "PLEO_API_URL", value_name = "URL", help_heading = API)]
    pub(crate) api_url: Option<String>,
}

impl ApiArgs {
    /// Reads the environment variables only.
    pub(crate) fn from_env() -> Result<Self, clap::Error> {
        #[derive(Parser)]
        struct Environment {
            #[command(flatten)]
            api: ApiArgs,
        }
        Ok(Environment::try_parse_from([""])?.api)
    }
}

/// The configuration of the receiver.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// The TOML file with the receiver's configuration.
    #[arg(
        long,
        env = "PLEO_CONFIG",
        value_name = "FILE",
        default_value = "pleo.toml",
        help_heading = CONFIGURATION
    )]
    pub(crate) config: PathBuf,

    /// The receiver's inbox: `sqlite:FILE` or FILE [default: the one in the configuration, or
    /// pleo-inbox.db].
    #[arg(long, env = "PLEO_INBOX", value_name = "URL", help_heading = CONFIGURATION)]
    pub(crate) inbox: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Setup {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    #[command(flatten)]
    pub(crate) receiver: ConfigArgs,

    /// The public `https` URL at which Pleo reaches the receiver.
    #[arg(long)]
    pub(crate) url: String,

    /// The event type to receive. Repeatable.
    #[arg(
        long = "event",
        value_name = "TYPE",
        default_value = "v1.export-job.created"
    )]
    pub(crate) events: Vec<String>,

    /// The path of the endpoint, if a proxy changes it [default: the path of the URL].
    #[arg(long)]
    pub(crate) path: Option<String>,

    /// The name of the endpoint [default: its path].
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// The file for the signing secret [default: a file in the folder of the configuration].
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,

    /// Accept event types that this version does not know.
    #[arg(long)]
    pub(crate) unknown_events: bool,

    /// Show the planned changes, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    #[command(flatten)]
    pub(crate) receiver: ConfigArgs,

    /// Do not send a signed test delivery to the endpoint.
    #[arg(long)]
    pub(crate) no_delivery: bool,

    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CatchUp {
    #[command(flatten)]
    pub(crate) api: ApiArgs,

    #[command(flatten)]
    pub(crate) receiver: ConfigArgs,

    /// Skip jobs younger than this: Pleo may still deliver their webhooks.
    #[arg(long, value_name = "AGE", default_value = "1m")]
    pub(crate) min_age: SignedDuration,

    /// List the missing export jobs, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}
