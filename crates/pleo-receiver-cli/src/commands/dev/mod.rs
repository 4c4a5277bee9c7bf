//! `pleo-receiver dev`: runs a receiver, its Pleo and the inspection page, and shows each delivery.

mod browser;
mod observe;
mod pleo;
mod receiver;
mod screen;
mod terminal;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use pleo_receiver::verify::Secret;
use pleo_receiver::{Endpoint, Query, Selection};
use tempfile::TempDir;
use tokio::net::TcpListener;

use self::observe::{Events, Observer, observer};
use self::pleo::{Planned, Pleo, Sample};
use self::receiver::Running;
use self::screen::{KEY, Screen};
use self::terminal::Keys;
use crate::args::Serve;
use crate::args::dev::Dev;
use crate::config::handler::{Target, missing_program_fix};
use crate::config::schema::DEFAULT_PATH;
use crate::failure::{Failure, chain};
use crate::files::temporary_folder;
use crate::listen::{bind, reachable};
use crate::log::{Log, LogSettings};
use crate::signals::{Hangup, Stop};
use crate::{http_client, output};

/// The levels of the log: the screen shows what handlers do.
const LOG: &str = "error,pleo_receiver::telemetry::dispatching=off";

const LISTEN: u16 = 8787;
const ADMIN: u16 = 9187;

const KEYS: &str = "e export job, v vendor, r replay, o open page, ? help, q quit";

pub(crate) async fn run(args: Dev, log: &Log) -> Result<(), Failure> {
    log.configure(LogSettings {
        filter: LOG.parse().ok(),
        format: None,
    });
    let mut quit = Quit::new()?;
    let path = path(&args)?;
    check_path(&path)?;
    let serve = Serve {
        forward: args.forward.clone(),
        forward_secret: args.forward_secret.clone(),
        exec: args.exec.clone(),
        ..Serve::default()
    };
    let handler = Target::from_args(&serve)?;
    let handler_text = describe_handler(&serve, handler.as_ref());
    let folder = Folder::new(args.keep.clone())?;
    let listener = match args.listen {
        Some(address)
            if args.url.is_none() && !reachable(address).ip().to_canonical().is_loopback() =>
        {
            let why = "the sandbox delivers only to this machine: give 127.0.0.1:8787, or 0.0.0.0:8787 \
                       to listen on all addresses";
            return Err(Failure::usage("`--listen`", why));
        }
        Some(address) => bind(address, "listen")?,
        // A tunnel leads to this port.
        None if args.url.is_some() => bind(loopback(LISTEN), "listen")?,
        None => bind_or_free(LISTEN, "listen")?,
    };
    let admin = match args.admin {
        Some(address) if !address.ip().to_canonical().is_loopback() => {
            let why = "other machines could reach it: give an address of this machine, such as \
                       127.0.0.1:0";
            return Err(Failure::usage("`--admin`", why));
        }
        Some(address) => bind(address, "admin")?,
        None => bind_or_free(ADMIN, "admin")?,
    };
    let inbox = folder.open()?;
    let address = reachable(local_address(&listener)?);
    let busy = Busy {
        receiver: args.listen.is_none() && address.port() != LISTEN,
        page: args.admin.is_none() && local_address(&admin)?.port() != ADMIN,
    };
    let endpoint = format!("http://{address}{path}");
    let (pleo, secret) = match &args.url {
        None => Pleo::sandbox(&endpoint).await?,
        Some(public) => {
            let planned = tokio::select! {
                planned = Planned::new(&args.api, public) => planned?,
                () = quit.wait() => return Ok(()),
            };
            // Not interrupted by the first signal: it would leave a subscription.
            tokio::select! {
                created = planned.create() => created?,
                () = quit.twice() => {
                    let why = "interrupted while Pleo created a subscription, which may be left: \
                               `pleo-receiver subscriptions list` shows it";
                    return Err(Failure::Run(why.to_owned()));
                }
            }
        }
    };
    let (observer, mut events) = observer();
    let mut session = Session {
        screen: Screen::new(endpoint.clone()),
        endpoint,
        busy,
        folder,
        handler: handler_text,
        observer,
        keys: None,
        pleo,
    };
    let ended = match session.start(&path, secret, inbox, handler, listener, admin) {
        Ok(mut running) => {
            let ended = session.work(&mut running, &mut events, &mut quit).await;
            // Restores the terminal.
            session.keys = None;
            let finish = async {
                let stopped = running.stop().await;
                both(stopped, session.pleo.end().await)
            };
            let finished = tokio::select! {
                finished = finish => finished,
                () = quit.wait() => session.pleo.left("interrupted"),
            };
            session.show_rest(&mut events);
            both(ended, finished)
        }
        Err(failure) => both(Err(failure), session.pleo.end().await),
    };
    drop(session);
    ended
}

