//! The keys `forward_format` and `forward_source`.

use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::support::program::{ENV, SECRET, WorkDir};

#[test]
fn forwards_cloud_events_if_configured() {
    let dir = WorkDir::new();
    let runtime = Runtime::new().unwrap();
    let (sender, requests) = mpsc::channel();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let keep = move |headers: HeaderMap| {
        sender.send(headers).unwrap();
        async {}
    };
    runtime.spawn(async { axum::serve(listener, Router::new().fallback(keep)).await });
    let configure = |more: &str| dir.write("pleo.toml", &format!("forward = \"{url}\"\n{more}"));
    configure("forward_format = \"cloudevents\"\n");
    let mut server = dir.serve(&["--config", "pleo.toml"], ENV);
    let forwarded = |url: &str| {
        dir.send_with(SECRET, url, &["--event", "v1.vendor.created"]);
        requests.recv_timeout(Duration::from_secs(60)).unwrap()
    };
    let headers = forwarded(&server.url);
    assert_eq!(headers["ce-source"], "/webhooks/pleo");
    assert_eq!(headers["ce-type"], "v1.vendor.created");
    assert_eq!(headers["ce-id"], headers["webhook-id"]);

    configure("forward_format = \"cloudevents\"\nforward_source = \"https://x.example/\"\n");
    server.signal_and_wait("-HUP", "handler changed");
    let headers = forwarded(&server.url);
    assert_eq!(headers["ce-source"], "https://x.example/webhooks/pleo");

    configure("forward_format = \"webhook\"\n");
    server.signal_and_wait("-HUP", "handler changed");
    let headers = forwarded(&server.url);
    assert!(!headers.contains_key("ce-id"), "{headers:?}");
    assert!(headers.contains_key("webhook-id"), "{headers:?}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn names_wrong_format_and_source() {
    let dir = WorkDir::new();
    for (keys, parts) in [
        (
            "forward_format = \"xml\"",
            &["line 2", "key `forward_format`", "`cloudevents`"][..],
        ),
        (
            "forward_source = \"https://x\"",
            &["`forward_source`", "forward_format"],
        ),
        (
            "forward_format = \"cloudevents\"\nforward_source = \"a b\"",
            &["`forward_source`", "a URI without query and fragment"],
        ),
    ] {
        dir.write(
            "pleo.toml",
            &format!("forward = \"http://localhost/\"\n{keys}\n"),
        );
        let output = dir.run_with(&["serve", "--config", "pleo.toml"], ENV, b"");
        assert_eq!(output.code, 2, "{output:?}");
        for part in parts {
            assert!(
                output.stderr.contains(part),
                "{part:?} is not in {output:?}"
            );
        }
    }
}
