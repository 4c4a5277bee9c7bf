//! What it writes, and what it leaves as it is: the configuration and the secrets.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::support::pleo::{EXPORT, VENDOR, World, assert_refused};
use crate::support::program::{OTHER, SECRET};

#[test]
fn what_is_in_the_configuration_stays_with_its_comments() {
    let world = World::new();
    let before = format!(
        "# Ours.\ninbox = \"sqlite:books.db\" # on the fast disk\n\n[[endpoint]]\npath = \"/webhooks/pleo\"\n\
         secret = \"{SECRET}\" # until Friday\nheaders = {{ x-tenant = \"hunter2\" }}\n\n[limits]\ngrace = \"5s\"\n"
    );
    world.place.write("pleo.toml", &before);
    let url = world.url("/webhooks/pleo");
    world.done(&["setup", "--url", &url]);
    let after = world.read("pleo.toml");
    for line in before.lines().filter(|line| !line.starts_with("secret")) {
        assert!(after.contains(line), "{line} is not in {after}");
    }
    let secret = format!("secret = [\"file:webhooks-pleo.secret\", \"{SECRET}\"] # until Friday");
    assert!(after.contains(&secret), "{after}");
    let listed = world.json(&["subscriptions", "list"]);
    let headers = listed[0]["customHeaders"].as_object().unwrap();
    assert!(
        headers.contains_key("x-tenant"),
        "what the endpoint asks for: {headers:?}"
    );

    let server = world.serve(&[]);
    let messages = world
        .pleo
        .emit(world.company, EXPORT, &serde_json::json!({}));
    assert_eq!(world.settled(&messages[0]).status, Some(204));
    drop(server);

    world.done(&["setup", "--url", &url, "--event", VENDOR]);
    let changed = world.read("pleo.toml");
    assert_eq!(changed, after.replace(EXPORT, VENDOR), "only that");
    assert_eq!(
        world.json(&["subscriptions", "list"])[0]["eventTypes"][0],
        VENDOR
    );
    let said = world.done(&[
        "setup",
        "--url",
        &world.url("/webhooks/other"),
        "--name",
        "other",
    ]);
    assert!(said.contains("create"), "{said}");
    assert!(
        world
            .read("pleo.toml")
            .starts_with(&changed[..changed.len() / 2])
    );
    let serving = world.serve(&[]);
    assert_eq!(serving.stop("-TERM").0, Some(0), "both endpoints are good");
}

#[test]
fn what_says_the_same_in_other_words_stays_as_it_is() {
    let world = World::new();
    let url = world.url("/webhooks/pleo");
    let setup = ["setup", "--url", &url, "--event", EXPORT, "--event", VENDOR];
    world.done(&setup);
    let secret = world.read("webhooks-pleo.secret");
    world
        .place
        .write("elsewhere", &format!("{SECRET}\n{secret}"));
    std::fs::remove_file(world.place.path().join("webhooks-pleo.secret")).unwrap();
    let before = format!(
        "[[endpoint]]\npath = \"/webhooks/pleo\"\nsecrets = [\"file:elsewhere\"]\n\n\
         [endpoint.subscription]\nurl = '{url}'\nevents = [\n  \"{EXPORT}\", # books\n  \"{VENDOR}\",\n]\n"
    );
    world.place.write("pleo.toml", &before);
    let said = world.done(&setup);
    assert!(said.contains("nothing to change"), "{said}");
    assert_eq!(world.read("pleo.toml"), before);
    assert!(!world.has("webhooks-pleo.secret"));
}

