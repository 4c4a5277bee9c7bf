//! The log's reader stands still, and the server doesn't.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{Place, SECRET, free_address};

/// Whatever goes wrong, no test waits longer.
const LONG: Duration = Duration::from_secs(30);

/// A server whose log is read only as far as where it listens.
struct Unread<R> {
    child: Child,
    log: BufReader<R>,
    address: String,
    metrics: String,
}

impl<R: Read> Unread<R> {
    fn start(place: &Place, stderr: Stdio, log: R) -> Self {
        let metrics = free_address();
        let args = ["serve", "--listen", "127.0.0.1:0", "--metrics", &metrics];
        let handler = ["--log", "trace", "--exec", "sh -c 'cat; echo said >&2'"];
        let child = place
            .command(&[&args[..], &handler].concat())
            .env("PLEO_WEBHOOK_SECRET", SECRET)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut log = BufReader::with_capacity(64, log);
        let mut said = String::new();
        while !said.contains("listening url=") {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "it ended: {said}");
        }
        let url = said.split("listening url=\"http://").nth(1).unwrap();
        let address = url.split('/').next().unwrap().to_owned();
        Self {
            child,
            log,
            address,
            metrics,
        }
    }

    /// Sends so many requests that are refused, each of which is a line of the log.
    fn refuse(&self, requests: usize) {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut stream = BufReader::new(stream);
        for _ in 0..requests {
            let request = b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
            stream.get_mut().write_all(request).unwrap();
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
            }
            assert!(head.starts_with("HTTP/1.1 404"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.lines().next().unwrap().parse().unwrap();
            stream.read_exact(&mut vec![0; length]).unwrap();
        }
    }

    /// Lets it say more than anybody has room for.
    fn overflow(&self) {
        for _ in 0..100 {
            self.refuse(500);
            if self.lost() > 0 {
                return;
            }
        }
        assert_ne!(self.lost(), 0, "it never had too much to say");
    }

    fn lost(&self) -> usize {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.ends_with("# EOF\n"), "{page}");
        assert_eq!(page.matches("# EOF").count(), 1, "{page}");
        let lost = page.split("\npleo_receiver_log_lines_lost_total ").nth(1);
        let lost = lost.unwrap().lines().next().unwrap();
        lost.parse().unwrap()
    }

    /// A delivery is stored, answered, and handed on.
    fn assert_serves(&self, place: &Place) {
        let url = format!("http://{}/webhooks/pleo", self.address);
        let env = [("PLEO_WEBHOOK_SECRET", SECRET)];
        let sent = place.run_with(&["send", &url], &env, b"");
        assert!(sent.stdout.starts_with("204"), "{sent:?}");
        wait(|| place.json(&["inbox", "list", "--json"])[0]["state"] == "done");
    }

    /// Tells it to stop; gives its exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
        wait(|| self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl<R> Drop for Unread<R> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(mut until: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < LONG, "it takes too long");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_deliveries_nor_the_end() {
    let place = Place::new();
    let (log, stderr) = std::io::pipe().unwrap();
    let mut server = Unread::start(&place, stderr.into(), log);
    server.overflow();
    server.assert_serves(&place);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_log_that_is_read_again_says_how_many_lines_are_lost() {
    let place = Place::new();
    let (log, stderr) = std::io::pipe().unwrap();
    let mut server = Unread::start(&place, stderr.into(), log);
    server.overflow();
    let mut line = String::new();
    let mut came = 0;
    while !line.contains("log lines lost") {
        line.clear();
        assert_ne!(server.log.read_line(&mut line).unwrap(), 0, "it ended");
        came += line.matches("rejected").count();
    }
    let count = format!("lines={}", server.lost());
    assert!(line.contains(&count), "{count} is not in {line}");
    assert!(came > 100, "only {came} lines came");
    server.assert_serves(&place);
    assert_eq!(server.stop(), Some(0));
    let mut end = String::new();
    server.log.read_to_string(&mut end).unwrap();
    assert!(end.contains("handled"), "{end}");
    assert!(end.trim_end().ends_with("shutdown complete"), "{end}");
}

#[test]
fn a_log_in_non_blocking_mode_loses_nothing_where_its_reader_is_late() {
    const LINES: usize = 1500;
    let place = Place::new();
    let (log, stderr) = UnixStream::pair().unwrap();
    stderr.set_nonblocking(true).unwrap();
    log.set_read_timeout(Some(LONG)).unwrap();
    let mut server = Unread::start(&place, OwnedFd::from(stderr).into(), log);
    server.refuse(LINES);
    assert_eq!(server.lost(), 0);
    let mut lines = server.log.by_ref().lines();
    let mut next = || lines.next().unwrap().unwrap();
    for _ in 0..LINES {
        let line = next();
        assert!(line.contains("rejected"), "{line}");
    }
}

#[test]
fn stalled_reader_leaves_standard_output_empty() {
    let place = Place::new();
    let (log, stderr) = std::io::pipe().unwrap();
    let mut server = Unread::start(&place, stderr.into(), log);
    server.overflow();
    assert_eq!(server.stop(), Some(0));
    let mut stdout = String::new();
    let mut pipe = server.child.stdout.take().unwrap();
    pipe.read_to_string(&mut stdout).unwrap();
    assert_eq!(stdout, "");
}
