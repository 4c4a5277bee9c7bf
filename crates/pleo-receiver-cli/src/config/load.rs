//! The configuration of `serve`. A flag beats its environment variable, and that beats the file.

use core::hash::{Hash, Hasher};
use std::ffi::OsStr;
use std::hash::DefaultHasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Parser as _;
use ipnet::IpNet;
use pleo_receiver::{DispatchOptions, Endpoint};

use super::admin::AdminSettings;
use super::endpoints::endpoints;
use super::handler::{Target, target};
use super::limits::Limits;
use super::location::Location;
use super::schema::{ConfigFile, DEFAULT_FILE};
use super::tasks::Tasks;
use super::values::{Address, networks, parse_network};
use crate::args::{Cli, Command, Serve};
use crate::failure::Failure;
use crate::inbox_url::DEFAULT_INBOX;
use crate::log::LogSettings;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787);

/// The configuration of a server.
pub(crate) struct Config {
    pub(crate) fixed: Fixed,
    pub(crate) admin: AdminSettings,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) handler: Option<Target>,
    pub(crate) retry: DispatchOptions,
    /// A hash of the settings of `handler` and `retry`. A reload compares it.
    pub(crate) handler_hash: u64,
    pub(crate) tasks: Tasks,
    /// The settings of the log in the file.
    pub(crate) log: LogSettings,
}

/// The settings that a reload does not change.
#[derive(Clone)]
pub(crate) struct Fixed {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) inbox: String,
    pub(crate) migrate: bool,
    pub(crate) allow_shared_directory: bool,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) limits: Limits,
}

/// The address, certificate and key of the HTTPS listener.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) listen: SocketAddr,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Config {
    /// Returns the configuration that `serve` has with this file and the environment, without flags.
    pub(crate) fn without_flags(file: Option<&Path>) -> Result<Self, Failure> {
        Self::new(&args_without_flags(file)?)
    }

    /// Merges the flags and environment variables in `args` with the file.
    pub(crate) fn new(args: &Serve) -> Result<Self, Failure> {
        let path = file_path(args.config.as_deref());
        let file = path
            .map(ConfigFile::from_path)
            .transpose()?
            .unwrap_or_default();
        let location = Location(path);
        let mut retry = file.retry.options();
        retry.grace = file.limits.server().grace;
        let mut hash = DefaultHasher::new();
        file.retry.hash(&mut hash);
        let endpoints = endpoints(args, &file, location)?;
        let handler = target(args, &file, retry.timeout, location, &mut hash)?;
        let tls = tls(args, &file, location)?;
        let admin = AdminSettings::new(args, &file, location)?;
        let default = tls.is_none().then_some(DEFAULT_LISTEN);
        let mut trusted_proxies = Vec::new();
        for network in &args.trusted_proxies {
            let parsed = parse_network(network);
            trusted_proxies.push(parsed.map_err(|why| Failure::usage("`--trusted-proxy`", &why))?);
        }
        if trusted_proxies.is_empty() {
            trusted_proxies = networks(&file.trusted_proxies);
        }
        let inbox = args.inbox.clone().or(file.inbox);
        let config = path.unwrap_or_else(|| Path::new(DEFAULT_FILE)).to_owned();
        let catch_up = file.catch_up.schedule(config);
        let catch_up =
            catch_up.map_err(|why| Failure::usage(&location.key("catch_up.every"), why))?;
        let tasks = Tasks {
            retention: file.retention.ages(),
            catch_up,
        };
        Ok(Self {
            fixed: Fixed {
                listen: args.listen.or_else(|| address(file.listen)).or(default),
                tls,
                admin: admin.address,
                inbox: inbox.unwrap_or_else(|| DEFAULT_INBOX.to_owned()),
                migrate: args.migrate.or(file.migrate).unwrap_or(true),
                allow_shared_directory: args.allow_shared_directory || file.allow_shared_directory,
                trusted_proxies,
                limits: file.limits,
            },
            admin,
            endpoints,
            handler,
            retry,
            handler_hash: hash.finish(),
            tasks,
            log: LogSettings {
                filter: file.log,
                format: file.log_format,
            },
        })
    }
}

