//! Files that hang, change or are half-written while the configuration is reloaded.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{OTHER_SECRET, RunningServer, SECRET, WorkDir};
use crate::support::tls::certify;

const RELOADED: &str = "configuration reloaded";
const NOT_RELOADED: &str = "configuration not reloaded";
const ARGS: &[&str] = &["--config", "pleo.toml"];

/// A configuration with a file of each kind.
const CONFIG: &str = "\
tls_listen = \"127.0.0.1:0\"
tls_certificate = \"cert.pem\"
tls_key = \"key.pem\"
[[endpoint]]
path = \"/a\"
secret = \"file:secret\"
";

fn table(path: &str) -> String {
    format!("[[endpoint]]\npath = \"{path}\"\nsecret = \"{SECRET}\"\n")
}

fn write_all_files(dir: &WorkDir) {
    certify(dir.path());
    dir.write("secret", SECRET);
    dir.write("pleo.toml", CONFIG);
}

/// Stops the server, and asserts that it doesn't wait for a reload.
fn assert_stops_at_once(server: RunningServer) {
    let start = Instant::now();
    let (code, log) = server.stop("-TERM");
    let took = start.elapsed();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(5), "took {took:?}: {log}");
}

#[test]
fn refuses_pipe_instead_of_file_and_shuts_down() {
    let dir = WorkDir::new();
    for file in ["pleo.toml", "secret", "cert.pem", "key.pem"] {
        write_all_files(&dir);
        let mut server = dir.serve(ARGS, &[]);
        let path = dir.path().join(file);
        std::fs::remove_file(&path).unwrap();
        make_pipe(&path);
        let line = server.signal_and_wait("-HUP", NOT_RELOADED);
        for part in [file, "it is a pipe or a device, not a regular file"] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
        dir.send_with(SECRET, &server.url, &[]);
        assert_stops_at_once(server);
        let output = dir.run(&["serve", "--config", "pleo.toml"]);
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.stderr.contains("not a regular file"), "{output:?}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn shuts_down_while_reading_a_file_hangs() {
    // `send` reads the `pleo.toml` of its directory.
    let (dir, other) = (WorkDir::new(), WorkDir::new());
    for file in ["pleo.toml", "secret", "cert.pem"] {
        write_all_files(&dir);
        let server = dir.serve(ARGS, &[]);
        let Some(lease) = Lease::take(&dir.path().join(file)) else {
            return;
        };
        server.send_signal("-HUP");
        let _lease = lease.wait_until_requested();
        other.send_with(SECRET, &server.url, &[]);
        assert_stops_at_once(server);
    }
}

#[test]
fn refuses_reload_that_hangs_and_shuts_down() {
    let dir = WorkDir::new();
    let other = WorkDir::new();
    let pipe = dir.path().join("authorities.pem");
    make_pipe(&pipe);
    dir.write("pleo.toml", &table("/a"));
    let env = [("SSL_CERT_FILE", pipe.to_str().unwrap())];
    let mut server = dir.serve(ARGS, &env);
    // The certificate authorities of an `https` target are read with it.
    let forward = "forward = \"https://localhost/\"\n".to_owned();
    dir.write("pleo.toml", &(forward + &table("/b")));
    server.send_signal("-HUP");
    // Opens once the server opens it for reading.
    let _writer = std::fs::File::options().write(true).open(&pipe).unwrap();
    other.send_with(SECRET, &server.url, &[]);
    let line = server.wait_for_log(NOT_RELOADED);
    assert!(line.contains("takes longer than 15s"), "{line}");
    let line = server.signal_and_wait("-HUP", NOT_RELOADED);
    assert!(line.contains("restart the receiver"), "{line}");
    other.send_with(SECRET, &server.url, &[]);
    assert_stops_at_once(server);
}

#[test]
fn shuts_down_while_reload_waits_for_changed_file() {
    let dir = WorkDir::new();
    write_all_files(&dir);
    let server = dir.serve(ARGS, &[]);
    dir.write("pleo.toml", &format!("{CONFIG}# "));
    server.send_signal("-HUP");
    assert_stops_at_once(server);
}

#[test]
fn reads_half_written_configuration_again() {
    let dir = WorkDir::new();
    let complete = table("/a") + &table("/b");
    dir.write("pleo.toml", &complete);
    let mut server = dir.serve(ARGS, &[]);
    // Each part is a valid configuration of its own, or none at all.
    for length in [0, table("/a").len(), table("/a").len() + 20] {
        dir.write("pleo.toml", &complete[..length]);
        server.send_signal("-HUP");
        // A writer that is slow, but not for a second.
        thread::sleep(Duration::from_millis(300));
        dir.write("pleo.toml", &complete);
        let line = server.wait_for_log("reloaded");
        let is_complete = line.contains(RELOADED) && line.contains("endpoints=2");
        assert!(is_complete, "{length} bytes: {line}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn reads_half_written_secret_file_again() {
    let dir = WorkDir::new();
    dir.write(
        "pleo.toml",
        CONFIG
            .split_once("[[")
            .map(|(_, end)| format!("[[{end}"))
            .as_deref()
            .unwrap(),
    );
    let both = format!("{SECRET}\n{OTHER_SECRET}\n");
    dir.write("secret", &both);
    let mut server = dir.serve(ARGS, &[]);
    for part in ["", SECRET, &both[..SECRET.len() + 20]] {
        dir.write("secret", part);
        server.send_signal("-HUP");
        // A writer that is slow, but not for a second.
        thread::sleep(Duration::from_millis(300));
        dir.write("secret", &both);
        let line = server.wait_for_log("reloaded");
        assert!(line.contains(RELOADED), "{part}: {line}");
        dir.send_with(OTHER_SECRET, &server.url, &[]);
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn refuses_configuration_that_keeps_changing() {
    let dir = WorkDir::new();
    dir.write("pleo.toml", &table("/a"));
    let mut server = dir.serve(ARGS, &[]);
    let done = AtomicBool::new(false);
    let line = thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                dir.write("pleo.toml", &format!("{}# {number}\n", table("/b")));
                thread::sleep(Duration::from_millis(100));
            }
        });
        let line = server.signal_and_wait("-HUP", "reloaded");
        done.store(true, Ordering::Relaxed);
        line
    });
    let expected = line.contains(NOT_RELOADED) && line.contains("`pleo.toml` keeps changing");
    assert!(expected, "{line}");
    dir.send_with(SECRET, &server.url, &[]);
    let line = server.signal_and_wait("-HUP", "reloaded");
    assert!(line.contains(RELOADED), "{line}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn takes_file_with_modification_time_in_the_future() {
    let dir = WorkDir::new();
    dir.write("pleo.toml", &table("/a"));
    let mut server = dir.serve(ARGS, &[]);
    dir.write("pleo.toml", &table("/b"));
    let file = std::fs::File::options()
        .append(true)
        .open(dir.path().join("pleo.toml"));
    let future = std::time::SystemTime::now() + Duration::from_secs(3600);
    file.unwrap().set_modified(future).unwrap();
    let line = server.signal_and_wait("-HUP", "reloaded");
    assert!(line.contains(RELOADED), "{line}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn warns_of_removed_endpoint_with_pending_messages() {
    let dir = WorkDir::new();
    let named = table("/a") + "name = \"acme\"\n";
    dir.write("pleo.toml", &(named + &table("/b") + &table("/c")));
    let mut server = dir.serve(ARGS, &[]);
    let url = |path| format!("http://{}{path}", server.address());
    dir.send_with(SECRET, &url("/a"), &[]);
    dir.send_with(SECRET, &url("/a"), &[]);
    dir.send_with(SECRET, &url("/c"), &[]);
    dir.write("pleo.toml", &table("/c"));
    server.signal_and_wait("-HUP", RELOADED);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    let removed: Vec<_> = log
        .lines()
        .filter(|line| line.contains("endpoint removed"))
        .collect();
    for (line, fields) in removed
        .iter()
        .zip(["endpoint=\"/b\" pending=0", "endpoint=\"acme\" pending=2"])
    {
        assert!(line.contains(" WARN ") && line.ends_with(fields), "{log}");
    }
    assert_eq!(removed.len(), 2, "{log}");
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// A lease on a file (`fcntl` with `F_SETLEASE`): as long as it is held, opening the file hangs, as on
/// a network disk.
#[cfg(target_os = "linux")]
struct Lease(Child);

#[cfg(target_os = "linux")]
impl Lease {
    /// Takes the lease. Returns `None`, and says so, if the system can't.
    fn take(path: &Path) -> Option<Self> {
        const SCRIPT: &str = "
            $| = 1;
            $SIG{IO} = sub { print 'r' };
            open(my $file, '<', $ARGV[0]) or exit 1;
            defined(fcntl($file, 1024, 1)) or exit 1; # F_SETLEASE, F_WRLCK
            print 'h';
            while (1) { sleep 60 }";
        let child = Command::new("perl")
            .args(["-e", SCRIPT])
            .arg(path)
            .stdout(Stdio::piped())
            .spawn();
        let lease = child
            .map(Self)
            .and_then(|mut lease| lease.read().map(|()| lease));
        match lease {
            Ok(lease) => Some(lease),
            Err(error) => {
                assert!(
                    std::env::var_os("PLEO_TEST_FORBID_SKIP").is_none(),
                    "no lease: {error}"
                );
                let _ = writeln!(io::stderr(), "SKIPPED reload_files: no lease can be taken");
                None
            }
        }
    }

    /// Waits until a process opens the file.
    fn wait_until_requested(mut self) -> Self {
        self.read().unwrap();
        self
    }

    fn read(&mut self) -> io::Result<()> {
        self.0.stdout.as_mut().unwrap().read_exact(&mut [0])
    }
}

#[cfg(target_os = "linux")]
impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
