//! Malformed and ambiguous requests, byte by byte. The connection closes if the start of the next
//! request is ambiguous. Other clients are still served.

// Only Linux can bind every address of 127.0.0.0/8.
#![cfg(target_os = "linux")]

use core::time::Duration;
use std::time::Instant;

use crate::support::{BODY, Client, PATH, Request, Server, builder};
use tokio::time;

/// The state of the connection after the responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Usable,
}

use State::{Closed, Usable};

/// A name, bytes, the responses to them, and the state of the connection after that.
type Case<'a> = (&'a str, Vec<u8>, &'a [u16], State);

/// Asserts what a server answers in each case.
async fn assert_cases<'a>(cases: impl IntoIterator<Item = Case<'a>>) {
    let builder = builder()
        .body_limit(100_000)
        .body_timeout(Duration::from_millis(300));
    let server = Server::start(builder).await;
    for (case, bytes, statuses, state) in cases {
        assert_answers(&server, case, &bytes, statuses, state).await;
    }
    server.stop().await;
}

/// Asserts that these bytes get these responses and leave the connection in this state.
async fn assert_answers(
    server: &Server,
    case: &str,
    bytes: &[u8],
    statuses: &[u16],
    expected: State,
) {
    let exchange = async {
        let mut client = server.connect_from("127.0.0.2").await;
        client.write(bytes).await;
        for status in statuses {
            let answer = client.answer().await;
            assert_eq!(answer.status, *status, "{case}: {answer:?}");
        }
        assert_eq!(state(&mut client).await, expected, "{case}");
    };
    let done = time::timeout(Duration::from_secs(20), exchange).await;
    done.expect(case);

    let start = Instant::now();
    let answer = server.send(&Request::signed("msg_1", BODY)).await;
    let took = start.elapsed();
    assert_eq!(answer.status, 204, "after {case}: {answer:?}");
    assert!(took < Duration::from_secs(1), "after {case}: {took:?}");
}

async fn state(client: &mut Client) -> State {
    client.write(&Request::signed("msg_1", BODY).bytes()).await;
    match client.answer().await.status {
        0 => Closed,
        204 => Usable,
        other => unreachable!("{other}"),
    }
}

/// Creates a valid delivery with another framing and body.
fn framed(framing: &[(&'static str, &'static str)], body: &[u8]) -> Vec<u8> {
    let mut request = Request::signed("msg_1", BODY).with("content-length", None);
    for (name, value) in framing {
        request = request.and(name, *value);
    }
    request.body = body.to_vec();
    request.bytes()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    [
        format!("{:x}\r\n", body.len()).as_bytes(),
        body,
        b"\r\n0\r\n\r\n",
    ]
    .concat()
}

/// Adds a header that may be no text.
fn with_header(request: &Request, name: &str, value: &[u8]) -> Vec<u8> {
    let bytes = request.bytes();
    let mut ends = bytes.windows(4);
    let end = ends.position(|four| four == b"\r\n\r\n").unwrap();
    let header = [b"\r\n", name.as_bytes(), b": ", value].concat();
    [&bytes[..end], &header, &bytes[end..]].concat()
}

#[tokio::test]
async fn answers_wrong_or_ambiguous_content_length() {
    let length = BODY.len();
    assert_eq!(length, 47, "the cases below rely on it");
    let next = Request::signed("msg_2", BODY).bytes();
    let two = |first, second| [("content-length", first), ("content-length", second)];
    #[rustfmt::skip]
    let cases = [
        // The rest of the body is parsed as a malformed request.
        ("short", framed(&[("content-length", "40")], BODY), &[401, 400][..], Closed),
        ("long", framed(&[("content-length", "48")], BODY), &[408], Closed),
        // The next request is read as the rest of the body.
        ("long, then a request", [framed(&[("content-length", "57")], BODY), next.clone()].concat(), &[401, 400], Closed),
        ("none", framed(&[], BODY), &[401, 400], Closed),
        ("negative", framed(&[("content-length", "-1")], BODY), &[400], Closed),
        ("signed", framed(&[("content-length", "+47")], BODY), &[400], Closed),
        ("hexadecimal", framed(&[("content-length", "0x2f")], BODY), &[400], Closed),
        ("fractional", framed(&[("content-length", "47.0")], BODY), &[400], Closed),
        ("empty", framed(&[("content-length", "")], BODY), &[400], Closed),
        ("more than a u64", framed(&[("content-length", "18446744073709551663")], BODY), &[400], Closed),
        ("almost a u64", framed(&[("content-length", "18446744073709551614")], BODY), &[431], Closed),
        ("huge", framed(&[("content-length", "9223372036854775807")], BODY), &[413], Closed),
        ("a list", framed(&[("content-length", "47, 47")], BODY), &[400], Closed),
        ("two different", framed(&two("47", "48"), BODY), &[400], Closed),
        ("two different, the other way round", framed(&two("0", "47"), BODY), &[400], Closed),
        ("two that agree", framed(&two("47", "47"), BODY), &[204], Usable),
    ];
    assert_cases(cases).await;
}

