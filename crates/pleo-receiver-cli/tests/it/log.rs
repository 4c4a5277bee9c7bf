//! Tests of a log that is read slowly or not at all: it does not block the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{SECRET, WorkDir, free_address, read_metrics};
use crate::support::{Request, counting_target};
use tokio::runtime::Runtime;

/// The number of connections that send deliveries.
const SENDERS: usize = 4;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A server whose log is read only until the server listens.
struct UnreadServer<R> {
    child: Child,
    log: BufReader<R>,
    address: String,
    metrics: String,
    /// The number of deliveries.
    sent: AtomicUsize,
    /// Runs the target that messages are forwarded to.
    _target: Runtime,
}

impl<R: Read + Sync> UnreadServer<R> {
    /// Starts a server. At level `trace`, a delivery writes many lines; at `info`, two.
    fn start(dir: &WorkDir, level: &str, stderr: Stdio, log: R) -> Self {
        let target = Runtime::new().unwrap();
        let (url, _) = target.block_on(counting_target());
        let metrics = free_address();
        let args = ["serve", "--listen", "127.0.0.1:0", "--metrics", &metrics];
        let more = ["--log", level, "--forward", &url];
        let child = dir
            .command(&[&args[..], &more].concat())
            .env("PLEO_WEBHOOK_SECRET", SECRET)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut log = BufReader::with_capacity(64, log);
        let mut start = String::new();
        while !start.contains("listening url=") {
            let read = log.read_line(&mut start).unwrap();
            assert_ne!(read, 0, "the server exited: {start}");
        }
        let url = start.split("listening url=\"http://").nth(1).unwrap();
        let address = url.split('/').next().unwrap().to_owned();
        Self {
            child,
            log,
            address,
            metrics,
            sent: AtomicUsize::new(0),
            _target: target,
        }
    }

    /// Sends deliveries on a few connections.
    fn deliver(&self, deliveries: usize) {
        thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| self.deliver_on_connection(deliveries / SENDERS));
            }
        });
    }

    fn deliver_on_connection(&self, deliveries: usize) {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut stream = BufReader::new(stream);
        for _ in 0..deliveries {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let request = Request::signed(&format!("msg_{number}"), b"{}");
            stream.get_mut().write_all(&request.bytes()).unwrap();
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
            }
            assert!(head.starts_with("HTTP/1.1 204"), "{head}");
        }
    }

    /// Fills the log until the server drops lines. Waits until all messages are handled, so that
    /// nothing more is logged.
    fn overflow(&self, dir: &WorkDir) {
        for _ in 0..100 {
            self.deliver(100);
            if self.dropped_lines() > 0 {
                break;
            }
        }
        assert_ne!(self.dropped_lines(), 0, "no line was dropped");
        wait_until_handled(dir);
    }

    /// Returns the number of dropped lines.
    fn dropped_lines(&self) -> usize {
        let page = read_metrics(&self.metrics);
        assert!(page.ends_with("# EOF\n"), "{page}");
        assert_eq!(page.matches("# EOF").count(), 1, "{page}");
        let dropped = page.split("\npleo_receiver_log_lines_lost_total ").nth(1);
        let dropped = dropped.unwrap().lines().next().unwrap();
        dropped.parse().unwrap()
    }

    /// Asserts that a delivery is stored, acknowledged and dispatched.
    fn assert_serves(&self, dir: &WorkDir) {
        let url = format!("http://{}/webhooks/pleo", self.address);
        let env = [("PLEO_WEBHOOK_SECRET", SECRET)];
        let sent = dir.run_with(&["send", &url], &env, b"");
        assert!(sent.stdout.starts_with("204"), "{sent:?}");
        wait_until_handled(dir);
    }

    /// Shuts the server down. Returns its exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
        wait_until(|| self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl<R> Drop for UnreadServer<R> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "timed out");
        thread::sleep(Duration::from_millis(20));
    }
}

fn wait_until_handled(dir: &WorkDir) {
    let pending = ["inbox", "list", "--state", "pending", "--json"];
    wait_until(|| dir.json(&pending).is_empty());
}

#[test]
fn unread_log_blocks_neither_deliveries_nor_shutdown() {
    let dir = WorkDir::new();
    let (log, stderr) = std::io::pipe().unwrap();
    let mut server = UnreadServer::start(&dir, "trace", stderr.into(), log);
    server.overflow(&dir);
    server.assert_serves(&dir);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn reports_dropped_lines_once_log_is_read_again() {
    let dir = WorkDir::new();
    let (log, stderr) = std::io::pipe().unwrap();
    let mut server = UnreadServer::start(&dir, "trace", stderr.into(), log);
    server.overflow(&dir);
    let mut line = String::new();
    let mut stored = 0;
    while !line.contains("log lines lost") {
        line.clear();
        assert_ne!(
            server.log.read_line(&mut line).unwrap(),
            0,
            "the server exited"
        );
        stored += line.matches("delivery stored").count();
    }
    let count = format!("lines={}", server.dropped_lines());
    assert!(line.contains(&count), "{count} is not in {line}");
    assert!(stored > 100, "only {stored} lines arrived");
    server.assert_serves(&dir);
    assert_eq!(server.stop(), Some(0));
    let mut end = String::new();
    server.log.read_to_string(&mut end).unwrap();
    assert!(end.contains("handled"), "{end}");
    assert!(end.trim_end().ends_with("shutdown complete"), "{end}");
}

#[test]
fn counts_each_line_once_if_reader_is_gone() {
    let dir = WorkDir::new();
    let (log, stderr) = std::io::pipe().unwrap();
    let mut server = UnreadServer::start(&dir, "info", stderr.into(), log);
    server.log = BufReader::new(std::io::pipe().unwrap().0);
    server.deliver(SENDERS);
    wait_until(|| server.dropped_lines() >= 2 * SENDERS);
    wait_until_handled(&dir);
    // The report of a lost line is not written either, and must not be reported.
    assert_eq!(server.dropped_lines(), 2 * SENDERS);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn drops_no_line_on_non_blocking_log_with_slow_reader() {
    const LINES: usize = 1000;
    let dir = WorkDir::new();
    let (log, stderr) = UnixStream::pair().unwrap();
    stderr.set_nonblocking(true).unwrap();
    log.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut server = UnreadServer::start(&dir, "info", OwnedFd::from(stderr).into(), log);
    server.deliver(LINES);
    assert_eq!(server.dropped_lines(), 0);
    let mut lines = server.log.by_ref().lines();
    let mut next = || lines.next().unwrap().unwrap();
    let mut handled = 0;
    while handled < LINES {
        handled += usize::from(next().contains("message handled"));
    }
}

#[test]
fn stalled_reader_leaves_standard_output_empty() {
    let dir = WorkDir::new();
    let (log, stderr) = std::io::pipe().unwrap();
    let mut server = UnreadServer::start(&dir, "trace", stderr.into(), log);
    server.overflow(&dir);
    assert_eq!(server.stop(), Some(0));
    let mut stdout = String::new();
    let mut pipe = server.child.stdout.take().unwrap();
    pipe.read_to_string(&mut stdout).unwrap();
    assert_eq!(stdout, "");
}