impl Fixed {
    /// Returns the keys whose values differ.
    pub(crate) fn changes(&self, other: &Self) -> Vec<String> {
        fn tls<'a, T>(fixed: &'a Fixed, field: fn(&'a TlsFiles) -> T) -> Option<T> {
            fixed.tls.as_ref().map(field)
        }
        let differs = [
            ("listen", self.listen != other.listen),
            (
                "tls_listen",
                tls(self, |tls| tls.listen) != tls(other, |tls| tls.listen),
            ),
            (
                "tls_certificate",
                tls(self, |tls| &tls.certificate) != tls(other, |tls| &tls.certificate),
            ),
            (
                "tls_key",
                tls(self, |tls| &tls.key) != tls(other, |tls| &tls.key),
            ),
            ("admin", self.admin != other.admin),
            ("inbox", self.inbox != other.inbox),
            ("migrate", self.migrate != other.migrate),
            (
                "allow_shared_directory",
                self.allow_shared_directory != other.allow_shared_directory,
            ),
            (
                "trusted_proxies",
                self.trusted_proxies != other.trusted_proxies,
            ),
        ];
        let changed = differs.into_iter().filter(|(_, differs)| *differs);
        let changed = changed.map(|(key, _)| key.to_owned());
        changed.chain(self.limits.changes(&other.limits)).collect()
    }
}

/// Returns the settings of the admin listener with this file and the environment, without flags. Reads
/// no other settings.
pub(crate) fn admin_settings(file: Option<&Path>) -> Result<AdminSettings, Failure> {
    let args = args_without_flags(file)?;
    let path = file_path(args.config.as_deref());
    let file = path.map(ConfigFile::from_path).transpose()?;
    AdminSettings::new(&args, &file.unwrap_or_default(), Location(path))
}

/// Returns the configuration file: the named file, or `pleo.toml` if it exists.
pub(crate) fn file_path(named: Option<&Path>) -> Option<&Path> {
    let default = Path::new(DEFAULT_FILE);
    named.or_else(|| default.exists().then_some(default))
}

/// Returns the URL of the inbox: the named URL, or the URL in the file.
pub(crate) fn inbox_url(named: Option<String>, config: Option<&Path>) -> Result<String, Failure> {
    if let Some(url) = named {
        return Ok(url);
    }
    let file = file_path(config).map(ConfigFile::from_path).transpose()?;
    let url = file.and_then(|file| file.inbox);
    Ok(url.unwrap_or_else(|| DEFAULT_INBOX.to_owned()))
}

/// Returns the names of the endpoints in the configuration; of the default endpoint, if there is none.
pub(crate) fn endpoint_names(config: Option<&Path>) -> Result<Vec<String>, Failure> {
    let file = file_path(config).map(ConfigFile::from_path).transpose()?;
    let names = file.unwrap_or_default();
    let names = names.endpoint_names().into_iter().map(str::to_owned);
    Ok(names.collect())
}

/// Returns the arguments that `serve` has with this file and the environment.
fn args_without_flags(file: Option<&Path>) -> Result<Serve, Failure> {
    // Parsed by clap, which also reads the environment variables.
    let command = ["pleo-receiver", "serve"].map(OsStr::new);
    let file = file.map(|file| [OsStr::new("--config"), file.as_os_str()]);
    let command = command.into_iter().chain(file.into_iter().flatten());
    let cli = Cli::try_parse_from(command).map_err(|error| Failure::Usage(error.to_string()))?;
    match cli.command {
        Command::Serve(serve) => Ok(*serve),
        _ => Err(Failure::Run("the command `serve` is missing".to_owned())),
    }
}

fn tls(
    args: &Serve,
    file: &ConfigFile,
    location: Location<'_>,
) -> Result<Option<TlsFiles>, Failure> {
    let listen = args.tls_listen.or_else(|| address(file.tls_listen));
    let certificate = (args.tls_certificate.as_ref()).or(file.tls_certificate.as_ref());
    let key = args.tls_key.as_ref().or(file.tls_key.as_ref());
    let missing = match (listen, certificate, key) {
        (None, None, None) => return Ok(None),
        (Some(listen), Some(certificate), Some(key)) => {
            return Ok(Some(TlsFiles {
                listen,
                certificate: certificate.clone(),
                key: key.clone(),
            }));
        }
        (None, ..) => "tls-listen",
        (_, None, _) => "tls-certificate",
        (.., None) => "tls-key",
    };
    let why = "missing: HTTPS needs an address, a certificate and a key";
    Err(Failure::usage(&location.flag(missing), why))
}

fn address(in_file: Option<Address>) -> Option<SocketAddr> {
    in_file.map(|address| address.0)
}