#[tokio::test]
async fn answers_malformed_or_ambiguous_chunks() {
    let te = [("transfer-encoding", "chunked")];
    let chunks = chunked(BODY);
    let smuggled = Request::signed("msg_2", BODY).bytes();
    let twice = |a, b| [("transfer-encoding", a), ("transfer-encoding", b)];
    let both = [("content-length", "4"), ("transfer-encoding", "chunked")];
    let both_turned = [("transfer-encoding", "chunked"), ("content-length", "4")];
    let endless = b"1000\r\n"
        .iter()
        .chain(&[b'x'; 0x1000])
        .chain(b"\r\n")
        .copied()
        .collect::<Vec<_>>();
    #[rustfmt::skip]
    let cases = [
        ("valid", framed(&te, &chunks), &[204][..], Usable),
        ("upper case", framed(&[("transfer-encoding", "Chunked")], &chunks), &[204], Usable),
        ("with trailers", framed(&te, &[&chunks[..chunks.len() - 2], b"x: y\r\n\r\n"].concat()), &[204], Usable),
        ("a signature among the trailers", framed(&te, &[&chunks[..chunks.len() - 2], b"webhook-id: msg_2\r\n\r\n"].concat()), &[204], Usable),
        // RFC 9112 section 6.3: the chunks count, and the connection closes after the response.
        ("with a length before", framed(&both, &[&chunks[..], &smuggled].concat()), &[204], Closed),
        ("with a length after", framed(&both_turned, &[&chunks[..], &smuggled].concat()), &[204], Closed),
        ("a length's body", framed(&both, &[b"0\r\n\r\n", &smuggled[..]].concat()), &[401], Closed),
        ("not the last encoding", framed(&twice("chunked", "identity"), &chunks), &[400], Closed),
        ("twice", framed(&twice("chunked", "chunked"), &chunks), &[400], Closed),
        ("twice in a list", framed(&[("transfer-encoding", "chunked, chunked")], &chunks), &[400], Closed),
        ("after another encoding", framed(&[("transfer-encoding", "gzip, chunked")], &chunks), &[400], Closed),
        ("another encoding", framed(&[("transfer-encoding", "gzip")], &chunks), &[400], Closed),
        ("misspelled", framed(&[("transfer-encoding", "xchunked")], &chunks), &[400], Closed),
        ("quoted", framed(&[("transfer-encoding", "\"chunked\"")], &chunks), &[400], Closed),
        ("a space before the colon", framed(&[("transfer-encoding ", "chunked")], &chunks), &[400], Closed),
        ("an invalid size", framed(&te, b"zz\r\n"), &[400], Closed),
        ("a negative size", framed(&te, b"-1\r\n"), &[400], Closed),
        ("a prefixed size", framed(&te, b"0x2f\r\n"), &[400], Closed),
        ("a size beyond a u64", framed(&te, b"fffffffffffffffff\r\n"), &[400], Closed),
        ("a huge size", framed(&te, b"7fffffffffffffff\r\nx"), &[408], Closed),
        ("longer than its size", framed(&te, b"1\r\nxyz\r\n0\r\n\r\n"), &[400], Closed),
        ("no end", framed(&te, &endless), &[408], Closed),
        ("no end, and no pause", framed(&te, &endless.repeat(100)), &[413], Closed),
        ("an extension without end", framed(&te, &[b"1;", &[b'x'; 200_000][..]].concat()), &[400], Closed),
        ("trailers without end", framed(&te, &[b"0\r\n", &b"x: y\r\n".repeat(50_000)[..]].concat()), &[400], Closed),
    ];
    assert_cases(cases).await;
}

