//! Tests of what systemd gives and gets: readiness, reloads, pings, sockets, credentials.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::Request;
use crate::support::program::{ENV, OTHER_SECRET, RunningServer, SECRET, WorkDir, free_address};

/// How often the program is replaced.
const RESTARTS: usize = 10;

/// How many deliveries each program answers before it is replaced.
const DELIVERIES: usize = 50;

/// As systemd, which gives up a service that is silent for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a command that runs the program with this socket, as systemd does.
fn command_with(dir: &WorkDir, socket: &TcpListener, args: &[&str]) -> Command {
    let program = dir.command(args);
    let mut command = Command::new("sh");
    // The variable has the process id, and the socket is file 3.
    command.args([
        "-c",
        "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 0</dev/null",
        "sh",
    ]);
    command.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let socket = socket.try_clone().unwrap();
    command.current_dir(dir.path()).envs(ENV.iter().copied());
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Delivers a message once. Returns `true` if it is answered 204, `false` if it was cut off.
fn deliver(address: SocketAddr, id: &str) -> bool {
    let request = Request::signed(id, b"{}").with("connection", "close");
    // Never refused: the socket is always open.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let read = stream
        .write_all(&request.bytes())
        .and_then(|()| stream.read_to_end(&mut answer));
    match read {
        Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer in time"),
        Ok(_) if answer.is_empty() => {}
        Ok(_) => {
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
            return true;
        }
    }
    false
}

#[test]
fn restarts_refuse_no_connection_and_lose_no_delivery() {
    let dir = WorkDir::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listen = address.to_string();
    let (answered, has_ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sent = thread::scope(|scope| {
        let send = |thread: usize| {
            let (answered, has_ended) = (&answered, &has_ended);
            scope.spawn(move || {
                let ids = (0..).map(|number| format!("msg_{thread}_{number}"));
                let ids = ids.take_while(|_| !has_ended.load(Ordering::Relaxed));
                ids.inspect(|id| {
                    assert!(
                        deliver(address, id) || deliver(address, id),
                        "repeated twice"
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                })
                .collect::<Vec<_>>()
            })
        };
        let senders: Vec<_> = (0..4).map(send).collect();
        for restart in 1..=RESTARTS {
            let command = command_with(&dir, &socket, &["serve", "--listen", &listen]);
            let server = RunningServer::start(command);
            while answered.load(Ordering::Relaxed) < restart * DELIVERIES {
                assert!(senders.iter().all(|sender| !sender.is_finished()));
                thread::yield_now();
            }
            if restart == RESTARTS {
                has_ended.store(true, Ordering::Relaxed);
                while senders.iter().any(|sender| !sender.is_finished()) {
                    thread::yield_now();
                }
            }
            let (code, log) = server.stop("-TERM");
            assert_eq!(code, Some(0), "{log}");
        }
        let sent = senders.into_iter().map(|sender| sender.join().unwrap());
        sent.collect::<Vec<_>>().concat()
    });
    assert!(sent.len() >= RESTARTS * DELIVERIES, "{}", sent.len());
    let list = ["inbox", "list", "--json", "--limit", "1000000"];
    let stored = dir.json(&list);
    let stored: BTreeSet<_> = stored
        .iter()
        .map(|entry| entry["webhook_id"].as_str().unwrap())
        .collect();
    let missing: Vec<_> = sent
        .iter()
        .filter(|id| !stored.contains(id.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn refuses_socket_that_no_listener_uses() {
    let dir = WorkDir::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let command = command_with(&dir, &socket, &["serve", "--listen", "127.0.0.1:0"]);
    let log = match RunningServer::try_start(command) {
        Ok(server) => server.wait().1,
        Err(log) => log,
    };
    let address = socket.local_addr().unwrap().to_string();
    assert!(
        log.contains(&format!("the systemd unit listens on {address}")),
        "{log}"
    );
}

#[test]
fn tells_systemd_when_it_is_ready_reloads_and_stops() {
    let dir = WorkDir::new();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let receive = || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    dir.write("pleo.toml", &format!("secret = \"{SECRET}\"\n"));
    let path = dir.path().join("notify");
    let env = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "2000000000"),
    ];
    let mut server = dir.serve(&["--config", "pleo.toml"], &env);
    assert_eq!(receive(), "READY=1\n");
    assert_eq!(receive(), "WATCHDOG=1\n");
    server.signal_and_wait("-HUP", "configuration reloaded");
    let reloading = receive();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(receive(), "READY=1\n");
    // A refused reload ends too.
    dir.write("pleo.toml", "secret = 7\n");
    server.signal_and_wait("-HUP", "configuration not reloaded");
    assert!(receive().starts_with("RELOADING=1\n"));
    assert_eq!(receive(), "READY=1\n");
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_eq!(receive(), "STOPPING=1\n");
}

#[test]
fn pings_in_half_of_the_watchdog_time() {
    let dir = WorkDir::new();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let path = dir.path().join("notify");
    let env = [
        ENV[0],
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let _server = dir.serve(&[], &env);
    let mut message = [0; 64];
    for expected in ["READY=1\n", "WATCHDOG=1\n", "WATCHDOG=1\n", "WATCHDOG=1\n"] {
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(str::from_utf8(&message[..length]).unwrap(), expected);
    }
}

#[test]
fn reads_credentials_of_the_unit() {
    let dir = WorkDir::new();
    dir.write("pleo.toml", "secret = \"credential:webhook-secret\"\n");
    let check = |env: &[(&str, &str)]| {
        dir.run_with(&["serve", "--check", "--config", "pleo.toml"], env, b"")
    };
    let none = check(&[]);
    assert_eq!(none.code, 2, "{none:?}");
    assert!(
        none.stderr.contains("`LoadCredential=webhook-secret:PATH`"),
        "{none:?}"
    );
    let folder = [("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())];
    dir.write("webhook-secret", "");
    let empty = check(&folder);
    assert!(
        empty
            .stderr
            .contains("the credential webhook-secret is empty"),
        "{empty:?}"
    );
    dir.write("webhook-secret", &format!("{SECRET}\n"));
    let found = check(&folder);
    assert_eq!(
        (found.code, &*found.stdout),
        (0, "the configuration is valid\n")
    );
    let server = dir.serve(&["--config", "pleo.toml"], &folder);
    assert!(dir.send_with(SECRET, &server.url, &[]).starts_with("204"));
    dir.write("pleo.toml", "secret = \"credential:../webhook-secret\"\n");
    let path = check(&folder);
    assert!(path.stderr.contains("a name, not a path"), "{path:?}");
}

/// The socket of journald, if this machine runs none and lets us take its place.
struct Journal(UnixDatagram);

impl Journal {
    const SOCKET: &str = "/run/systemd/journal/socket";

    fn new() -> Option<Self> {
        let path = Path::new(Self::SOCKET);
        let bound =
            std::fs::create_dir_all(path.parent().unwrap()).and_then(|()| UnixDatagram::bind(path));
        match bound {
            Ok(socket) => {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                Some(Self(socket))
            }
            Err(error) => {
                let forbidden = std::env::var_os("PLEO_TEST_FORBID_SKIP").is_some();
                assert!(!forbidden, "{}: {error}", Self::SOCKET);
                let _ = writeln!(std::io::stderr(), "SKIPPED journald: {error}");
                None
            }
        }
    }

    /// Waits for the entry with this text.
    fn entry(&self, text: &str) -> String {
        let mut entry = [0; 16 * 1024];
        loop {
            let length = self.0.recv(&mut entry).unwrap();
            let entry = str::from_utf8(&entry[..length]).unwrap();
            if entry.contains(&format!("\nMESSAGE={text}")) {
                return entry.to_owned();
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Self::SOCKET);
    }
}

#[test]
fn logs_fields_to_journald_or_lines_without_it() {
    let dir = WorkDir::exclusive();
    let env = [ENV[0], ("PLEO_LOG_FORMAT", "journald")];
    let server = dir.serve(&["--inbox", "first.db"], &env);
    let (_, log) = server.stop("-TERM");
    assert!(
        log.contains("no journald; the log goes to standard error"),
        "{log}"
    );

    let Some(journal) = Journal::new() else {
        return;
    };
    let address = free_address();
    let mut command = dir.command(&["serve", "--listen", &address]);
    let mut server = command.envs(env).stdout(Stdio::null()).spawn().unwrap();
    let entry = journal.entry("listening");
    assert!(
        entry.starts_with("PRIORITY=6\nSYSLOG_IDENTIFIER=pleo-receiver\n"),
        "{entry}"
    );
    let url = format!("http://{address}/webhooks/pleo");
    assert!(
        dir.send_with(SECRET, &url, &["--id", "msg_journal"])
            .starts_with("204")
    );
    let entry = journal.entry("delivery stored");
    assert!(entry.contains("\nPLEO_WEBHOOK_ID=msg_journal\n"), "{entry}");
    assert!(dir.send_with(OTHER_SECRET, &url, &[]).starts_with("401"));
    let entry = journal.entry("delivery rejected");
    assert!(entry.starts_with("PRIORITY=4\n"), "{entry}");
    assert!(
        entry.contains("\nPLEO_CODE=signature_mismatch\n"),
        "{entry}"
    );
    let pid = server.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    assert!(server.wait().unwrap().success());
    let mut stderr = String::new();
    server
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(stderr, "");
}
