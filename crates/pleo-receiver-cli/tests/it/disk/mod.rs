//! Failing disks and power cuts, simulated under the program.

mod damage;
mod flushes;
mod property;

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;

use rusqlite::Connection;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;

use crate::support::disk::Disk;
use crate::support::{Answer, Request};

/// The maximum time that a test waits for an event.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A body that differs for each id. Its length varies by id, up to several pages of the database.
fn body(id: &str) -> Vec<u8> {
    let length = id.bytes().map(usize::from).sum::<usize>() % 40 * 300;
    let padding = "x".repeat(length);
    format!(r#"{{"eventType":"v9.new","data":{{"id":"{id}"}},"padding":"{padding}"}}"#).into()
}

/// Returns the status of the answer; 0 if the server closed the connection or does not run.
async fn deliver(address: &str, id: &str) -> u16 {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return 0;
    };
    let request = Request::signed(id, &body(id)).bytes();
    if stream.write_all(&request).await.is_err() {
        return 0;
    }
    Answer::read(&mut stream).await.status
}

/// Delivers messages concurrently. Returns the ids and the statuses.
async fn deliver_all(address: &str, ids: impl IntoIterator<Item = String>) -> Vec<(String, u16)> {
    let mut deliveries = JoinSet::new();
    for id in ids {
        let address = address.to_owned();
        deliveries.spawn(async move {
            let status = deliver(&address, &id).await;
            (id, status)
        });
    }
    deliveries.join_all().await
}

/// Delivers messages with these numbers concurrently. Asserts that all are acknowledged, and returns
/// their ids.
async fn acknowledge(address: &str, numbers: core::ops::Range<usize>) -> Vec<String> {
    let answers = deliver_all(address, numbers.map(|number| format!("msg_{number:05}"))).await;
    let mut ids = Vec::new();
    for (id, status) in answers {
        assert_eq!(status, 204, "{id}");
        ids.push(id);
    }
    ids
}

/// Asserts that the disk has an intact inbox, and in it each of the messages once, with its bytes.
/// Returns the state of each message.
fn assert_on_disk<'a>(
    disk: &Disk,
    acknowledged: impl IntoIterator<Item = &'a String>,
) -> BTreeMap<String, String> {
    let copy = tempfile::tempdir().unwrap();
    let inbox = disk.open_copy(copy.path());
    let schema = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = inbox.query_row(schema, [], |row| row.get(0)).unwrap();
    // Without tables, no server has started.
    let states = if tables == 0 {
        BTreeMap::new()
    } else {
        read_all(&inbox)
    };
    for id in acknowledged {
        assert!(states.contains_key(id), "{id} was acknowledged and lost");
    }
    states
}

/// Asserts that the inbox is intact, and that it has each message once, with its bytes. Returns the
/// state of each message.
fn read_all(inbox: &Connection) -> BTreeMap<String, String> {
    let check: String = inbox
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let mut messages = inbox
        .prepare("SELECT webhook_id, state, body FROM message LEFT JOIN body USING (sequence)")
        .unwrap();
    let messages = messages.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let mut states = BTreeMap::new();
    for message in messages.unwrap() {
        let (id, state, stored): (String, String, Vec<u8>) = message.unwrap();
        assert!(stored == body(&id), "{id} has another body");
        let other = states.insert(id.clone(), state);
        assert_eq!(other, None, "{id} is stored more than once");
    }
    states
}

/// Waits until the condition holds.
async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    let result = time::timeout(TIMEOUT, wait).await;
    assert!(result.is_ok(), "{what}: not within {TIMEOUT:?}");
}

fn file_size(disk: &Disk, name: &str) -> u64 {
    fs::metadata(disk.file(name)).map_or(0, |data| data.len())
}