/// A running session.
struct Session {
    screen: Screen,
    /// The URL of the endpoint on this machine.
    endpoint: String,
    busy: Busy,
    folder: Folder,
    /// Describes the handler.
    handler: String,
    observer: Observer,
    /// `None` without a terminal.
    keys: Option<Keys>,
    pleo: Pleo,
}

impl Session {
    fn start(
        &mut self,
        path: &str,
        secret: Secret,
        inbox: std::sync::Arc<dyn pleo_receiver::Inbox>,
        handler: Option<Target>,
        listener: TcpListener,
        admin: TcpListener,
    ) -> Result<Running, Failure> {
        let endpoint = Endpoint::new(path, secret).map_err(|error| Failure::Run(chain(&error)))?;
        let observer = self.observer.clone();
        let running = Running::start(endpoint, inbox, handler, listener, admin, observer)?;
        self.keys = Keys::open();
        Ok(running)
    }

    /// Shows events and handles keys until the user quits.
    async fn work(
        &mut self,
        running: &mut Running,
        events: &mut Events,
        quit: &mut Quit,
    ) -> Result<(), Failure> {
        self.introduce(running)?;
        output::line("")?;
        loop {
            let key = async {
                match &mut self.keys {
                    Some(keys) => keys.next().await,
                    None => core::future::pending().await,
                }
            };
            tokio::select! {
                () = quit.wait() => return Ok(()),
                Some(event) = events.next() => self.screen.event(&event)?,
                failure = running.failed() => return Err(failure),
                key = key => match key {
                    'e' => self.pleo.send(Sample::ExportJob, &self.observer),
                    'v' => self.pleo.send(Sample::Vendor, &self.observer),
                    'r' => self.replay(running).await?,
                    'o' => browser::open(running.sign_in_link()?, self.observer.clone()),
                    '?' => {
                        output::line("")?;
                        self.introduce(running)?;
                    }
                    // Ctrl-D is the end of the input.
                    'q' | '\x04' => return Ok(()),
                    _ => {}
                },
            }
        }
    }

    /// Shows the events that are left, as of the handlers that the end of the session stopped.
    fn show_rest(&self, events: &mut Events) {
        while let Some(event) = events.try_next() {
            // The reader of the output may be gone.
            let _ = self.screen.event(&event);
        }
    }

    /// Prints the addresses and the keys.
    fn introduce(&self, running: &Running) -> Result<(), Failure> {
        let screen = &self.screen;
        let busy = |is_busy: bool, port: u16| match is_busy {
            true => screen.field("", format_args!("port {port} is busy")),
            false => Ok(()),
        };
        screen.field("receiver", &self.endpoint)?;
        busy(self.busy.receiver, LISTEN)?;
        screen.field("handler", &self.handler)?;
        match &self.pleo {
            Pleo::Sandbox(sandbox) => {
                let page = format_args!("{}/  press Export there", sandbox.url());
                screen.field("sandbox", page)?;
                let port = pleo::ADDRESS.port();
                busy(!sandbox.url().ends_with(&format!(":{port}")), port)?;
            }
            Pleo::Account(account) => screen.field("pleo", account.describe())?,
        }
        screen.field("page", running.sign_in_link()?)?;
        busy(self.busy.page, ADMIN)?;
        screen.field("inbox", self.folder.inbox().display())?;
        match &self.keys {
            Some(_) => screen.field("keys", KEYS)?,
            None => screen.field("end", "Ctrl-C, or SIGTERM")?,
        }
        Ok(())
    }

