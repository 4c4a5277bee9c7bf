//! `pleo-receiver setup`: from a token to a subscription whose deliveries the receiver can verify.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pleo_receiver::SqliteInbox;
use pleo_receiver::events::EventType;
use pleo_receiver::verify::Secret;
use serde_json::json;
use uuid::Uuid;

use crate::args::pleo::Setup;
use crate::config::edit::{Document, Subscribe};
use crate::failure::Failure;
use crate::files;
use crate::inbox_url::sqlite_path;
use crate::pleo::client::{self as api, Login, subscriptions};
use crate::pleo::declared::{Declared, Endpoint, Extras};
use crate::pleo::plan::{Change, Wanted, check_copy, new_owner, owned};
use crate::pleo::{plain, secret_file};
use crate::secret_ref::is_same;

pub(crate) async fn run(args: Setup) -> Result<(), Failure> {
    let config = &args.receiver.config;
    let events = events(&args)?;
    let path = path(&args)?;
    let mut document = Document::open(config)?;
    let declared = if config.exists() {
        Declared::read(&args.receiver)?
    } else {
        Declared::default()
    };
    if declared.has_single_endpoint() {
        return Err(Failure::Usage(format!(
            "{}: its one endpoint stands at the top; move `path`, `secret` and `tolerance` into an \
             `[[endpoint]]` table, so that there can be another one",
            config.display()
        )));
    }
    document.check_endpoints()?;
    let endpoint = declared.endpoint.iter().find(|one| one.path == path);
    let extras = endpoint.map_or_else(|| Ok(Extras::default()), Endpoint::extras)?;
    let wanted = Wanted {
        url: args.url.clone(),
        event_types: events.clone(),
        headers: extras.headers.clone(),
        auth: extras.auth(),
    };

    let login = args.api.login()?;
    let client = args.api.client_of(login)?;
    let new = new_owner();
    let owner = document.owner().unwrap_or(&new).to_owned();
    // This also shows whether the token is good.
    let there = subscriptions(&client).await?;
    let mut urls = declared.urls();
    urls.insert(&args.url);
    check_copy(owned(&there, document.owner()), &urls, config)?;
    let change = wanted.change(&there, &owner)?;
    check_new(&path, args.name.as_deref().unwrap_or(&path), &declared)?;
    let mut report = Report::new(&args);
    report.line("pleo", &format!("{} knows the token", client.host()))?;
    let file = secret_file(&args, &path);
    let is_new = matches!(change, Change::Create(_));
    if is_new {
        // Better now than between Pleo and the file.
        secret_file::check_free(&file)?;
    }
    let (verb, words) = change.describe(&args.url);
    report.line(verb, &words)?;
    if args.dry_run {
        let text = format!(
            "nothing was done; the secret would be in {}, the endpoint in {}",
            file.display(),
            config.display()
        );
        report.line("dry run", &text)?;
        return report.end(verb, None, &args.url);
    }
    if is_new {
        files::check(config)?;
        files::check(&file)?;
        if document.owner().is_none() {
            // Before it marks anything, so that it can't be forgotten.
            document.set_owner(&owner);
            document.save()?;
        }
    }
    let id = change.apply(&client).await?;
    let made = !matches!(change, Change::Keep { .. });
    if made {
        report.change("subscription", &id.to_string())?;
    }

    let (secret, parsed) = api::secret(&client, id).await?;
    let reference = if has_secret(endpoint, &parsed) {
        None
    } else {
        let is_own = !is_new && declared.is_only_user(&path, &file);
        if secret_file::keep_secret(&file, secret.expose(), is_own)? {
            report.change("secret", &file.display().to_string())?;
        }
        Some(format!("file:{}", file.display()))
    };
    document.subscribe(&Subscribe {
        path: &path,
        name: args.name.as_deref().filter(|_| endpoint.is_none()),
        secret: reference.as_deref(),
        url: &args.url,
        events: &events,
        login: reference_of(login),
    })?;
    if document.save()? {
        report.change("config", &config.display().to_string())?;
    }
    tell_server(&args, &declared, &mut report)?;
    let before = endpoint.and_then(|endpoint| endpoint.subscription.as_ref());
    for one in &there {
        if before.is_some_and(|before| before.url == one.endpoint_url) && one.id != id {
            let (id, url) = (one.id, &one.endpoint_url);
            let words = format!("{url}: `pleo-receiver subscriptions delete {id}` ends it");
            report.line("still there", &words)?;
        }
    }
    report.end(verb, Some(id), &args.url)
}

/// Without those that are there twice; none that is probably a slip of the pen.
fn events(args: &Setup) -> Result<Vec<String>, Failure> {
    let mut seen = BTreeSet::new();
    let mut events = args.events.clone();
    events.retain(|event| seen.insert(event.clone()));
    let is_unknown = |event: &&String| EventType::from(event.as_str()) == EventType::Unknown;
    match events.iter().find(is_unknown) {
        Some(event) if !args.unknown_events => Err(Failure::Usage(format!(
            "`--event {event}`: not a type that this version knows; it knows \
             v1.export-job.created and v1.vendor.created. Where Pleo has it, add \
             `--unknown-events`"
        ))),
        _ => Ok(events),
    }
}

