//! `pleo-receiver setup`: subscribes at Pleo and configures the endpoint.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use pleo_api::{Client, Subscription};
use pleo_receiver::SqliteInbox;
use pleo_receiver::events::EventType;
use pleo_receiver::verify::Secret;
use serde_json::json;
use uuid::Uuid;

use crate::args::pleo::Setup;
use crate::config::edit::{ConfigDocument, EndpointEdit};
use crate::config::lock::ConfigLock;
use crate::config::schema::{ConfigFile, EndpointTable};
use crate::failure::{Failure, chain};
use crate::files::{self, Access};
use crate::inbox_url::InboxUrl;
use crate::output;
use crate::pleo::apply::{apply, undo_create};
use crate::pleo::client::{CredentialsRef, client_with, find_subscriptions, signing_secret};
use crate::pleo::declared::{self, DeliveryHeaders};
use crate::pleo::owner::{check_not_copied, is_owned, new_name, owned_by};
use crate::pleo::plan::{Change, Desired};
use crate::pleo::secret_file::{self, OtherSecret, SecretFile};
use crate::secret_ref::is_same;

pub(crate) async fn run(args: Setup) -> Result<(), Failure> {
    let config = &args.receiver.config;
    let events = events(&args)?;
    let path = endpoint_path(&args)?;
    let _lock = if args.dry_run {
        None
    } else {
        ConfigLock::acquire(config).await?
    };
    let mut document = ConfigDocument::open(config)?;
    let file = if config.exists() {
        declared::read(&args.receiver)?
    } else {
        ConfigFile::default()
    };
    if file.has_single_endpoint() {
        return Err(Failure::Usage(format!(
            "{}: cannot add an endpoint beside the one at the top of the file: move `path`, \
             `secret` and `tolerance` into an `[[endpoint]]` table",
            config.display()
        )));
    }
    document.check_endpoints()?;
    let endpoint = (file.endpoint.iter()).find(|endpoint| endpoint.path == path);
    let desired = desired(&args, &events, endpoint)?;

    let credentials = CredentialsRef::from_args(&args.api)?;
    let client = client_with(credentials, &args.api)?;
    let owner = document.owner().map_or_else(new_name, str::to_owned);
    let mut urls = file.subscription_urls();
    urls.insert(&args.url);
    let existing = find_subscriptions(&client, |one| {
        urls.contains(one.endpoint_url.as_str()) || is_owned(one, document.owner())
    })
    .await?;
    check_not_copied(config, &urls, owned_by(document.owner(), &existing))?;
    let change = desired.plan(&existing, &owner)?;
    change.check(&client)?;
    check_endpoint(&path, args.name.as_deref().unwrap_or(&path), &file)?;

    let mut progress = Progress::new(&args);
    progress.print("token", &format!("accepted by {}", client.host()))?;
    let secret_file = SecretFile::choose(args.secret_file.as_deref(), endpoint, config, &path);
    let is_new = matches!(change, Change::Create(_));
    if is_new {
        secret_file::check_unused(&secret_file.path)?;
    }
    progress.print(change.verb(), &change.subject(&args.url))?;
    for difference in change.differences() {
        progress.print("", difference)?;
    }
    if args.dry_run {
        let (secret, config) = (secret_file.path.display(), config.display());
        progress.print("dry run", "nothing has changed")?;
        progress.print("", &format!("secret file {secret}, configuration {config}"))?;
        return Ok(progress.end(change.verb(), None)?);
    }
    if is_new {
        // Without its secret, a new subscription would be useless.
        files::check_writable(config, Access::Keep)?;
        files::check_writable(&secret_file.path, Access::Owner)?;
        if document.owner().is_none() {
            // Saved first: after an interruption, the next run finds the subscription by this name.
            document.set_owner(&owner);
            document.save()?;
        }
    }
    let id = apply(&change, &client).await?;
    let plan = Plan {
        args: &args,
        file: &file,
        path: &path,
        endpoint,
        events: &events,
        credentials,
        secret_file: &secret_file,
        change: &change,
    };
    // Nothing is printed before all is written: the reader of the output may be gone.
    let written = match plan.write(id, &client, &mut document).await {
        Ok(written) => written,
        Err(failure) if is_new => {
            return Err(undo_create(id, &client, credentials, &args.api, failure).await);
        }
        Err(failure) => return Err(failure),
    };
    match &change {
        Change::Keep { .. } => {}
        Change::Create(_) => progress.subscription("created", id)?,
        Change::Update { .. } => progress.subscription("updated", id)?,
    }
    if written.secret {
        progress.wrote("secret", &secret_file.path)?;
    }
    if written.config {
        progress.wrote("config", config)?;
    }
    if progress.changes.is_empty() {
        progress.print("done", "nothing to change")?;
    }
    print_replaced(endpoint, &existing, id, &progress)?;
    if !secret_file.is_credential {
        reload_receiver(&args, &file, &mut progress)?;
    } else if !progress.changes.is_empty() {
        // systemd reads credentials only then.
        progress.print("next", "start the systemd unit, or restart it if it runs")?;
    }
    let doctor = format!("pleo-receiver doctor --config {}", config.display());
    progress.print("then", &doctor)?;
    Ok(progress.end(change.verb(), Some(id))?)
}

