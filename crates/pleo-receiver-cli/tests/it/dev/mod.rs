//! Tests of `dev`.

mod account;
mod keys;
mod lines;
mod session;
