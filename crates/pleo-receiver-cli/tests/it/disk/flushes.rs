//! Acknowledged messages are flushed, and a failed flush loses none.

use std::collections::BTreeSet;

use super::{
    TIMEOUT, acknowledge, assert_on_disk, deliver, deliver_all, file_size, read_all, wait_until,
};
use crate::support::counting_target;
use crate::support::disk::{DATABASE, Disk, Fault, LOG, Random};
use rusqlite::Connection;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_acknowledged_messages_after_power_cut() {
    let Some(disk) = Disk::new() else { return };
    let mut acknowledged = Vec::new();
    for life in 0..4 {
        let server = disk.serve(&[]);
        let address = server.address().to_owned();
        let new = acknowledge(&address, life * 100..life * 100 + 37).await;
        acknowledged.extend(new);
        let last = format!("msg_last_{life}");
        assert_eq!(deliver(&address, &last).await, 204);
        acknowledged.push(last);
        server.stop("-KILL");
        disk.cut_power();
        assert_on_disk(&disk, &acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_message_whose_flush_did_not_reach_disk() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.serve(&[]);
    assert_eq!(deliver(server.address(), "msg_safe").await, 204);
    // The test sees a disk that reports a flush and does none, so it would see a missing flush too.
    disk.fail(&[Fault::on("flush", LOG, "drop").forever()]);
    assert_eq!(deliver(server.address(), "msg_lost").await, 204);
    server.stop("-KILL");
    disk.cut_power();
    let states = assert_on_disk(&disk, []);
    assert_eq!(states.into_keys().collect::<Vec<_>>(), ["msg_safe"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicate_of_unflushed_message_is_flushed_after_kill() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.serve(&[]);
    let address = server.address().to_owned();
    let mut acknowledged = acknowledge(&address, 0..3).await;
    // The server is killed during the flush: the message is in the file, and not on the disk.
    disk.fail(&[Fault::on("flush", LOG, "drop").forever()]);
    assert_eq!(deliver(&address, "msg_again").await, 204);
    server.stop("-KILL");
    disk.repair();
    let server = disk.serve(&[]);
    assert_eq!(deliver(server.address(), "msg_again").await, 204);
    acknowledged.push("msg_again".into());
    server.stop("-KILL");
    disk.cut_power();
    assert_on_disk(&disk, &acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_503_after_failed_flush_of_log_and_keeps_later_messages() {
    let Some(disk) = Disk::new() else { return };
    let mut server = disk.serve(&[]);
    let address = server.address().to_owned();
    // Too few for a checkpoint.
    let mut acknowledged = acknowledge(&address, 0..2).await;
    disk.fail(&[Fault::on("flush", LOG, "EIO")]);
    assert_eq!(deliver(&address, "msg_failed").await, 503);
    assert_eq!(disk.hits(), ["flush inbox.db-wal EIO"]);
    server.wait_for_log("inbox flushed to the disk after a failure");
    acknowledged.extend(acknowledge(&address, 10..20).await);
    server.stop("-KILL");
    disk.cut_power();
    assert_on_disk(&disk, &acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_messages_after_failed_flush_in_checkpoint() {
    let Some(disk) = Disk::new() else { return };
    for file in [LOG, DATABASE] {
        let (url, _) = counting_target().await;
        let mut server = disk.serve(&["--forward", &url]);
        let address = server.address().to_owned();
        let offset = if file == LOG { 0 } else { 50_000 };
        let mut acknowledged = acknowledge(&address, offset..offset + 50).await;
        // The checkpoint thread copies pages while messages are appended; so the failed flush is
        // not that of the pages that were copied last.
        disk.fail(&[Fault::on("flush", file, "EIO").after(1)]);
        for batch in 1.. {
            let first = offset + batch * 100;
            let ids = (first..first + 40).map(|number| format!("msg_{number:05}"));
            let answers = deliver_all(&address, ids).await;
            let stored = answers.into_iter().filter(|(_, status)| *status == 204);
            acknowledged.extend(stored.map(|(id, _)| id));
            if !disk.hits().is_empty() {
                break;
            }
            assert!(batch < 200, "the file is never flushed");
        }
        server.wait_for_log("inbox flushed to the disk after a failure");
        let first = offset + 40_000;
        acknowledged.extend(acknowledge(&address, first..first + 50).await);
        server.stop("-KILL");
        disk.cut_power();
        assert_on_disk(&disk, &acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbox_is_intact_if_power_is_cut_right_after_failed_flush() {
    let Some(disk) = Disk::new() else { return };
    let mut random = Random(1);
    let server = disk.serve(&[]);
    let mut acknowledged = acknowledge(server.address(), 0..600).await;
    assert_eq!(server.stop("-TERM").0, Some(0));
    for round in 0..6 {
        let (url, delivered) = counting_target().await;
        let mut server = disk.serve(&["--forward", &url]);
        let address = server.address().to_owned();
        // Outcomes are committed without a flush.
        wait_until("dispatch", || delivered.lock().unwrap().len() > 40).await;
        acknowledged.extend(acknowledge(&address, 1000 + round * 10..1003 + round * 10).await);
        wait_until("dispatch", || delivered.lock().unwrap().len() > 60).await;
        // The log fails once. The copy into the database succeeds, and what empties the log is not
        // flushed before the power is cut.
        disk.fail(&[Fault::on("flush", LOG, "EIO")]);
        let id = format!("msg_failed_{round}");
        // 204 if a checkpoint met the failure, and everything was flushed before the commit.
        match deliver(&address, &id).await {
            204 => acknowledged.push(id),
            status => assert_eq!(status, 503),
        }
        server.wait_for_log("inbox flushed to the disk after a failure");
        server.stop("-KILL");
        if round % 2 == 0 {
            disk.cut_power();
        } else {
            disk.tear(&mut random);
        }
        assert_on_disk(&disk, &acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exits_after_second_failed_flush_and_starts_only_after_flush() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.serve(&[]);
    let address = server.address().to_owned();
    let acknowledged = acknowledge(&address, 0..10).await;
    disk.fail(&[
        Fault::on("flush", LOG, "EIO").forever(),
        Fault::on("flush", DATABASE, "EIO").forever(),
    ]);
    assert_eq!(deliver(&address, "msg_failed").await, 503);
    let (code, log) = server.wait();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("cannot flush inbox to the disk"), "{log}");
    // While the disk fails, the server does not start.
    for _ in 0..2 {
        let log = disk.refused();
        assert!(log.contains("cannot open inbox"), "{log}");
    }
    disk.repair();
    let server = disk.serve(&[]);
    // Everything is on the disk before the first request.
    server.stop("-KILL");
    disk.cut_power();
    assert_on_disk(&disk, &acknowledged);
    let server = disk.serve(&[]);
    assert_eq!(deliver(server.address(), "msg_failed").await, 204);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_503_while_disk_is_full_and_recovers() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.serve(&[]);
    let address = server.address().to_owned();
    let mut acknowledged = acknowledge(&address, 0..10).await;
    let full = Fault::on("write", LOG, "ENOSPC").forever();
    // Half of the first page is written.
    for (round, fault) in [full, Fault::on("write", LOG, "half")]
        .into_iter()
        .enumerate()
    {
        disk.fail(&[fault, full]);
        for number in 0..5 {
            let status = deliver(&address, &format!("msg_full_{round}_{number}")).await;
            assert_eq!(status, 503, "{fault:?}");
        }
        disk.repair();
        for number in 0..5 {
            let id = format!("msg_full_{round}_{number}");
            assert_eq!(deliver(&address, &id).await, 204);
            acknowledged.push(id);
        }
    }
    server.stop("-KILL");
    disk.cut_power();
    assert_on_disk(&disk, &acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frees_queue_after_refusals() {
    let Some(disk) = Disk::new() else { return };
    disk.dir
        .write("pleo.toml", "[limits]\nqueue_bytes = 262144\n");
    let server = disk.serve(&["--config", "pleo.toml"]);
    let address = server.address().to_owned();
    // Each kind of refusal happens to more messages than the queue has room for.
    for fault in [
        Fault::on("write", LOG, "ENOSPC").forever(),
        Fault::on("flush", LOG, "EIO").times(1),
    ] {
        for round in 0..40 {
            disk.fail(&[fault]);
            let ids = (0..4).map(|number| format!("msg_{round}_{number}"));
            for (id, status) in deliver_all(&address, ids).await {
                assert!(matches!(status, 204 | 503), "{id}: {status}");
            }
        }
        disk.repair();
    }
    // Another process has a transaction, so that none can begin.
    let other = Connection::open(disk.file("inbox.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ids = (0..60).map(|number| format!("msg_begin_{number}"));
    for (id, status) in deliver_all(&address, ids).await {
        assert_eq!(status, 503, "{id}");
    }
    other.execute_batch("COMMIT").unwrap();
    // The queue has room for its whole size.
    let answers = deliver_all(&address, (0..10).map(|number| format!("msg_{number}"))).await;
    assert!(
        answers.iter().all(|(_, status)| *status == 204),
        "{answers:?}"
    );
    drop(other);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_shrinks_after_long_reader() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.serve(&[]);
    let address = server.address().to_owned();
    acknowledge(&address, 0..10).await;
    let reader = Connection::open(disk.file("inbox.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM message")
        .unwrap();
    let mut stored = 10;
    while file_size(&disk, "inbox.db-wal") < 40 * 1024 * 1024 {
        acknowledge(&address, stored..stored + 200).await;
        stored += 200;
        assert!(stored < 10_000, "the log does not grow");
    }
    assert_eq!(read_all(&reader).len(), 10, "the reader sees an old state");
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    let start = std::time::Instant::now();
    while file_size(&disk, "inbox.db-wal") > 17 * 1024 * 1024 {
        acknowledge(&address, stored..stored + 10).await;
        stored += 10;
        assert!(start.elapsed() < TIMEOUT, "the log does not shrink");
    }
    assert_eq!(server.stop("-TERM").0, Some(0));
    let inbox = Connection::open(disk.file("inbox.db")).unwrap();
    assert_eq!(read_all(&inbox).len(), stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_while_messages_arrive() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.serve(&[]);
    let address = server.address().to_owned();
    let mut ids = BTreeSet::new();
    for batch in 0..20 {
        ids.extend(acknowledge(&address, batch * 50..batch * 50 + 50).await);
    }
    let before = file_size(&disk, "inbox.db");
    assert!(before > 1024 * 1024, "the database has only {before} bytes");
    server.stop("-KILL");
    disk.cut_power();
    assert_on_disk(&disk, &ids);
}
