//! That the crate needs no std and allocates nothing: programs that would not link or would fail
//! otherwise, in a package of their own, on either backend.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails loudly, and says why"
)]

use std::env;
use std::path::Path;
use std::process::Command;

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/no_alloc/Cargo.toml");

/// Builds a program, runs it, and says what it exits with.
fn run(backend: &str, program: &str, arguments: &[&str]) -> Option<i32> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_alloc");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["run", "--quiet", "--locked", "--manifest-path", PROGRAMS])
        .args(["--bin", program, "--features", backend, "--"])
        .args(arguments)
        .env("CARGO_TARGET_DIR", target);
    let output = cargo.output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

#[test]
fn a_program_without_std_or_any_allocator_verifies_on_rustcrypto() {
    assert_eq!(run("rustcrypto", "freestanding", &[]), Some(0));
    assert_eq!(run("rustcrypto", "freestanding", &["tamper"]), Some(1));
}

#[test]
fn a_program_without_std_verifies_on_ring_and_never_calls_its_allocator() {
    assert_eq!(run("ring", "freestanding", &[]), Some(0));
    assert_eq!(run("ring", "freestanding", &["tamper"]), Some(1));
}

#[test]
fn nothing_allocates_whether_deliveries_are_valid_or_not() {
    assert_eq!(run("ring,std", "counting", &[]), Some(0));
    assert_eq!(run("rustcrypto,std", "counting", &[]), Some(0));
}

#[test]
fn no_dependency_has_its_feature_alloc_or_std_switched_on() {
    for backend in ["ring", "rustcrypto"] {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--manifest-path", PROGRAMS])
            .args(["--edges", "features,normal", "--features", backend])
            .output()
            .unwrap();
        let tree = String::from_utf8(output.stdout).unwrap();
        for dependency in ["base64 v", "subtle v"] {
            assert!(tree.contains(dependency), "{tree}");
        }
        for feature in ["feature \"alloc\"", "feature \"std\""] {
            assert!(!tree.contains(feature), "{backend}: {tree}");
        }
    }
}
