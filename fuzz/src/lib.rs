//! What the fuzz targets share: how an input is taken apart, and the rules stated a second time.

pub mod input;
// The verifier's own tests measure it by the same rules.
#[path = "../../crates/pleo-webhook-verify/tests/plain/mod.rs"]
pub mod plain;
