//! The arguments of `dev`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::pleo::ApiArgs;
use super::values::address;
use crate::secret_ref::SecretRef;

const HANDLER: &str = "Handler";
const NETWORK: &str = "Network";

#[derive(Args, Debug)]
pub(crate) struct Dev {
    /// Post each message to this URL.
    #[arg(
        long,
        env = "PLEO_FORWARD",
        hide_env_values = true,
        value_name = "URL",
        conflicts_with = "exec",
        help_heading = HANDLER
    )]
    pub(crate) forward: Option<SecretRef>,

    /// Sign forwarded messages with this secret.
    #[arg(
        long,
        env = "PLEO_FORWARD_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        help_heading = HANDLER
    )]
    pub(crate) forward_secret: Option<SecretRef>,

    /// Run this command for each message, without a shell, with the body on standard input.
    #[arg(long, env = "PLEO_EXEC", value_name = "COMMAND", help_heading = HANDLER)]
    pub(crate) exec: Option<String>,

    /// The address of the receiver [default: 127.0.0.1:8787, or a free port if that is busy].
    #[arg(
        long,
        env = "PLEO_LISTEN",
        value_name = "ADDR",
        value_parser = address,
        help_heading = NETWORK
    )]
    pub(crate) listen: Option<SocketAddr>,

    /// The address of the inspection page, on this machine [default: 127.0.0.1:9187, or a free port].
    #[arg(
        long,
        env = "PLEO_ADMIN",
        value_name = "ADDR",
        value_parser = address,
        help_heading = NETWORK
    )]
    pub(crate) admin: Option<SocketAddr>,

    /// Receive from your account at Pleo instead of a sandbox, at this public URL, from which a tunnel
    /// leads to `--listen`. Subscribes for the time of the session.
    #[arg(long, value_name = "URL", help_heading = NETWORK)]
    pub(crate) url: Option<String>,

    /// Keep the inbox in this folder, and go on from it [default: a temporary folder].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
