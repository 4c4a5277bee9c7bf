//! A PostgreSQL server for tests.
//!
//! The program's tests use this file too.

#![allow(dead_code, reason = "the tests of two crates share this file")]

use core::time::Duration;
use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

/// How long a server may take to start or to stop, and sessions to wait for a lock.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL server in a temporary folder. It ends with the test process, whatever ends that.
pub(crate) struct Server {
    directory: TempDir,
    programs: Programs,
    port: u16,
    settings: Vec<&'static str>,
    /// A shared server is never dropped, so that its shell removes the folder.
    is_shared: bool,
    child: Option<Child>,
}

/// The server's programs, and the user that runs them: PostgreSQL refuses root.
#[derive(Clone)]
struct Programs {
    folder: PathBuf,
    user: Option<(u32, u32)>,
}

impl Server {
    /// Returns the server that the tests of this process share; `None` if PostgreSQL is missing, which
    /// skips the test.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        let start = || Self::start_with(&[], true);
        SERVER.get_or_init(start).as_ref()
    }

    /// Starts a server with these settings, as `fsync=off`.
    pub(crate) fn start(settings: &[&'static str]) -> Option<Self> {
        Self::start_with(settings, false)
    }

    fn start_with(settings: &[&'static str], is_shared: bool) -> Option<Self> {
        let programs = Programs::find()?;
        let mut server = Self::in_new_folder(programs, settings, is_shared);
        let initdb = server
            .programs
            .command("initdb")
            .args(["-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"])
            .args(["--no-sync", "-D"])
            .arg(server.directory.path().join("data"))
            .current_dir(server.directory.path())
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{initdb:?}");
        server.run();
        Some(server)
    }

    fn in_new_folder(programs: Programs, settings: &[&'static str], is_shared: bool) -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        if let Some((user, group)) = programs.user {
            chown(&data, Some(user), Some(group)).unwrap();
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        Self {
            programs,
            port: port.unwrap().port(),
            settings: settings.to_vec(),
            is_shared,
            child: None,
            directory,
        }
    }

    /// Starts a standby of this server; `None` if `pg_basebackup` is missing, which skips the test.
    pub(crate) fn start_standby(&self) -> Option<Self> {
        if !self.programs.folder.join("pg_basebackup").exists() {
            skip("pg_basebackup is not installed");
            return None;
        }
        let mut standby = Self::in_new_folder(self.programs.clone(), &self.settings, false);
        let copied = self
            .programs
            .command("pg_basebackup")
            .args([
                "-R",
                "-U",
                "postgres",
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
            ])
            .args(["-c", "fast", "-D"])
            .arg(standby.directory.path().join("data"))
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        assert!(copied.status.success(), "{copied:?}");
        standby.run();
        Some(standby)
    }

    /// Makes the server accept TLS, with a certificate and a key in PEM.
    pub(crate) fn enable_tls(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let file = self.directory.path().join("data").join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((user, group)) = self.programs.user {
                chown(&file, Some(user), Some(group)).unwrap();
            }
        }
        self.execute("ALTER SYSTEM SET ssl = on");
        self.execute("SELECT pg_reload_conf()");
    }

    /// Makes the server require a password from this role.
    pub(crate) fn require_password(&self, role: &str) {
        let file = self.directory.path().join("data/pg_hba.conf");
        let rules = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("host all {role} all scram-sha-256\n{rules}")).unwrap();
        self.execute("SELECT pg_reload_conf()");
    }

    /// Makes a standby the primary.
    pub(crate) fn promote(&self) {
        self.execute("SELECT pg_promote()");
    }

    /// Starts the server after [`stop`](Self::stop).
    pub(crate) fn run(&mut self) {
        let data = self.directory.path().join("data");
        let postgres = self.programs.folder.join("postgres");
        // When this process ends, its end of the pipe is closed, and the shell ends the server.
        let script =
            r#""$@" & read _; kill -QUIT $!; wait $!; [ -z "$REMOVE" ] || rm -rf "$REMOVE""#;
        let mut shell = Command::new("sh");
        if self.is_shared {
            shell.env("REMOVE", self.directory.path());
        }
        shell.args(["-c", script, "sh"]).arg(postgres).arg("-D");
        shell.arg(data);
        let mut settings = vec![
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            format!(
                "unix_socket_directories={}",
                self.directory.path().display()
            ),
            "max_connections=400".into(),
            "shared_buffers=64MB".into(),
        ];
        settings.extend(self.settings.iter().map(|setting| (*setting).into()));
        for setting in &settings {
            shell.args(["-c", setting]);
        }
        self.programs.run_as_user(&mut shell);
        let log = self.directory.path().join("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log);
        let log = log.unwrap();
        let child = shell
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let started = Instant::now();
        while !self.is_ready() {
            assert!(started.elapsed() < PATIENCE, "{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server: `fast`, `immediate` as a crash does, or `smart`.
    pub(crate) fn stop(&mut self, mode: &str) {
        let stopped = self
            .programs
            .command("pg_ctl")
            .args(["stop", "-w", "-m", mode, "-D"])
            .arg(self.directory.path().join("data"))
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        assert!(stopped.status.success(), "{stopped:?}\n{}", self.log());
        self.end_shell();
    }

    fn end_shell(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    fn is_ready(&self) -> bool {
        let ready = self.psql("SELECT 1", "postgres");
        ready.is_ok_and(|(status, _)| status.success())
    }

    /// Executes statements as the superuser, and returns the values of the rows, with tabs between.
    pub(crate) fn execute(&self, sql: &str) -> String {
        let (status, output) = self.psql(sql, "postgres").unwrap();
        assert!(status.success(), "{sql}\n{output}");
        output
    }

    /// Holds the lock with this name until the value is dropped.
    pub(crate) fn lock(&self, name: &str) -> HeldLock<'_> {
        let mut child = self
            .psql_command("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let sql = format!("SELECT pg_advisory_lock(hashtextextended('{name}', 0)) IS NULL;\n");
        let mut input = child.stdin.take().unwrap();
        input.write_all(sql.as_bytes()).unwrap();
        child.stdin = Some(input);
        let mut answer = [0];
        let read = child.stdout.as_mut().unwrap().read_exact(&mut answer);
        read.unwrap();
        HeldLock {
            server: self,
            name: name.into(),
            session: child,
        }
    }

    fn psql_command(&self, database: &str) -> Command {
        let mut command = self.programs.command("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-F", "\t", "-U", "postgres"])
            .args(["-v", "ON_ERROR_STOP=1", "-d", database])
            .args(["-p", &self.port.to_string(), "-h"])
            .arg(self.directory.path())
            .current_dir(self.directory.path());
        command
    }

    fn psql(&self, sql: &str, database: &str) -> std::io::Result<(ExitStatus, String)> {
        let output = self.psql_command(database).args(["-c", sql]).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Returns the server's port on 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of an inbox in a schema, over TCP.
    pub(crate) fn url(&self, schema: &str) -> String {
        self.url_at(self.port, schema)
    }

    /// Returns the URL of an inbox over another port, as that of a proxy.
    pub(crate) fn url_at(&self, port: u16, schema: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres?schema={schema}")
    }

    /// Returns the server's folder, which its user can write to.
    pub(crate) fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// Returns a command that runs as the server's user.
    pub(crate) fn command_as_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        self.programs.run_as_user(&mut command);
        command.current_dir(self.directory.path());
        command
    }

    /// Gives a file or folder to the server's user.
    pub(crate) fn own(&self, path: &Path) {
        if let Some((user, group)) = self.programs.user {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    /// Returns what the server logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

/// A lock of the server, in a session of its own.
pub(crate) struct HeldLock<'a> {
    server: &'a Server,
    name: String,
    session: Child,
}

impl HeldLock<'_> {
    /// Waits until this many sessions wait for the lock.
    pub(crate) fn wait_for_waiters(&self, count: usize) {
        let sql = format!(
            "SELECT count(*) FROM pg_locks
             WHERE locktype = 'advisory' AND NOT granted
               AND classid::bigint << 32 | objid::bigint = hashtextextended('{}', 0)",
            self.name
        );
        let started = Instant::now();
        while self.server.execute(&sql).trim() != count.to_string() {
            assert!(started.elapsed() < PATIENCE, "{}", self.server.log());
        }
    }
}

impl Drop for HeldLock<'_> {
    fn drop(&mut self) {
        drop(self.session.kill());
        drop(self.session.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end_shell();
    }
}

/// Returns the name of a schema that no other test uses.
pub(crate) fn schema() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("inbox_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Programs {
    /// Finds the programs in PATH, or where Debian installs them.
    fn find() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let mut debian: Vec<PathBuf> = debian.flatten().map(|entry| entry.path()).collect();
        debian.sort();
        folders.extend(debian.into_iter().rev().map(|version| version.join("bin")));
        let folder = folders.into_iter().find(|folder| {
            ["initdb", "postgres", "pg_ctl", "psql"]
                .iter()
                .all(|program| folder.join(program).exists())
        });
        let user = user();
        let problem = match (&folder, &user) {
            (None, _) => "PostgreSQL is not installed",
            (_, Err(problem)) => problem,
            (Some(folder), Ok(user)) => {
                return Some(Self {
                    folder: folder.clone(),
                    user: *user,
                });
            }
        };
        skip(problem);
        None
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        self.run_as_user(&mut command);
        command
    }

    fn run_as_user(&self, command: &mut Command) {
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
    }
}

/// Says that a test is skipped, and why. Fails where that is forbidden.
pub(crate) fn skip(problem: &str) {
    let is_forbidden = env::var_os("PLEO_TEST_FORBID_SKIP").is_some();
    assert!(!is_forbidden, "may not skip: {problem}");
    // Past the capture of tests.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {problem}");
}

/// Returns the user and group for the server if the tests run as root.
fn user() -> Result<Option<(u32, u32)>, &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let mut passwd = String::new();
    let file = fs::File::open("/etc/passwd");
    let read = file.and_then(|mut file| file.read_to_string(&mut passwd));
    read.map_err(|_| "cannot read /etc/passwd")?;
    let user = |name: &str| {
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    };
    let user = user("postgres").or_else(|| user("nobody"));
    user.map(Some)
        .ok_or("there is no user for the server: tests run as root")
}