/// The path of the endpoint: the URL's, unless something in front of the receiver changes it.
fn path(args: &Setup) -> Result<String, Failure> {
    if let Some(path) = &args.path {
        return Ok(path.clone());
    }
    let url: http::Uri = args.url.parse().map_err(|_| {
        let why = "it is not a URL: give `https://host/path`";
        Failure::Usage(format!("`--url`: {why}"))
    })?;
    Ok(url.path().to_owned())
}

/// Whether a server could take the endpoint, before there is a subscription for it.
fn check_new(path: &str, name: &str, declared: &Declared) -> Result<(), Failure> {
    // Which secret doesn't matter yet.
    let secret = Secret::from_bytes(&[0; 24]).map_err(|error| Failure::Run(error.to_string()))?;
    pleo_receiver::Endpoint::new(path, secret)
        .map_err(|error| Failure::Usage(format!("`--path`: {error}")))?;
    let mut others = declared.endpoint.iter().filter(|one| one.path != path);
    match others.find(|one| one.name() == name) {
        Some(other) => Err(Failure::Usage(format!(
            "`--name`: the endpoint `{}` has the name `{name}` already: give another",
            other.path
        ))),
        None => Ok(()),
    }
}

/// Whether the receiver has this secret already, wherever from.
fn has_secret(endpoint: Option<&Endpoint>, secret: &Secret) -> bool {
    // One that can't be read yet isn't there.
    let secrets = endpoint.and_then(|endpoint| endpoint.secrets().ok());
    secrets.is_some_and(|secrets| secrets.iter().any(|one| is_same(one, secret)))
}

/// A file beside the configuration, called by the path of the endpoint.
fn secret_file(args: &Setup, path: &str) -> PathBuf {
    if let Some(file) = &args.secret_file {
        return file.clone();
    }
    let letter = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '-'
        }
    };
    let name: String = path.chars().map(letter).collect();
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "pleo" } else { name };
    let folder = args
        .receiver
        .config
        .parent()
        .unwrap_or_else(|| Path::new(""));
    folder.join(format!("{name}.secret"))
}

/// Where the token is, if that can stand in a file.
fn reference_of(login: Login<'_>) -> Option<(&'static str, &str)> {
    match login {
        Login::Token(hidden) => hidden.reference().map(|place| ("token", place)),
        Login::ApiKey(hidden) => hidden.reference().map(|place| ("api_key", place)),
    }
}

/// Lets a receiver that runs read the configuration again; says how to start one where none does.
fn tell_server(args: &Setup, declared: &Declared, report: &mut Report) -> Result<(), Failure> {
    let inbox = declared.inbox(&args.receiver);
    let path = sqlite_path(inbox).ok();
    if !path.is_some_and(SqliteInbox::is_served) {
        let config = args.receiver.config.display();
        report.line("next", &format!("pleo-receiver serve --config {config}"))?;
    } else if !report.changes.is_empty() {
        let pid = path.and_then(SqliteInbox::server_pid);
        if let Some(pid) = pid.filter(|pid| reload(*pid)) {
            let words = format!("the receiver (process {pid}) to read its configuration again");
            report.change("told", &words)?;
        } else {
            let words = "let the receiver that runs read its configuration again: `kill -HUP`, or \
                         a restart";
            report.line("next", words)?;
        }
    }
    let config = args.receiver.config.display();
    Ok(report.line("then", &format!("pleo-receiver doctor --config {config}"))?)
}

/// Whether a process could be told to read its configuration again.
fn reload(pid: u32) -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, Signal::HUP).is_ok())
    }
    #[cfg(not(unix))]
    {
        let _ = pid;
        false
    }
}

/// What was done: line by line, or at the end as JSON.
struct Report {
    json: bool,
    dry_run: bool,
    changes: Vec<(&'static str, String)>,
}

impl Report {
    const fn new(args: &Setup) -> Self {
        Self {
            json: args.json,
            dry_run: args.dry_run,
            changes: Vec::new(),
        }
    }

    fn line(&self, verb: &str, words: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        writeln!(io::stdout().lock(), "{verb:12} {}", plain(words))
    }

    fn change(&mut self, what: &'static str, name: &str) -> io::Result<()> {
        self.changes.push((what, name.to_owned()));
        self.line(what, name)
    }

    fn end(self, verb: &str, id: Option<Uuid>, url: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if self.json {
            let changed: serde_json::Map<_, _> = self
                .changes
                .into_iter()
                .map(|(what, name)| (what.to_owned(), name.into()))
                .collect();
            let dry_run = self.dry_run;
            let object = json!({
                "do": verb, "id": id, "url": url, "changed": changed, "dry_run": dry_run,
            });
            writeln!(out, "{object}")?;
        } else if self.changes.is_empty() && !self.dry_run {
            writeln!(out, "nothing had to be changed")?;
        }
        Ok(())
    }
}
