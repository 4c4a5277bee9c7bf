//! Opens connections, and checks that the server keeps what it commits.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, watch};
use tokio::time;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::error::{Failure, UrlError};
use super::hosts::host_and_port;
use super::options::{PostgresOptions, Verification};
use super::schema;
use super::schema_name::SchemaName;
use super::session::Session;
use super::tls;
use crate::telemetry;

/// How long opening a connection to a host may take, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of the connections that are not poolers': time limits, and plans that use the indexes
/// whatever the statistics of the tables are.
const SETTINGS: &str = "
    SET statement_timeout = '{statement}ms';
    SET lock_timeout = '{lock}ms';
    SET idle_in_transaction_session_timeout = '{statement}ms';
    SET client_min_messages = warning;
    SET default_transaction_isolation = 'read committed';
    SET jit = off;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_bitmapscan = {bitmaps};
";

const CHECK: &str = "
    SELECT current_setting('fsync'), current_setting('synchronous_commit'),
           current_setting('full_page_writes'), current_setting('server_version'),
           current_setting('server_version_num')::integer,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, pg_backend_pid(),
           current_setting('client_min_messages'),
           (SELECT string_agg(name, ', ')
            FROM unnest('{statement_timeout,lock_timeout,jit,enable_seqscan,enable_hashjoin,enable_mergejoin,enable_bitmapscan}'::text[])
                 AS name
            WHERE current_setting(name) IN ('0', 'on'))
";

/// Opens connections to the server.
#[derive(Clone)]
pub(super) struct Connector {
    /// The configuration of each host.
    hosts: Vec<Config>,
    /// The host that was connected last, which is tried first.
    last_host: Arc<AtomicUsize>,
    tls: tls::Connector,
    schema: SchemaName,
    is_pooled: bool,
    /// `true` if statements may read an index with a bitmap, which does not mark dead entries. Those that
    /// are executed all the time must mark them.
    uses_bitmaps: bool,
    statement_timeout: Duration,
    lock_timeout: Duration,
    /// Raised when another process changed the inbox.
    version: watch::Sender<u64>,
    has_warned: Arc<AtomicBool>,
}

impl Connector {
    pub(super) fn new(
        options: &PostgresOptions,
        version: watch::Sender<u64>,
    ) -> Result<Self, UrlError> {
        let mut hosts = options.hosts.clone();
        for host in &mut hosts {
            if host.get_tcp_user_timeout().is_none() {
                host.tcp_user_timeout(options.statement_timeout);
            }
            host.keepalives_idle(Duration::from_secs(5))
                .keepalives_interval(Duration::from_secs(2))
                .keepalives_retries(3);
        }
        Ok(Self {
            tls: tls::Connector::new(options.verification, options.roots.as_deref())?,
            hosts,
            last_host: Arc::default(),
            schema: SchemaName::new(&options.schema)?,
            is_pooled: options.is_pooled,
            uses_bitmaps: false,
            statement_timeout: options.statement_timeout,
            lock_timeout: options.statement_timeout,
            version,
            has_warned: Arc::default(),
        })
    }

    /// Returns a connector for statements that read many rows. They may take this long, but not longer
    /// for locks.
    pub(super) fn with_statement_timeout(&self, timeout: Duration) -> Self {
        Self {
            uses_bitmaps: true,
            statement_timeout: self.statement_timeout.max(timeout),
            ..self.clone()
        }
    }

    pub(super) const fn schema(&self) -> &SchemaName {
        &self.schema
    }

    /// Opens a connection to a server that keeps what it commits and has a usable schema.
    pub(super) async fn connect(&self) -> Result<Session, Failure> {
        let session = self.connect_without_schema().await?;
        schema::check(&session, &self.schema).await?;
        Ok(session)
    }

    /// Opens a connection to a server that keeps what it commits: the first host that accepts writes.
    pub(super) async fn connect_without_schema(&self) -> Result<Session, Failure> {
        let last = self.last_host.load(Ordering::Relaxed);
        let numbers = (0..self.hosts.len()).map(|n| (last + n) % self.hosts.len());
        // What is wrong with a primary says more than that the others are standbys.
        let mut result = Failure::ReadOnly;
        for (number, host) in numbers.filter_map(|number| Some((number, self.hosts.get(number)?))) {
            let limit = host.get_connect_timeout().copied();
            let limit = limit.unwrap_or(CONNECT_TIMEOUT);
            // A host that accepts connections may never respond.
            let opened = time::timeout(limit, self.open(host)).await;
            match opened.unwrap_or(Err(Failure::Timeout(limit))) {
                Ok(session) => {
                    self.last_host.store(number, Ordering::Relaxed);
                    return Ok(session);
                }
                Err(Failure::ReadOnly) => {}
                Err(failure) => result = failure,
            }
        }
        Err(result)
    }

