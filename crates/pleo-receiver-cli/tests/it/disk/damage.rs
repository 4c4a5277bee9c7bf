//! Damaged files: a message that cannot be read blocks no other.

use rusqlite::Connection;

use super::{acknowledge, wait_until};
use crate::support::counting_target;
use crate::support::disk::{Disk, INBOX};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatches_other_messages_if_some_are_unreadable() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.serve(&[]);
    let ids = acknowledge(server.address(), 0..40).await;
    assert_eq!(server.stop("-TERM").0, Some(0));

    let inbox = Connection::open(disk.file("inbox.db")).unwrap();
    let missing = "SELECT webhook_id, sequence FROM message ORDER BY sequence LIMIT 1";
    let (missing, sequence): (String, i64) = inbox
        .query_row(missing, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let delete = inbox.execute("DELETE FROM body WHERE sequence = ?1", [sequence]);
    assert_eq!(delete, Ok(1));
    // The first page of a body that continues on further pages has the number of the second.
    let page: i64 = inbox
        .query_row(
            "SELECT pageno FROM dbstat WHERE name = 'body' AND path LIKE '%+000000'
               AND replace(path, '+000000', '+000001') IN (SELECT path FROM dbstat)
             ORDER BY pageno DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    drop(inbox);
    let at = u64::try_from((page - 1) * 4096).unwrap();
    disk.damage("inbox.db", at, &[0xFF; 4]);

    let (url, delivered) = counting_target().await;
    let server = disk.serve(&["--forward", &url]);
    wait_until("dispatch", || delivered.lock().unwrap().len() >= 38).await;
    let list = |state: &str| {
        let args = [
            "inbox", "list", "--inbox", INBOX, "--state", state, "--json",
        ];
        disk.dir.json(&args)
    };
    wait_until("outcomes", || list("pending").is_empty()).await;
    let dead = list("dead");
    assert_eq!(dead.len(), 2, "{dead:?}");
    for entry in &dead {
        let error = entry["last_error"].as_str().unwrap();
        assert!(error.starts_with("unreadable: "), "{entry}");
    }
    assert!(dead.iter().any(|entry| entry["webhook_id"] == *missing));
    for entry in list("done") {
        assert_eq!(entry["attempts"], 1, "{entry}");
    }
    // Deliveries go on.
    let more = acknowledge(server.address(), 100..110).await;
    wait_until("dispatch", || {
        let delivered = delivered.lock().unwrap();
        more.iter().all(|id| delivered.contains_key(id))
    })
    .await;
    let delivered = delivered.lock().unwrap().clone();
    let once = ids.iter().filter(|id| delivered.get(*id) == Some(&1));
    assert_eq!(once.count(), 38);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("message is unreadable"), "{log}");
}
