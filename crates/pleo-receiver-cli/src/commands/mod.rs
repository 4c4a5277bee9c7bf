//! The commands of the program.

pub(crate) mod catch_up;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod health;
pub(crate) mod inbox;
pub(crate) mod man;
pub(crate) mod sandbox;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod setup;
pub(crate) mod sign;
pub(crate) mod subscriptions;
pub(crate) mod verify;
