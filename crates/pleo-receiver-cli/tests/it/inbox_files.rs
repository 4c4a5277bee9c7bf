//! The files of the inbox: links, rights, directories and locks.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::program::{ENV, RunningServer, WorkDir};

const INBOX: &str = "inbox/pleo.db";

/// Starts a server that is expected to refuse its inbox. Returns the error.
fn refused(dir: &WorkDir) -> String {
    let mut command = dir.command(&["serve", "--listen", "127.0.0.1:0", "--inbox", INBOX]);
    command.envs(ENV.iter().copied());
    match RunningServer::try_start(command) {
        Ok(server) => panic!("the server runs at {}", server.url),
        Err(error) => {
            assert!(error.contains("pleo.db"), "{error}");
            error
        }
    }
}

/// Creates an inbox in a directory of its own. Returns the directory.
fn create(dir: &WorkDir) -> PathBuf {
    let directory = dir.path().join("inbox");
    fs::create_dir(&directory).unwrap();
    let server = dir.serve(&["--inbox", INBOX], ENV);
    assert_eq!(server.stop("-TERM").0, Some(0));
    directory
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn refuses_second_server_after_lock_file_is_deleted() {
    let dir = WorkDir::new();
    let directory = create(&dir);
    let server = dir.serve(&["--inbox", INBOX], ENV);
    fs::remove_file(directory.join("pleo.db.lock")).unwrap();
    let error = refused(&dir);
    assert!(error.contains("in use by another server"), "{error}");
    let error = refused(&dir);
    assert!(error.contains("in use by another server"), "{error}");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn refuses_symbolic_links() {
    let dir = WorkDir::new();
    let directory = create(&dir);
    let elsewhere = dir.path().join("elsewhere");
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = directory.join(format!("pleo.db{suffix}"));
        let kept = file.exists().then(|| fs::read(&file).unwrap());
        let _ = fs::remove_file(&file);
        for target in [&elsewhere, Path::new("missing")] {
            fs::write(&elsewhere, kept.as_deref().unwrap_or_default()).unwrap();
            fs::set_permissions(&elsewhere, Permissions::from_mode(0o644)).unwrap();
            symlink(target, &file).unwrap();
            let error = refused(&dir);
            assert!(
                error.contains("symbolic link") || error.contains("not a regular file"),
                "{suffix}: {error}"
            );
            assert_eq!(mode(&elsewhere), 0o644, "{suffix}");
            let unchanged = fs::read(&elsewhere).unwrap() == kept.as_deref().unwrap_or_default();
            assert!(unchanged, "{suffix}");
            fs::remove_file(&file).unwrap();
        }
        if let Some(kept) = kept {
            fs::write(&file, kept).unwrap();
        }
    }
    assert!(!directory.join("missing").exists());
}

#[test]
fn makes_files_private_and_warns() {
    let dir = WorkDir::new();
    let directory = create(&dir);
    let server = dir.serve(&["--inbox", INBOX], ENV);
    server.stop("-KILL");
    let files = ["", "-wal", "-shm", ".lock"].map(|suffix| format!("pleo.db{suffix}"));
    for file in &files {
        fs::set_permissions(directory.join(file), Permissions::from_mode(0o664)).unwrap();
    }
    let server = dir.serve(&["--inbox", INBOX], ENV);
    for file in &files {
        assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
    }
    let (_, log) = server.stop("-TERM");
    for file in &files {
        let line = log.lines().find(|line| line.contains(&format!("{file} ")));
        let line = line.unwrap_or_else(|| panic!("{file}: {log}"));
        assert!(line.contains("WARN inbox file was accessible"), "{line}");
        assert!(line.contains("mode=\"664\""), "{line}");
    }
}

#[test]
fn refuses_directory_that_others_can_write_to() {
    let dir = WorkDir::new();
    let directory = create(&dir);
    for mode in [0o777, 0o1777, 0o757] {
        fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        let error = refused(&dir);
        assert!(error.contains("can write to its directory"), "{error}");
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let server = dir.serve(&["--inbox", INBOX], ENV);
    assert_eq!(server.stop("-TERM").0, Some(0));
}
