//! A client of the inspection page that keeps a session.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::program::{ENV, RunningServer, SECRET, WorkDir};

pub(super) const TOKEN: &str = "swordfish";
pub(super) const READ_TOKEN: &str = "marlin";

const HOST: &str = "localhost:9187";
const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer of the page.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header lines, with the status line.
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    /// Reads an answer to its end.
    fn read(mut stream: TcpStream) -> Self {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// Returns a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(other, value)| other.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Returns the text of the page, without its elements.
    pub(super) fn text(&self) -> String {
        let main = self.body.split("<main").nth(1).unwrap_or(&self.body);
        let pieces = main.split('<').filter_map(|piece| piece.split_once('>'));
        let text: String = pieces.map(|(_, text)| text).collect::<Vec<_>>().join(" ");
        let text = text.replace("&lt;", "<").replace("&gt;", ">");
        let text = text.replace("&quot;", "\"").replace("&amp;", "&");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Returns the target of a redirect.
    pub(super) fn redirect(&self) -> &str {
        assert_eq!(self.status, 303, "{self:?}");
        self.header("location").unwrap()
    }
}

/// A client of the page.
pub(super) struct Client {
    address: String,
    pub(super) host: &'static str,
    pub(super) origin: Option<String>,
    pub(super) cookie: Option<String>,
    /// The token of the session's actions.
    pub(super) token: String,
}

impl Client {
    /// Creates a client that isn't signed in.
    pub(super) fn new(server: &RunningServer) -> Self {
        Self::at(server.admin_address())
    }

    /// Creates a client of the admin listener at this address.
    pub(super) fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            host: HOST,
            origin: Some(format!("http://{HOST}")),
            cookie: None,
            token: String::new(),
        }
    }

    /// Creates a client that is signed in with a token.
    pub(super) fn signed_in(server: &RunningServer, token: &str) -> Self {
        let mut client = Self::new(server);
        let answer = client.sign_in(&[("secret", token)]);
        assert_eq!(answer.redirect(), "/");
        client
    }

    /// Posts the form of the sign-in, and keeps its session.
    pub(super) fn sign_in(&mut self, fields: &[(&str, &str)]) -> Answer {
        let answer = self.post_raw("/sign-in", fields);
        if let Some(cookie) = answer.header("set-cookie") {
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
            let page = self.get("/");
            let token = page.body.split("name=\"token\" value=\"").nth(1).unwrap();
            self.token = token.split('"').next().unwrap().to_owned();
        }
        answer
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    /// Posts a form with the token of the session.
    pub(super) fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = [("token", &*self.token)];
        self.post_raw(path, &[&token, fields].concat())
    }

    /// Posts a form.
    pub(super) fn post_raw(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(fields).finish();
        let kind = "content-type: application/x-www-form-urlencoded\r\n";
        self.send("POST", path, kind, &form)
    }

    /// Sends a request with more header lines.
    pub(super) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        let head = self.head(method, path, headers, body.len());
        stream.write_all((head + body).as_bytes()).unwrap();
        Answer::read(stream)
    }

    /// Posts a form without its last byte, and waits until the server reads it.
    pub(super) fn begin(&self, path: &str, fields: &[(&str, &str)]) -> Incomplete {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(fields).finish();
        let mut stream = self.connect();
        let head = self.head("POST", path, "expect: 100-continue\r\n", form.len());
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 25];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        let (begin, last) = form.split_at(form.len() - 1);
        stream.write_all(begin.as_bytes()).unwrap();
        Incomplete(stream, last.to_owned())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Returns the head of a request.
    fn head(&self, method: &str, path: &str, headers: &str, length: usize) -> String {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{headers}",
            self.host
        );
        if method == "POST" {
            head += &format!("content-length: {length}\r\n");
            if let Some(origin) = &self.origin {
                head += &format!("origin: {origin}\r\n");
            }
        }
        if let Some(cookie) = &self.cookie {
            head += &format!("cookie: other=1; {cookie}\r\n");
        }
        head + "\r\n"
    }

    /// Opens a stream of events.
    pub(super) fn open(&self, path: &str) -> Events {
        let stream = self.connect();
        let (host, cookie) = (self.host, self.cookie.as_deref().unwrap());
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n\r\n");
        (&stream).write_all(request.as_bytes()).unwrap();
        Events(BufReader::new(stream))
    }

    /// Waits until a page contains a text. Returns the page.
    pub(super) fn wait_for(&self, path: &str, text: &str) -> Answer {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let page = self.get(path);
            if page.text().contains(text) {
                return page;
            }
            assert!(Instant::now() < deadline, "no {text:?} in {}", page.text());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A request whose last byte is missing.
pub(super) struct Incomplete(TcpStream, String);

impl Incomplete {
    /// Sends the last byte.
    pub(super) fn finish(mut self) -> Answer {
        self.0.write_all(self.1.as_bytes()).unwrap();
        Answer::read(self.0)
    }

    /// Sends the last byte, and closes the connection after a while.
    pub(super) fn finish_and_leave(mut self, after: Duration) {
        self.0.write_all(self.1.as_bytes()).unwrap();
        thread::sleep(after);
    }
}

/// A stream of events.
pub(super) struct Events(BufReader<TcpStream>);

impl Events {
    /// Waits for a line with this text. Returns `None` if the stream ends before.
    pub(super) fn wait_for(&mut self, text: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if line.contains(text) {
                return Some(line);
            }
        }
    }
}

/// Starts a server with a page, both tokens and more settings.
pub(super) fn serve(dir: &WorkDir, settings: &str) -> RunningServer {
    let admin = format!(
        "secret = \"{SECRET}\"\nadmin = \"127.0.0.1:0\"\nadmin_token = \"env:TOKEN\"\n\
         admin_read_token = \"env:READ_TOKEN\"\n{settings}"
    );
    dir.write("pleo.toml", &admin);
    let tokens = [("TOKEN", TOKEN), ("READ_TOKEN", READ_TOKEN)];
    dir.serve(&[], &[ENV, &tokens].concat())
}