/// What to write once Pleo has the subscription.
struct Plan<'a> {
    args: &'a Setup,
    file: &'a ConfigFile,
    path: &'a str,
    endpoint: Option<&'a EndpointTable>,
    events: &'a [String],
    credentials: CredentialsRef<'a>,
    secret_file: &'a SecretFile,
    change: &'a Change,
}

/// The files that have changed.
struct Written {
    secret: bool,
    config: bool,
}

impl Plan<'_> {
    /// Writes the signing secret and the configuration. If the latter fails, removes the secret of a
    /// new subscription.
    async fn write(
        &self,
        id: Uuid,
        client: &Client,
        document: &mut ConfigDocument,
    ) -> Result<Written, Failure> {
        let is_new = matches!(self.change, Change::Create(_));
        let (text, secret) = signing_secret(client, id).await?;
        let mut written = Written {
            secret: false,
            config: false,
        };
        let reference = if has_secret(self.endpoint, &secret) {
            None
        } else {
            let path = &self.secret_file.path;
            let other = if !is_new && self.file.is_only_user(self.path, path) {
                OtherSecret::Replace
            } else {
                OtherSecret::Refuse
            };
            written.secret = secret_file::write(path, text.expose(), other)?;
            (!self.secret_file.is_credential).then(|| format!("file:{}", path.display()))
        };
        let edited = document.set_endpoint(&EndpointEdit {
            path: self.path,
            name: self.args.name.as_deref(),
            secret: reference.as_deref(),
            url: &self.args.url,
            events: self.events,
            credentials: self.credentials.reference(),
        });
        let saved = edited.and_then(|()| document.save()).inspect_err(|_| {
            if is_new && written.secret {
                let _ = fs::remove_file(&self.secret_file.path);
            }
        });
        written.config = saved?;
        Ok(written)
    }
}

/// Returns the event types without duplicates. Refuses unknown types, which are often typing errors.
fn events(args: &Setup) -> Result<Vec<String>, Failure> {
    let mut seen = BTreeSet::new();
    let mut events = args.events.clone();
    events.retain(|event| seen.insert(event.clone()));
    let is_unknown =
        |event: &&String| matches!(EventType::from(event.as_str()), EventType::Other(_));
    match events.iter().find(is_unknown) {
        Some(event) if !args.unknown_events => Err(Failure::Usage(format!(
            "`--event {event}`: unknown event type; this version knows v1.export-job.created and \
             v1.vendor.created; if Pleo has the type, add `--unknown-events`"
        ))),
        _ => Ok(events),
    }
}

fn endpoint_path(args: &Setup) -> Result<String, Failure> {
    if let Some(path) = &args.path {
        return Ok(path.clone());
    }
    let url: http::Uri = args.url.parse().map_err(|_| {
        let why = "not a URL: give `https://host/path`";
        Failure::usage("`--url`", why)
    })?;
    Ok(url.path().to_owned())
}

/// Checks that `serve` will accept the endpoint, before Pleo has a subscription for it.
fn check_endpoint(path: &str, name: &str, file: &ConfigFile) -> Result<(), Failure> {
    let any_secret = Secret::from_bytes(&[0; 24]).map_err(|error| Failure::run(&error))?;
    pleo_receiver::Endpoint::new(path, any_secret)
        .map_err(|error| Failure::usage("`--path`", &chain(&error)))?;
    let mut others = file.endpoint.iter().filter(|other| other.path != path);
    match others.find(|other| other.name() == name) {
        Some(other) => {
            let why = format!(
                "the endpoint `{}` already has the name `{name}`: give another",
                other.path
            );
            Err(Failure::usage("`--name`", &why))
        }
        None => Ok(()),
    }
}

fn desired(
    args: &Setup,
    events: &[String],
    endpoint: Option<&EndpointTable>,
) -> Result<Desired, Failure> {
    let headers = match endpoint {
        Some(endpoint) => endpoint.delivery_headers()?,
        None => DeliveryHeaders::default(),
    };
    Ok(Desired {
        url: args.url.clone(),
        event_types: events.to_vec(),
        auth: headers.auth(),
        headers: headers.headers,
    })
}

