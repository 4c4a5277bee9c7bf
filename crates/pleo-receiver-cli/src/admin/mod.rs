//! The admin listener.

pub(crate) mod metrics;
