//! What the sender gave up on is fetched, once, and marked.

#![cfg(unix)]

use crate::support::pleo::{EXPORT, VENDOR, World};
use crate::support::program::SECRET;
use serde_json::Value;

const CATCH_UP: &[&str] = &["catch-up", "--min-age", "0s"];

fn set_up(world: &World, event: &str) {
    world.done(&[
        "setup",
        "--url",
        &world.url("/webhooks/pleo"),
        "--event",
        event,
    ]);
}

#[test]
fn a_job_whose_webhook_was_given_up_is_caught_up_once_and_handed_on() {
    let world = World::new();
    set_up(&world, EXPORT);
    let server = world.serve(&[]);
    let arrived = world.pleo.add_export_job(world.company);
    let message = &world.pleo.emit(world.company, EXPORT, &arrived)[0];
    assert_eq!(world.settled(message).status, Some(204));
    drop(server);

    // Down for longer than the sender tries.
    world.down();
    let missed = world.pleo.add_export_job(world.company);
    let message = &world.pleo.emit(world.company, EXPORT, &missed)[0];
    assert_eq!(world.settled(message).status, None);
    assert_eq!(
        world.attempted(9).len(),
        1 + 8,
        "every attempt of the schedule"
    );

    let shown = world.json(&[CATCH_UP, &["--dry-run"]].concat());
    assert_eq!((shown.len(), &shown[0]["job"]), (1, &missed["id"]));
    assert_eq!(world.inbox("pending", 1).len(), 1, "only shown");
    let said = world.done(CATCH_UP);
    let id = missed["id"].as_str().unwrap();
    assert_eq!(said, format!("caught up {id} /webhooks/pleo\n"));
    let said = world.done(CATCH_UP);
    assert_eq!(said, "the inbox has every pending export job\n");

    let _server = world.serve(&["--exec", "tee -a books.jsonl"]);
    let entries = world.inbox("done", 2);
    let caught_up = entries
        .iter()
        .find(|one| one["origin"] == "catch-up")
        .unwrap();
    assert_eq!(caught_up["resource_id"], missed["id"]);
    assert_eq!(caught_up["webhook_id"], format!("catch-up_{id}"));
    assert_eq!(caught_up["event_type"], EXPORT);
    assert_ne!(
        caught_up["expires_at"],
        Value::Null,
        "it is known when it expires"
    );
    let booked = crate::support::pleo::lines(&world.read("books.jsonl"));
    let one = booked
        .iter()
        .find(|one| one["data"]["id"] == missed["id"])
        .unwrap();
    assert_eq!(one["data"], missed, "all that Pleo says of it");
}

#[test]
fn it_works_while_the_receiver_runs() {
    let world = World::new();
    set_up(&world, EXPORT);
    let _server = world.serve(&["--exec", "cat"]);
    for _ in 0..30 {
        world.pleo.add_export_job(world.company);
    }
    assert_eq!(world.json(CATCH_UP).len(), 30, "of more than one page");
    let entries = world.inbox("done", 30);
    assert!(
        entries.iter().all(|one| one["origin"] == "catch-up"),
        "{entries:?}"
    );
}

#[test]
fn a_young_job_is_left_to_its_webhook() {
    let world = World::new();
    set_up(&world, EXPORT);
    drop(world.serve(&[]));
    world.pleo.add_export_job(world.company);
    assert_eq!(world.json(&["catch-up"]), [Value::Null; 0]);
    assert_eq!(world.json(CATCH_UP).len(), 1);
}

#[test]
fn what_is_in_the_way_is_said() {
    let world = World::new();
    world.refused(CATCH_UP, 2, &["cannot read", "pleo.toml"]);
    set_up(&world, VENDOR);
    let parts = ["cannot open inbox", "`pleo-receiver serve --config"];
    world.refused(CATCH_UP, 1, &parts);
    drop(world.serve(&[]));
    world.refused(
        CATCH_UP,
        2,
        &["no `[[endpoint]]` has a `subscription` for export jobs"],
    );
    set_up(&world, EXPORT);
    let ended = world.run_as(CATCH_UP, "a.b.c");
    crate::support::pleo::assert_refused(&ended, 1, &["(401)"]);

    let world = World::with_scopes(&[]);
    set_up(&world, VENDOR);
    drop(world.serve(&[]));
    let before = world.read("pleo.toml");
    world
        .place
        .write("pleo.toml", &before.replace(VENDOR, EXPORT));
    world.refused(CATCH_UP, 1, &["(403)", "export-jobs:read"]);
}

#[test]
fn a_customer_whose_token_expired_is_in_the_way_of_no_other() {
    let world = World::new();
    set_up(&world, EXPORT);
    drop(world.serve(&[]));
    world.place.write("old.token", "a.b.c\n");
    let ours = world.read("pleo.toml");
    let theirs = format!(
        "[[endpoint]]\npath = \"/acme\"\nsecret = \"{SECRET}\"\nsubscription = {{ url = \
         \"https://x.example.com/acme\", events = [\"{EXPORT}\"], token = \"file:old.token\" }}\n\n"
    );
    world.place.write("pleo.toml", &format!("{theirs}{ours}"));
    world.pleo.add_export_job(world.company);
    let ended = world.run(CATCH_UP);
    crate::support::pleo::assert_refused(&ended, 1, &["error: /acme: ", "(401)"]);
    assert!(ended.stdout.starts_with("caught up "), "{ended:?}");
    assert_eq!(world.inbox("pending", 1).len(), 1);
    // What makes changes makes none where one is in doubt, and says which.
    let sync = ["subscriptions", "sync", "--yes"];
    world.refused(&sync, 1, &["error: /acme: ", "(401)"]);
}
