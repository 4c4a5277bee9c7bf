//! The configuration: the schema of the TOML file, and the settings that `serve` merges from file,
//! flags and environment.

pub(crate) mod admin;
pub(crate) mod edit;
mod endpoints;
pub(crate) mod handler;
mod limits;
pub(crate) mod load;
mod location;
pub(crate) mod lock;
pub(crate) mod schema;
pub(crate) mod settled;
pub(crate) mod tasks;
mod values;
