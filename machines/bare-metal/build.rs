//! Translates the vectors into Rust, because a board has neither a file system nor a JSON parser, and
//! chooses the memory map of the board.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    expect: String,
    secrets: Vec<String>,
    now: u64,
    tolerance: u64,
    id_b64: Option<String>,
    timestamp_b64: Option<String>,
    signature_b64: Option<String>,
    body_b64: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=PLEO_VECTORS");
    let file = env::var_os("PLEO_VECTORS")
        .map_or_else(|| PathBuf::from("../../vectors/verify.json"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", file.display());
    let vectors: Vectors = serde_json::from_slice(&fs::read(file)?)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("cases.rs"), table(&vectors.cases)?)?;
    write_memory_map(&out)
}

/// Returns the cases as a Rust expression.
fn table(cases: &[Case]) -> Result<String, Box<dyn Error>> {
    let mut text = "&[\n".to_owned();
    for case in cases {
        let [id, timestamp, signature] = [&case.id_b64, &case.timestamp_b64, &case.signature_b64];
        writeln!(
            text,
            "Case {{ name: {:?}, expect: {:?}, secrets: &{:?}, now: {}, tolerance: {}, \
             id: {}, timestamp: {}, signature: {}, body: {} }},",
            case.name,
            case.expect,
            case.secrets,
            case.now,
            case.tolerance,
            optional(id)?,
            optional(timestamp)?,
            optional(signature)?,
            bytes(&case.body_b64)?,
        )?;
    }
    text.push(']');
    Ok(text)
}

fn optional(encoded: &Option<String>) -> Result<String, Box<dyn Error>> {
    let Some(encoded) = encoded else {
        return Ok("None".to_owned());
    };
    Ok(format!("Some({})", bytes(encoded)?))
}

/// Returns bytes as a Rust byte string.
fn bytes(encoded: &str) -> Result<String, Box<dyn Error>> {
    let bytes = STANDARD.decode(encoded)?;
    Ok(format!("b\"{}\"", bytes.escape_ascii()))
}

/// Writes the `memory.x` that cortex-m-rt links with.
fn write_memory_map(out: &Path) -> Result<(), Box<dyn Error>> {
    let (flash, ram) = match env::var("TARGET")?.as_str() {
        // The micro:bit: a Cortex-M0.
        "thumbv6m-none-eabi" => ("256K", "16K"),
        // The MPS2 board with image AN386: a Cortex-M4F.
        "thumbv7em-none-eabihf" => ("4M", "4M"),
        other => return Err(format!("no board for the target {other}; see build.rs").into()),
    };
    fs::write(
        out.join("memory.x"),
        format!(
            "MEMORY {{\n  FLASH : ORIGIN = 0x00000000, LENGTH = {flash}\n  \
             RAM : ORIGIN = 0x20000000, LENGTH = {ram}\n}}\n"
        ),
    )?;
    println!("cargo::rustc-link-search={}", out.display());
    Ok(())
}
