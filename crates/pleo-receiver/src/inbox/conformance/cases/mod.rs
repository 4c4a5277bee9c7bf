//! A test for each sentence of the contract.

#![allow(missing_docs, reason = "the names say what is tested")]

pub mod append;
pub mod changed;
pub mod close;
pub mod complete;
pub mod faults;
pub mod lease;
pub mod list;
pub mod manage;
pub mod order;
pub mod time;

use super::{Harness, Suite};