    async fn open(&self, host: &Config) -> Result<Session, Failure> {
        let connected = host.connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|error| {
            // No host was left that allows writes.
            let is_standby = std::error::Error::source(&error).is_some_and(|cause| {
                (cause.downcast_ref::<std::io::Error>())
                    .is_some_and(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied)
            });
            if is_standby {
                Failure::ReadOnly
            } else {
                error.into()
            }
        })?;
        let own_process = Arc::new(AtomicI32::new(0));
        let (version, process) = (self.version.clone(), Arc::clone(&own_process));
        let notified = move |sender| {
            if sender != process.load(Ordering::Relaxed) {
                version.send_modify(|version| *version += 1);
            }
        };
        let session = Session::new(
            client,
            connection,
            self.tls.clone(),
            self.schema.clone(),
            self.is_pooled,
            self.statement_timeout,
            notified,
        );
        if !self.is_pooled {
            let milliseconds = |timeout: Duration| timeout.as_millis().max(1).to_string();
            let settings = SETTINGS.replace("{statement}", &milliseconds(self.statement_timeout));
            let settings = settings.replace("{lock}", &milliseconds(self.lock_timeout));
            let bitmaps = if self.uses_bitmaps { "on" } else { "off" };
            let settings = settings.replace("{bitmaps}", bitmaps);
            session.batch(&settings).await?;
        }
        let process = self.check(&session).await?;
        own_process.store(process, Ordering::Relaxed);
        Ok(session)
    }

    /// Checks that the server accepts writes and keeps what it commits, also over a crash. Returns the
    /// process that serves the connection.
    pub(super) async fn check(&self, session: &Session) -> Result<i32, Failure> {
        let rows = session.query(CHECK, &[]).await?;
        let row = rows.first().ok_or(Failure::ReadOnly)?;
        let text = |column: usize| row.try_get::<_, String>(column);
        let (fsync, synchronous_commit) = (text(0)?, text(1)?);
        let refused = |setting, value, reason| {
            Err(Failure::Unsafe {
                setting,
                value,
                reason,
            })
        };
        if row.try_get::<_, i32>(4)? < 130_000 {
            return Err(Failure::OldServer(text(3)?));
        }
        if row.try_get::<_, bool>(5)? {
            return Err(Failure::ReadOnly);
        }
        check_fsync(fsync)?;
        if text(7)? == "error" {
            let reason = "the server would not tell that it committed a message that no standby has; \
                          set it to `warning` for the user of the inbox";
            return refused("client_min_messages", text(7)?, reason);
        }
        if !matches!(&*synchronous_commit, "on" | "remote_apply") {
            let reason = "the server would acknowledge messages before they are durable; set it to \
                          `on` or `remote_apply` for the user of the inbox";
            return refused("synchronous_commit", synchronous_commit, reason);
        }
        let has_full_pages = text(2)? == "on";
        let missing: Option<String> = row.try_get(8)?;
        let missing = missing.filter(|_| self.is_pooled);
        if (!has_full_pages || missing.is_some()) && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            if !has_full_pages {
                telemetry::full_page_writes_off();
            }
            if let Some(settings) = missing {
                telemetry::pooler_settings_missing(&settings);
            }
        }
        Ok(row.try_get(6)?)
    }

    /// Warns if others in the network could read or change what is sent.
    pub(super) fn warn_of_weak_tls(&self, verification: Verification) {
        let is_remote = |config: &&Config| match host_and_port(config).0 {
            Some(Host::Tcp(host)) => {
                host != "localhost" && !host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
            _ => false,
        };
        let Some(remote) = self.hosts.iter().find(is_remote) else {
            return;
        };
        let weakness = match (remote.get_ssl_mode(), verification) {
            (SslMode::Disable, _) => "nothing is encrypted",
            (SslMode::Prefer, _) => "an attacker in the network can disable encryption",
            (_, Verification::None) => "an attacker in the network can impersonate the server",
            (_, Verification::Authority) => {
                "another server with a certificate of the same authority can impersonate it"
            }
            (_, Verification::Host) => return,
        };
        telemetry::connection_unsafe(weakness);
    }
}

/// Refuses a server that doesn't wait for the disk.
pub(super) fn check_fsync(value: String) -> Result<(), Failure> {
    if value == "on" {
        return Ok(());
    }
    Err(Failure::Unsafe {
        setting: "fsync",
        value,
        reason: "a crash of the server's machine can lose acknowledged messages and damage the \
                 database; set it to `on`",
    })
}

/// A connection that is opened when it is first used, and again after it was lost. One caller uses it at
/// a time.
pub(super) struct SharedSession {
    connector: Arc<Connector>,
    session: Arc<Mutex<Option<Session>>>,
}

/// The right to use a connection, until it is dropped.
pub(super) struct Turn {
    connector: Arc<Connector>,
    session: OwnedMutexGuard<Option<Session>>,
}

impl SharedSession {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self {
            connector,
            session: Arc::default(),
        }
    }

    /// Waits until no other caller uses the connection.
    pub(super) async fn turn(&self) -> Turn {
        Turn {
            connector: Arc::clone(&self.connector),
            session: Arc::clone(&self.session).lock_owned().await,
        }
    }

    pub(super) async fn session(&self) -> Result<UsedSession, Failure> {
        self.turn().await.session().await
    }

    pub(super) async fn close(&self) {
        *self.session.lock().await = None;
    }
}

/// A connection in use.
pub(super) type UsedSession = OwnedMappedMutexGuard<Option<Session>, Session>;

impl Turn {
    pub(super) async fn session(self) -> Result<UsedSession, Failure> {
        let mut session = self.session;
        if session.as_ref().is_none_or(Session::is_broken) {
            // Closed first, so that there are never more connections than configured.
            *session = None;
            *session = Some(self.connector.connect().await?);
        }
        let session = OwnedMutexGuard::try_map(session, Option::as_mut);
        session.map_err(|_| Failure::Lost)
    }
}