fn has_secret(endpoint: Option<&EndpointTable>, secret: &Secret) -> bool {
    // A secret file may not exist yet.
    let secrets = endpoint.and_then(|endpoint| endpoint.secrets().ok());
    secrets.is_some_and(|secrets| secrets.iter().any(|own| is_same(own, secret)))
}

/// Reloads a running receiver after a change. Prints the commands that remain.
fn reload_receiver(args: &Setup, file: &ConfigFile, progress: &mut Progress<'_>) -> io::Result<()> {
    let config = args.receiver.config.display();
    let url = InboxUrl::parse(file.inbox_url(&args.receiver));
    if matches!(url, Ok(InboxUrl::Postgres(_))) {
        // Receivers on other machines cannot be found, and each has a copy of the files.
        let each = format!(
            "on each machine, copy {config} and its secrets, then `kill -HUP PID`, or \
             `pleo-receiver serve --config {config}`"
        );
        return progress.print("next", &each);
    }
    let inbox = match &url {
        Ok(InboxUrl::Sqlite(path)) => Some(path),
        _ => None,
    };
    if !inbox.is_some_and(SqliteInbox::is_served) {
        let serve = format!("pleo-receiver serve --config {config}");
        if file.has_handler() {
            progress.print("next", &serve)?;
        } else {
            progress.print("next", &format!("{serve} --exec COMMAND"))?;
            progress.print(
                "",
                "or `--forward URL`; without either, messages stay pending",
            )?;
        }
    } else if !progress.changes.is_empty() {
        let pid = inbox.and_then(SqliteInbox::server_pid);
        match pid.filter(|pid| send_hangup(*pid)) {
            Some(pid) => progress.reloaded(pid)?,
            None => progress.print(
                "next",
                "reload the receiver: `kill -HUP PID`, or restart it",
            )?,
        }
    }
    Ok(())
}

/// Sends SIGHUP, which makes the receiver reload its configuration.
#[cfg(unix)]
fn send_hangup(pid: u32) -> bool {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, Signal::HUP).is_ok())
}

#[cfg(not(unix))]
fn send_hangup(_: u32) -> bool {
    false
}

/// Prints the subscriptions of the endpoint's former URL. Pleo still delivers to it.
fn print_replaced(
    endpoint: Option<&EndpointTable>,
    existing: &[Subscription],
    id: Uuid,
    progress: &Progress<'_>,
) -> io::Result<()> {
    let Some(former) = endpoint.and_then(|endpoint| endpoint.subscription.as_ref()) else {
        return Ok(());
    };
    for subscription in existing {
        if subscription.endpoint_url == former.url && subscription.id != id {
            progress.print("still there", &subscription.endpoint_url)?;
            let delete = format!(
                "delete it with `pleo-receiver subscriptions delete {}`",
                subscription.id
            );
            progress.print("", &delete)?;
        }
    }
    Ok(())
}

/// Prints each completed step, or a JSON object at the end.
struct Progress<'a> {
    args: &'a Setup,
    changes: serde_json::Map<String, serde_json::Value>,
}

impl<'a> Progress<'a> {
    fn new(args: &'a Setup) -> Self {
        Self {
            args,
            changes: serde_json::Map::new(),
        }
    }

    fn print(&self, verb: &str, text: &str) -> io::Result<()> {
        if self.args.json {
            return Ok(());
        }
        output::line(format_args!("{verb:12} {text}"))
    }

    fn subscription(&mut self, verb: &str, id: Uuid) -> io::Result<()> {
        (self.changes).insert("subscription".to_owned(), id.to_string().into());
        self.print(verb, &format!("subscription {id}"))
    }

    fn wrote(&mut self, key: &str, file: &Path) -> io::Result<()> {
        let file = file.display().to_string();
        self.changes.insert(key.to_owned(), file.as_str().into());
        self.print("wrote", &file)
    }

    fn reloaded(&mut self, pid: u32) -> io::Result<()> {
        let text = format!("the receiver (process {pid})");
        self.changes.insert("told".to_owned(), text.as_str().into());
        self.print("reloaded", &text)
    }

    fn end(self, verb: &str, id: Option<Uuid>) -> io::Result<()> {
        if !self.args.json {
            return Ok(());
        }
        output::json(&json!({
            "do": verb,
            "id": id,
            "url": self.args.url,
            "changed": self.changes,
            "dry_run": self.args.dry_run,
        }))
    }
}
