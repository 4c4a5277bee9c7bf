//! The crate needs no std and never allocates. The programs in `tests/no_alloc` prove it on both
//! backends: they do not link, or fail, otherwise.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failing test shows the program's output"
)]

use std::env;
use std::path::Path;
use std::process::Command;

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/no_alloc/Cargo.toml");

/// Returns `false` in the published package, which does not contain the programs: an allocator takes
/// `unsafe`, so they are a package of their own.
fn has_programs() -> bool {
    let found = Path::new(PROGRAMS).exists();
    if !found {
        eprintln!("SKIPPED: {PROGRAMS} is not in this package");
    }
    found
}

/// Builds and runs a program, and returns its exit code.
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
fn rustcrypto_verifies_without_std_and_allocator() {
    if !has_programs() {
        return;
    }
    for features in ["rustcrypto", "rustcrypto,v1a"] {
        assert_eq!(run(features, "freestanding", &[]), Some(0));
        assert_eq!(run(features, "freestanding", &["tamper"]), Some(1));
    }
}

#[test]
fn ring_verifies_without_std_and_never_allocates() {
    if !has_programs() {
        return;
    }
    for features in ["ring", "ring,v1a"] {
        assert_eq!(run(features, "freestanding", &[]), Some(0));
        assert_eq!(run(features, "freestanding", &["tamper"]), Some(1));
    }
}

#[test]
fn no_call_allocates() {
    if !has_programs() {
        return;
    }
    assert_eq!(run("ring,std,v1a", "counting", &[]), Some(0));
    assert_eq!(run("rustcrypto,std,v1a", "counting", &[]), Some(0));
}

#[test]
fn no_dependency_enables_alloc_or_std() {
    if !has_programs() {
        return;
    }
    for features in ["ring", "rustcrypto", "ring,v1a", "rustcrypto,v1a"] {
        let tree = dependencies(features);
        for dependency in ["arrayvec v", "base64 v"] {
            assert!(tree.contains(dependency), "{tree}");
        }
        for feature in ["feature \"alloc\"", "feature \"std\""] {
            assert!(!tree.contains(feature), "{features}: {tree}");
        }
    }
}

#[test]
fn only_v1a_depends_on_ed25519() {
    if !has_programs() {
        return;
    }
    for (features, depends) in [
        ("ring", false),
        ("rustcrypto", false),
        ("ring,v1a", true),
        ("rustcrypto,v1a", true),
    ] {
        let tree = dependencies(features);
        for dependency in ["ed25519", "curve25519", "signature"] {
            assert_eq!(tree.contains(dependency), depends, "{features}: {tree}");
        }
    }
}

/// Returns the tree of dependencies of a program with features of the verifier.
fn dependencies(features: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--manifest-path", PROGRAMS])
        .args(["--edges", "features,normal", "--features", features])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}
