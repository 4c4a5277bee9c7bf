//! The arguments of `sandbox`.

use core::num::NonZeroU32;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use super::values::address;

#[derive(Args, Debug)]
pub(crate) struct Sandbox {
    /// The port to listen on, on this machine only; 0 chooses a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8788)]
    pub(crate) port: u16,

    /// The address to listen on. One that other machines can reach needs `--host`.
    #[arg(long, value_name = "ADDR", value_parser = address, conflicts_with = "port")]
    pub(crate) listen: Option<SocketAddr>,

    /// Accept requests to this host name besides `localhost`. Everybody who reaches the sandbox by it
    /// can control it. Repeatable.
    #[arg(long = "host", value_name = "NAME")]
    pub(crate) hosts: Vec<String>,

    /// Accept endpoints with plain `http` on other machines too.
    #[arg(long)]
    pub(crate) http_endpoints: bool,

    /// Make ids, secrets and the token repeatable.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,

    /// Keep the state in this file, and go on from it [default: in memory].
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,

    /// Divide the delays of the sender by this factor: with 1000, 5 minutes become 0.3 seconds.
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    pub(crate) compress: NonZeroU32,

    /// The lifetime of export jobs.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub(crate) expire_after: SignedDuration,

    /// The prefix of the signature headers.
    #[arg(long, value_name = "PREFIX", default_value = "webhook")]
    pub(crate) header_prefix: HeaderPrefix,

    /// Write the token into this file, which only you can read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Print one JSON object with the URL and the token, for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The prefix of the signature headers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum HeaderPrefix {
    Webhook,
    Svix,
    Both,
}
