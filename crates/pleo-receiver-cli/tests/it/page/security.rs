//! Tests of who may use the inspection page.

#[cfg(target_os = "linux")]
use std::io::{BufRead as _, BufReader, Write as _};
#[cfg(target_os = "linux")]
use std::process::{Child, Command, Stdio};
#[cfg(target_os = "linux")]
use std::thread;
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

use super::client::{Client, READ_TOKEN, TOKEN, serve};
use crate::support::program::{ENV, SECRET, WorkDir};

const PAGES: [&str; 7] = [
    "/messages/live",
    "/replays",
    "/replays/new",
    "/",
    "/messages",
    "/message?endpoint=a&id=b",
    "/message/body",
];
const ACTIONS: [&str; 5] = [
    "/replays",
    "/replays/cancel",
    "/replay",
    "/pause",
    "/resume",
];

#[test]
fn requires_session_for_every_page_and_action() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let mut client = Client::new(&server);
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    for cookie in [
        None,
        Some("pleo_session_9187="),
        Some("pleo_session_9187=0"),
    ] {
        client.cookie = cookie.map(str::to_owned);
        for path in PAGES {
            assert_eq!(client.get(path).redirect(), "/sign-in", "{path}");
            // A browser would send credentials by itself, also for another site.
            let answer = client.send("GET", path, &bearer, "");
            assert_eq!(answer.redirect(), "/sign-in", "{path}");
        }
        for path in ACTIONS {
            assert_eq!(client.post(path, &[]).redirect(), "/sign-in", "{path}");
        }
    }
    let mut signed_in = Client::signed_in(&server, TOKEN);
    assert_eq!(signed_in.get("/").status, 200);
    // Another program of this host may set a cookie of the same name.
    let cookie = signed_in.cookie.unwrap();
    signed_in.cookie = Some(format!("pleo_session_9187=0; {cookie}"));
    assert_eq!(signed_in.get("/").status, 200);
    assert_eq!(signed_in.post("/sign-out", &[]).redirect(), "/sign-in");
    assert_eq!(signed_in.get("/").redirect(), "/sign-in");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn signs_in_with_token_or_basic_credentials() {
    let dir = WorkDir::new();
    let basic = "admin_user = \"ana\"\nadmin_password = \"env:PLEO_TEST_PASSWORD\"\n";
    let admin = "admin = \"127.0.0.1:0\"\nadmin_token = \"env:TOKEN\"\n";
    dir.write(
        "pleo.toml",
        &format!("secret = \"{SECRET}\"\n{admin}{basic}"),
    );
    let env = [("TOKEN", TOKEN), ("PLEO_TEST_PASSWORD", "hunter:2")];
    let server = dir.serve(&[], &env);
    let mut client = Client::new(&server);
    for wrong in [
        &[][..],
        &[("secret", "")],
        &[("secret", "swordfis")],
        &[("secret", "hunter:2")],
        &[("user", "ana"), ("secret", "hunter3")],
        &[("user", "ana"), ("secret", TOKEN)],
        &[("user", "ana"), ("secret", " hunter:2")],
        &[("user", "ana:hunter"), ("secret", "2")],
        &[("link", "")],
        &[("link", TOKEN)],
    ] {
        let answer = client.sign_in(wrong);
        assert_eq!(answer.status, 403, "{wrong:?}: {answer:?}");
        assert_eq!(answer.header("set-cookie"), None);
    }
    for right in [
        &[("secret", TOKEN)][..],
        &[("user", "ana"), ("secret", "hunter:2")],
    ] {
        client.cookie = None;
        let answer = client.sign_in(right);
        assert_eq!(answer.redirect(), "/", "{right:?}");
        let cookie = answer.header("set-cookie").unwrap();
        for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(cookie.contains(part), "{part} is not in {cookie}");
        }
        assert!(!cookie.contains("Secure"), "not over TLS: {cookie}");
    }
    assert!(client.get("/").body.contains("Signed in: ana"));
    // A proxy ends TLS: the browser says so.
    client.cookie = None;
    client.origin = Some(format!("https://{}", client.host));
    let answer = client.sign_in(&[("secret", TOKEN)]);
    assert!(answer.header("set-cookie").unwrap().ends_with("; Secure"));
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    for part in [
        "sign-in refused",
        "signed in account=\"ana\" peer=127.0.0.1",
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    for secret in [TOKEN, "hunter:2"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn refuses_forms_of_other_origins() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let mut client = Client::signed_in(&server, TOKEN);
    for origin in [
        None,
        Some("null"),
        Some("http://evil.example"),
        Some("http://localhost:9188"),
        Some("http://localhost"),
    ] {
        client.origin = origin.map(str::to_owned);
        for path in ACTIONS.iter().chain(&["/sign-out"]) {
            let answer = client.post(path, &[("endpoint", "/webhooks/pleo")]);
            assert_eq!(answer.status, 403, "{path} {origin:?}: {answer:?}");
        }
        let answer = client.post_raw("/sign-in", &[("secret", TOKEN)]);
        assert_eq!(answer.status, 403, "{origin:?}: {answer:?}");
    }
    assert_eq!(client.get("/").status, 200, "still signed in");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn refuses_action_without_token_of_its_session() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let client = Client::signed_in(&server, TOKEN);
    let other = Client::signed_in(&server, TOKEN);
    for path in ACTIONS.iter().chain(&["/sign-out"]) {
        for token in ["", "0", TOKEN, &*other.token] {
            let fields = [("token", token), ("endpoint", "/webhooks/pleo")];
            let answer = client.post_raw(path, &fields);
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
        }
    }
    let stats = dir.json(&["inbox", "stats", "--json"]).remove(0);
    assert_eq!(
        stats["endpoints"],
        serde_json::json!([]),
        "nothing is paused"
    );
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn read_only_account_has_no_actions() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    dir.deliver(&server.url, &["--id", "msg_1"]);
    let client = Client::signed_in(&server, READ_TOKEN);
    for path in [
        "/",
        "/messages",
        "/message?endpoint=/webhooks/pleo&id=msg_1",
    ] {
        let page = client.get(path);
        assert_eq!(page.status, 200, "{page:?}");
        let forms: Vec<_> = page.body.match_indices("method=\"post\"").collect();
        assert_eq!(forms.len(), 1, "only the sign-out: {}", page.body);
        assert!(page.body.contains("read only"));
    }
    for path in ACTIONS {
        let fields = [("endpoint", "/webhooks/pleo"), ("id", "msg_1")];
        let answer = client.post(path, &fields);
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
    let (_, log) = server.stop("-TERM");
    assert!(!log.contains("by admin"), "{log}");
}

#[test]
fn logs_each_action_with_its_account() {
    let dir = WorkDir::new();
    let mut server = serve(&dir, "");
    dir.deliver(&server.url, &["--id", "msg_1"]);
    let client = Client::signed_in(&server, TOKEN);
    let endpoint = ("endpoint", "/webhooks/pleo");
    for (path, text) in [
        ("/replay", "message replayed by admin"),
        ("/pause", "endpoint paused by admin"),
        ("/resume", "endpoint resumed by admin"),
    ] {
        client.post(path, &[endpoint, ("id", "msg_1")]).redirect();
        let line = server.wait_for_log(text);
        for field in [
            "account=\"admin_token\"",
            "peer=127.0.0.1",
            "endpoint=\"/webhooks/pleo\"",
        ] {
            assert!(line.contains(field), "{field} is not in {line}");
        }
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn page_loads_nothing_inline_or_from_other_hosts() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    dir.deliver(&server.url, &["--id", "msg_1"]);
    let client = Client::signed_in(&server, TOKEN);
    let pages = [
        "/",
        "/messages",
        "/message?endpoint=/webhooks/pleo&id=msg_1",
        "/message",
        "/sign-in",
        "/sign-in?link=%22%3E%3Cscript%3E",
        "/assets/page.css",
        "/assets/page.js",
        "/assets/nothing",
    ];
    for path in pages {
        let page = client.get(path);
        let policy = page.header("content-security-policy").unwrap();
        for part in [
            "default-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        let cache = if page.header("etag").is_some() {
            "no-cache"
        } else {
            "no-store"
        };
        assert_eq!(page.header("cache-control"), Some(cache), "{path}");
        if path.starts_with("/assets/page") {
            assert_eq!(page.status, 200, "{path}");
            assert!(!page.body.contains("http"), "no other host: {path}");
            continue;
        }
        assert_eq!(page.body.matches("<script").count(), 1, "{}", page.body);
        assert!(
            page.body
                .contains("<script src=\"/assets/page.js\" defer></script>")
        );
        for inline in [
            "<style",
            "style=",
            "javascript:",
            " onclick",
            " onload",
            "src=\"http",
            "href=\"http",
        ] {
            assert!(!page.body.contains(inline), "{inline}: {}", page.body);
        }
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn refuses_unknown_host_names() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let mut client = Client::signed_in(&server, TOKEN);
    client.host = "evil.example:9187";
    client.origin = Some("http://evil.example:9187".to_owned());
    for path in PAGES.iter().chain(&["/sign-in", "/assets/page.js"]) {
        assert_eq!(client.get(path).status, 421, "{path}");
    }
    for path in ACTIONS.iter().chain(&["/sign-in", "/sign-out"]) {
        assert_eq!(client.post(path, &[]).status, 421, "{path}");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn limits_guesses_at_sign_in() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let mut client = Client::new(&server);
    let mut statuses = (0..40).map(|_| client.sign_in(&[("secret", "guess")]).status);
    assert!(statuses.any(|status| status == 429));
    // Programs have a limit of their own.
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    assert_eq!(client.send("GET", "/metrics", &bearer, "").status, 200);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn ends_sessions_when_credentials_change() {
    let dir = WorkDir::new();
    dir.write("token", TOKEN);
    let admin = "admin = \"127.0.0.1:0\"\nadmin_token = \"file:token\"\n";
    dir.write("pleo.toml", &format!("secret = \"{SECRET}\"\n{admin}"));
    let mut server = dir.serve(&[], ENV);
    let client = Client::signed_in(&server, TOKEN);
    server.signal_and_wait("-HUP", "configuration reloaded");
    assert_eq!(client.get("/").status, 200, "the same credentials");
    dir.write("token", "other");
    server.signal_and_wait("-HUP", "configuration reloaded");
    assert_eq!(client.get("/").redirect(), "/sign-in");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn explains_sign_in_without_credentials() {
    let dir = WorkDir::new();
    let server = dir.serve(&["--admin", "127.0.0.1:0"], ENV);
    let mut client = Client::new(&server);
    assert_eq!(client.get("/").redirect(), "/sign-in");
    let page = client.get("/sign-in").text();
    for part in ["admin_token", "on a terminal"] {
        assert!(page.contains(part), "{page}");
    }
    for fields in [&[][..], &[("secret", "")], &[("link", "")]] {
        assert_eq!(client.sign_in(fields).status, 403);
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn prints_sign_in_link_on_terminal_once() {
    let dir = WorkDir::new();
    let program = env!("CARGO_BIN_EXE_pleo-receiver");
    let serve = format!("{program} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 2>log");
    // `script` runs the command on a terminal.
    let mut command = Command::new("script");
    command.args(["-qefc", &serve, "/dev/null"]);
    command.current_dir(dir.path()).envs(ENV.iter().copied());
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = Terminal(command.stderr(Stdio::null()).spawn().unwrap());
    let stdout = terminal.0.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    let line = lines.find_map(|line| {
        let line = line.unwrap();
        line.contains("inspection page").then_some(line)
    });
    let line = line.unwrap();
    let (_, url) = line.split_once("http://").unwrap();
    let (address, path) = url.trim().split_once('/').unwrap();
    let link = path.strip_prefix("sign-in?link=").unwrap();
    let mut client = Client::at(address);
    let page = client.get(&format!("/{path}"));
    assert_eq!(page.status, 200, "{page:?}");
    // Wrong guesses of others don't refuse it.
    let mut statuses = (0..40).map(|_| client.sign_in(&[("secret", "guess")]).status);
    assert!(statuses.any(|status| status == 429));
    assert_eq!(client.sign_in(&[("link", link)]).redirect(), "/");
    assert_eq!(client.get("/").status, 200);
    let mut second = Client::at(address);
    let again = second.sign_in(&[("link", link)]);
    assert!(matches!(again.status, 403 | 429), "{again:?}");
    // A thread of its own writes the log.
    let deadline = Instant::now() + Duration::from_secs(60);
    let log = loop {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        if log.contains("sign-in refused") {
            break log;
        }
        assert!(Instant::now() < deadline, "{log}");
        thread::yield_now();
    };
    assert!(!log.contains(link), "{log}");
}

/// A command on a terminal, whose end ends the command too.
#[cfg(target_os = "linux")]
struct Terminal(Child);

#[cfg(target_os = "linux")]
impl Drop for Terminal {
    /// Types Ctrl-C. Without a terminal, the server would reload and go on.
    fn drop(&mut self) {
        let stdin = self.0.stdin.as_mut();
        let _ = stdin.map(|stdin| stdin.write_all(b"\x03"));
        let _ = self.0.wait();
    }
}
