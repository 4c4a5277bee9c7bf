//! A running session of `dev`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::program::WorkDir;

const TIMEOUT: Duration = Duration::from_secs(60);

/// What the program has printed.
type Printed = Arc<(Mutex<String>, Condvar)>;

/// A running session. Killed on drop.
pub(super) struct Session {
    child: Child,
    stdout: Printed,
    stderr: Printed,
    terminal: Option<Terminal>,
}

/// A pseudo-terminal of 80 columns.
struct Terminal {
    master: File,
    /// Keeps the terminal open after the program ends.
    end: File,
}

impl Session {
    /// Starts a session without a terminal, with free ports and an own folder for temporary files.
    pub(super) fn start(dir: &WorkDir, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = command(dir, args, env).spawn().unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let session = Self {
            child,
            stdout,
            stderr,
            terminal: None,
        };
        session.wait_for("\nend ");
        session
    }

    /// Starts a session on a terminal.
    pub(super) fn on_terminal(dir: &WorkDir, args: &[&str], env: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let end = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&end, size).unwrap();
        let (master, end) = (File::from(master), File::from(end));
        let mut command = command(dir, args, env);
        command.env("TERM", "xterm");
        command.stdin(end.try_clone().unwrap());
        command.stdout(end.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let stderr = collect(child.stderr.take().unwrap());
        let session = Self {
            child,
            stdout: collect(master.try_clone().unwrap()),
            stderr,
            terminal: Some(Terminal { master, end }),
        };
        session.wait_for("q quit");
        session
    }

    /// Returns what was printed so far.
    pub(super) fn printed(&self) -> String {
        self.stdout.0.lock().unwrap().clone()
    }

    /// Waits until the program has printed a text.
    pub(super) fn wait_for(&self, text: &str) -> String {
        let (printed, changed) = &*self.stdout;
        let guard = printed.lock().unwrap();
        let (guard, waited) = changed
            .wait_timeout_while(guard, TIMEOUT, |printed| !printed.contains(text))
            .unwrap();
        let stderr = self.stderr.0.lock().unwrap();
        assert!(!waited.timed_out(), "no {text:?} in {guard}\n{stderr}");
        guard.clone()
    }

    /// Returns the value after a name in the first lines.
    pub(super) fn field(&self, name: &str) -> String {
        let printed = self.printed();
        let mut lines = printed.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .next()
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    }

    /// Presses a key.
    pub(super) fn press(&mut self, key: &str) {
        let terminal = self.terminal.as_mut().unwrap();
        terminal.master.write_all(key.as_bytes()).unwrap();
    }

    /// Returns `true` if the terminal collects lines and shows what is typed, as before the program.
    pub(super) fn terminal_is_cooked(&self) -> bool {
        let terminal = self.terminal.as_ref().unwrap();
        let mode = tcgetattr(terminal.end.as_fd()).unwrap();
        mode.local_modes
            .contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    pub(super) fn send_signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Sends a signal, and waits until the program exits. Returns its code and its standard error.
    pub(super) fn stop(&mut self, signal: &str) -> (Option<i32>, String) {
        self.send_signal(signal);
        self.wait()
    }

    /// Waits until the program exits. Returns its code and its standard error.
    pub(super) fn wait(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        // The program's standard error ends with it.
        let (printed, changed) = &*self.stderr;
        let guard = printed.lock().unwrap();
        let ended = |printed: &mut String| !printed.ends_with('\0');
        let (guard, _) = changed.wait_timeout_while(guard, TIMEOUT, ended).unwrap();
        (code, guard.trim_end_matches('\0').to_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The inspection page of a session, signed in.
pub(super) struct Page {
    url: String,
    cookie: String,
    token: String,
}

impl Page {
    /// Signs in with the session's link.
    pub(super) fn new(session: &Session) -> Self {
        let link = session.field("page");
        let (url, link) = link.split_once("/sign-in?").unwrap();
        let mut page = Self {
            url: url.to_owned(),
            cookie: String::new(),
            token: String::new(),
        };
        let answer = page.post("/sign-in", link);
        let cookie = answer.split("set-cookie: ").nth(1).unwrap();
        let (cookie, _) = cookie.split_once(';').unwrap();
        page.cookie = format!("cookie: {cookie}\r\n");
        let overview = request_with("GET", &format!("{url}/"), &page.cookie, "");
        let token = overview.split("name=\"token\" value=\"").nth(1).unwrap();
        page.token = token.split_once('"').unwrap().0.to_owned();
        page
    }

    /// Posts a form.
    pub(super) fn post(&self, path: &str, fields: &str) -> String {
        let headers = format!(
            "{}origin: {}\r\ncontent-type: application/x-www-form-urlencoded\r\n",
            self.cookie, self.url
        );
        let body = format!("token={}&{fields}", self.token);
        let answer = request_with("POST", &format!("{}{path}", self.url), &headers, &body);
        assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
        answer
    }
}

/// Returns the names in the folder for temporary files.
pub(super) fn temporary_files(dir: &WorkDir) -> Vec<String> {
    let folder = std::fs::read_dir(dir.path().join("tmp")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Sends a request without a body. Returns the answer.
pub(super) fn request(method: &str, url: &str) -> String {
    request_with(method, url, "", "")
}

/// Sends a request with these header lines. Returns the answer.
fn request_with(method: &str, url: &str, headers: &str, body: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let length = body.len();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn command(dir: &WorkDir, args: &[&str], env: &[(&str, &str)]) -> Command {
    let tmp = dir.path().join("tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    let mut all = vec!["dev", "--admin", "127.0.0.1:0"];
    if !args.contains(&"--listen") {
        all.extend(["--listen", "127.0.0.1:0"]);
    }
    all.extend(args);
    let mut command = dir.command(&all);
    command.env("TMPDIR", tmp).env_remove("NO_COLOR");
    command.envs(env.iter().copied());
    command
}

/// Collects an output in a thread. Its end is a NUL.
fn collect(mut output: impl Read + Send + 'static) -> Printed {
    let printed = Printed::default();
    let collected = Arc::clone(&printed);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = output.read(&mut buffer).unwrap_or_default();
            bytes.extend(&buffer[..read]);
            let mut text = String::from_utf8_lossy(&bytes).into_owned();
            if read == 0 {
                text.push('\0');
            }
            *collected.0.lock().unwrap() = text;
            collected.1.notify_all();
            if read == 0 {
                return;
            }
        }
    });
    printed
}
