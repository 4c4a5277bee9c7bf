//! Tests of forms that arrive slowly.

use super::client::{Client, TOKEN, serve};
use crate::support::program::{ENV, RunningServer, SECRET, WorkDir};

/// Starts a server whose token is in a file.
fn serve_with_token_file(dir: &WorkDir) -> RunningServer {
    dir.write("token", TOKEN);
    let admin = "admin = \"127.0.0.1:0\"\nadmin_token = \"file:token\"\n";
    dir.write("pleo.toml", &format!("secret = \"{SECRET}\"\n{admin}"));
    dir.serve(&[], ENV)
}

#[test]
fn incomplete_forms_take_no_place_of_others() {
    let dir = WorkDir::new();
    let server = serve(&dir, "");
    let client = Client::new(&server);
    let forms: Vec<_> = ["/replay", "/sign-in"]
        .iter()
        .cycle()
        .take(32)
        .map(|path| client.begin(path, &[("a", "b")]))
        .collect();
    for path in ["/livez", "/sign-in", "/assets/page.css"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    drop(forms);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn checks_form_against_credentials_after_it_arrived() {
    let dir = WorkDir::new();
    let mut server = serve_with_token_file(&dir);
    let client = Client::signed_in(&server, TOKEN);
    let sign_in = Client::new(&server).begin("/sign-in", &[("secret", TOKEN)]);
    let fields = [("token", &*client.token), ("endpoint", "/webhooks/pleo")];
    let pause = client.begin("/pause", &fields);
    dir.write("token", "other");
    server.signal_and_wait("-HUP", "configuration reloaded");
    let answer = sign_in.finish();
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(pause.finish().redirect(), "/sign-in");
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(!log.contains("paused by admin"), "{log}");
}
