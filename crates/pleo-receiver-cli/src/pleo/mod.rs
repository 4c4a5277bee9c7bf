//! Pleo's API, and the subscriptions that the configuration declares.

pub(crate) mod apply;
pub(crate) mod catch_up;
pub(crate) mod client;
pub(crate) mod declared;
pub(crate) mod owner;
pub(crate) mod plan;
pub(crate) mod secret_file;