#[tokio::test]
async fn answers_unusual_and_malformed_request_lines() {
    let request = Request::signed("msg_1", BODY);
    let line = |line: &str| {
        let bytes = request.bytes();
        let original = format!("POST {PATH} HTTP/1.1");
        [line.as_bytes(), &bytes[original.len()..]].concat()
    };
    let to = |target: &str| line(&format!("POST {target} HTTP/1.1"));
    #[rustfmt::skip]
    let cases = [
        ("absolute", to("http://localhost/webhooks/pleo"), &[204][..], Usable),
        ("absolute, of another host", to("https://example.com:1/webhooks/pleo"), &[204], Usable),
        ("with a query", to("/webhooks/pleo?x=1"), &[204], Usable),
        ("an authority", to("localhost:80"), &[404], Usable),
        ("an asterisk", line("OPTIONS * HTTP/1.1"), &[404], Usable),
        ("a tunnel", line("CONNECT localhost:80 HTTP/1.1"), &[404], Usable),
        ("dots", to("/x/../webhooks/pleo"), &[404], Usable),
        ("an encoded letter", to("/webhooks/%70leo"), &[404], Usable),
        ("a double slash", to("//webhooks/pleo"), &[404], Usable),
        ("upper case", to("/WEBHOOKS/pleo"), &[404], Usable),
        ("no slash", to("webhooks/pleo"), &[400], Closed),
        ("a space", to("/webhooks/pleo x"), &[400], Closed),
        ("not ASCII", to("/webhooks/pl\u{e9}o"), &[404], Usable),
        ("too long", to(&format!("/{}", "x".repeat(70_000))), &[431], Closed),
        ("HTTP/1.0", line("POST /webhooks/pleo HTTP/1.0"), &[204], Closed),
        ("HTTP/0.9", b"GET /webhooks/pleo\r\n\r\n".to_vec(), &[400], Closed),
        ("HTTP/3.0", line("POST /webhooks/pleo HTTP/3.0"), &[400], Closed),
        ("HTTP/2 in the clear", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[], Closed),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400], Closed),
        ("an invalid method", line("P@ST /webhooks/pleo HTTP/1.1"), &[400], Closed),
        ("garbage", vec![0xff; 5000], &[400], Closed),
        ("a request, then garbage", [&request.bytes()[..], &[0; 100]].concat(), &[204, 400], Closed),
        ("three pipelined", request.bytes().repeat(3), &[204; 3], Usable),
        ("line breaks first", [b"\r\n\r\n", &request.bytes()[..]].concat(), &[204], Usable),
    ];
    assert_cases(cases).await;
}

#[tokio::test]
async fn answers_contradictory_and_non_text_headers() {
    let good = || Request::signed("msg_1", BODY);
    let raw = |name: &str, value: &[u8]| with_header(&good(), name, value);
    let replaced =
        |name: &'static str, value: &[u8]| with_header(&good().with(name, None), name, value);
    let http10 = |request: &Request| {
        let text = String::from_utf8(request.bytes()).unwrap();
        text.replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes()
    };
    let many = |count| {
        (0..count)
            .fold(good(), |request, _| request.and("x", "y"))
            .bytes()
    };
    #[rustfmt::skip]
    let cases = [
        ("Latin-1 in an ignored header", raw("x", b"caf\xe9"), &[204][..], Usable),
        ("UTF-8 in an ignored header", raw("x", "\u{1f9fe}".as_bytes()), &[204], Usable),
        ("Latin-1 in the id", replaced("webhook-id", b"msg_\xe9"), &[400], Usable),
        ("UTF-8 in the timestamp", replaced("webhook-timestamp", "\u{661}".as_bytes()), &[400], Usable),
        ("UTF-8 in the signature", replaced("webhook-signature", "v1,\u{e9}".as_bytes()), &[401], Usable),
        ("Latin-1 in the type", replaced("content-type", b"application/json\xe9"), &[415], Usable),
        ("a NUL", raw("x", b"a\0b"), &[400], Closed),
        ("a bare CR", raw("x", b"a\rb"), &[400], Closed),
        ("a fold", raw("x", b"a\r\n b"), &[400], Closed),
        ("no name", raw("", b"x"), &[400], Closed),
        ("an invalid name", raw("x y", b"z"), &[400], Closed),
        ("no colon", raw("x\r\ny", b"z"), &[400], Closed),
        ("no host", good().with("host", None).bytes(), &[400], Usable),
        ("no host in HTTP/1.0", http10(&good().with("host", None)), &[204], Closed),
        ("two hosts", good().and("host", "example.com").bytes(), &[400], Usable),
        ("two types", good().and("content-type", "text/plain").bytes(), &[415], Usable),
        ("two ids", good().and("webhook-id", "msg_1").bytes(), &[400], Usable),
        ("both families", good().and("svix-id", "msg_2").bytes(), &[204], Usable),
        ("close and keep-alive", good().and("connection", "close").and("connection", "keep-alive").bytes(), &[204], Closed),
        ("an upgrade", good().and("connection", "upgrade").and("upgrade", "h2c").bytes(), &[204], Usable),
        ("the maximum of headers", many(100 - 6), &[204], Usable),
        ("one more header", many(101 - 6), &[431], Closed),
    ];
    assert_cases(cases).await;
}