#[test]
fn the_configuration_keeps_its_rights_and_the_link_to_it() {
    let world = World::new();
    std::fs::create_dir(world.place.path().join("etc")).unwrap();
    world
        .place
        .write("etc/real.toml", "listen = \"127.0.0.1:0\"\n");
    let real = world.place.path().join("etc/real.toml");
    std::fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
    let link = world.place.path().join("pleo.toml");
    std::os::unix::fs::symlink("etc/real.toml", &link).unwrap();
    let setup = [
        "setup",
        "--url",
        &world.url("/a"),
        "--secret-file",
        "etc/a.secret",
    ];
    world.done(&setup);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::fs::metadata(&real).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(world.read("etc/real.toml").contains("file:etc/a.secret"));
    let left: Vec<_> = std::fs::read_dir(world.place.path().join("etc"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 2, "nothing half-written: {left:?}");
    let nowhere = [
        "setup",
        "--url",
        &world.url("/b"),
        "--secret-file",
        "not/there",
    ];
    let writes = world.writes();
    world.refused(&nowhere, 2, &["cannot write not/there", "can write to"]);
    assert_eq!(
        world.writes(),
        writes,
        "nothing is made that could not be kept"
    );
}

#[test]
fn another_endpoints_secret_is_never_written_over() {
    let world = World::new();
    world.place.write("acme-eu.secret", &format!("{OTHER}\n"));
    let refused = world.run(&["setup", "--url", &world.url("/acme/eu")]);
    assert_refused(&refused, 2, &["acme-eu.secret", "--secret-file"]);
    assert_eq!(world.read("acme-eu.secret"), format!("{OTHER}\n"));
    assert_eq!(world.writes(), 0, "nothing is made that could not be kept");

    let elsewhere = ["--secret-file", "eu.secret"];
    world.done(&[&["setup", "--url", &world.url("/acme/eu")], &elsewhere[..]].concat());
    // The same one moves: what is on its way is signed with the old secret.
    let before = world.read("eu.secret");
    let moved = world.url("/moved");
    let setup = ["setup", "--url", &moved, "--path", "/acme/eu"];
    assert_refused(
        &world.run(&[&setup[..], &elsewhere].concat()),
        2,
        &["eu.secret"],
    );
    let said = world.done(&[&setup[..], &["--secret-file", "moved.secret"]].concat());
    let left = "still there  ".to_owned() + &world.url("/acme/eu");
    assert!(said.contains(&left), "{said}");
    assert_eq!(world.read("eu.secret"), before);
    let secrets = "[\"file:moved.secret\", \"file:eu.secret\"]";
    assert!(world.read("pleo.toml").contains(secrets));

    // A rotated secret takes the place of its own old one, but of no other.
    let listed = world.json(&["subscriptions", "list"]);
    let one = listed.iter().find(|one| one["endpointUrl"] == *moved);
    let id = one.unwrap()["id"].as_str().unwrap().parse().unwrap();
    world.pleo.rotate(id);
    let rotated = [&setup[..], &["--secret-file", "moved.secret"]].concat();
    world.done(&rotated);
    assert_eq!(world.read("eu.secret"), before);
    let both = world.read("pleo.toml");
    let other = "\n[[endpoint]]\npath = \"/other\"\nsecret = \"file:moved.secret\"\n";
    world.place.write("pleo.toml", &format!("{both}{other}"));
    world.pleo.rotate(id);
    world.refused(&rotated, 2, &["moved.secret holds another secret"]);
}

#[test]
fn nothing_is_written_where_everybody_may_lay_a_link() {
    let world = World::new();
    let shared = world.place.path().join("tmp");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
    let theirs = world.place.path().join("theirs");
    std::os::unix::fs::symlink(&theirs, shared.join("link")).unwrap();
    std::fs::write(&theirs, "").unwrap();
    let url = world.url("/a");
    for (flag, file) in [
        ("--secret-file", "tmp/new"),
        ("--secret-file", "tmp/link"),
        ("--config", "tmp/pleo.toml"),
    ] {
        let parts = ["cannot write tmp/", "world-writable"];
        world.refused(&["setup", "--url", &url, flag, file], 2, &parts);
    }
    assert_eq!((world.writes(), world.read("theirs").as_str()), (0, ""));
    assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 1);
}
