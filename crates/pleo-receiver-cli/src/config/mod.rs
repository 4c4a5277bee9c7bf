//! The configuration: the schema of the TOML file, and what `serve` makes of file, flags and
//! environment.

pub(crate) mod edit;
mod endpoints;
pub(crate) mod handler;
mod limits;
pub(crate) mod load;
mod place;
pub(crate) mod schema;
mod values;