    /// Replays the newest message.
    async fn replay(&self, running: &Running) -> Result<(), Failure> {
        let inbox = running.inbox();
        let newest = inbox.list(Query::new(Selection::all(), 1).newest_first());
        let Some(newest) = newest.await?.entries.pop() else {
            let text = "nothing to replay: press e for a sample";
            return Ok(self.screen.line("replay", KEY, "", "", text)?);
        };
        let id = &*newest.webhook_id;
        let selection = Selection::id(id).with_endpoint(&*newest.endpoint);
        if inbox.replay(selection).await? == 0 {
            let text = "the handler has it now: replay it later";
            self.screen.line("replay", KEY, "", id, text)?;
        }
        Ok(())
    }
}

/// The usual ports that another program has.
struct Busy {
    receiver: bool,
    page: bool,
}

/// The folder of the inbox.
enum Folder {
    /// Removed on drop.
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn new(kept: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(folder) = kept else {
            return Ok(Self::Temporary(temporary_folder("pleo-dev-")?));
        };
        fs::create_dir_all(&folder).map_err(|error| {
            let text = format!("`--keep`: {}: {error}", folder.display());
            Failure::file(&error, text)
        })?;
        Ok(Self::Kept(folder))
    }

    /// Returns the file of the inbox.
    fn inbox(&self) -> PathBuf {
        let folder = match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        };
        folder.join("inbox.db")
    }

    fn open(&self) -> Result<std::sync::Arc<dyn pleo_receiver::Inbox>, Failure> {
        let inbox = pleo_receiver::SqliteInbox::open(self.inbox());
        let inbox = inbox.map_err(|error| Failure::Run(format!("`--keep`: {}", chain(&error))))?;
        Ok(std::sync::Arc::new(inbox))
    }
}

/// Receives the signals that end a session, also that of a closed terminal.
struct Quit {
    stop: Stop,
    hangup: Hangup,
}

impl Quit {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            stop: Stop::new()?,
            hangup: Hangup::new()?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.stop.wait() => {}
            () = self.hangup.wait() => {}
        }
    }

    async fn twice(&mut self) {
        self.wait().await;
        self.wait().await;
    }
}

/// Returns the first failure, and what the second says.
fn both(first: Result<(), Failure>, second: Result<(), Failure>) -> Result<(), Failure> {
    match (first, second) {
        (Err(first), Err(second)) => Err(first.and(&second.to_string())),
        (first, second) => first.and(second),
    }
}

/// Returns the path of the endpoint: that of the public URL.
fn path(args: &Dev) -> Result<String, Failure> {
    let Some(url) = &args.url else {
        return Ok(DEFAULT_PATH.to_owned());
    };
    let target = http_client::parse_url(url);
    let target = target.map_err(|why| Failure::usage("`--url`", &why))?;
    Ok(target.url().path().to_owned())
}

/// Checks the path of the endpoint before Pleo has a subscription for it.
fn check_path(path: &str) -> Result<(), Failure> {
    let any_secret = Secret::from_bytes(&[0; 24]).map_err(|error| Failure::run(&error))?;
    let checked = Endpoint::new(path, any_secret);
    checked.map_err(|error| Failure::usage("`--url`", &chain(&error)))?;
    Ok(())
}

/// Returns the URL of a target without user, password and query.
fn without_secrets(target: &pleo_http::Target) -> String {
    let url = target.url();
    let query = if url.query().is_some() { "?…" } else { "" };
    format!(
        "{}{}{query}",
        url.origin().ascii_serialization(),
        url.path()
    )
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::run(&error))
}

/// Describes the handler. Leaves out the secrets that a URL may hold.
fn describe_handler(args: &Serve, handler: Option<&Target>) -> String {
    match handler {
        None => "none, so messages stay pending; --forward or --exec sets one".to_owned(),
        Some(target) => {
            let what = match (&args.exec, &args.forward) {
                (Some(command), _) => command.clone(),
                (None, Some(url)) => {
                    let url = url.resolve().and_then(|url| http_client::parse_url(&url));
                    url.map_or_else(|_| String::new(), |target| without_secrets(&target))
                }
                (None, None) => String::new(),
            };
            let missing = match target.missing_program() {
                Some(program) => format!("  ({program}: {})", missing_program_fix(program)),
                None => String::new(),
            };
            format!("{} {what}{missing}", target.kind())
        }
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Listens on this port of this machine, or on a free one if it is busy.
fn bind_or_free(port: u16, flag: &str) -> Result<TcpListener, Failure> {
    bind(loopback(port), flag).or_else(|_| bind(loopback(0), flag))
}
