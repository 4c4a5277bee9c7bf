//! Shared by the fuzz targets: the input format and the reference implementations.

// The verifier's own tests compare with the same implementation.
#[path = "../../crates/pleo-webhook-verify/tests/it/support/asymmetric.rs"]
pub mod asymmetric;
pub mod input;
// The verifier's own tests compare with the same implementation.
#[path = "../../crates/pleo-webhook-verify/tests/it/support/reference.rs"]
pub mod reference;
