#![doc = include_str!("../README.md")]

mod body;
mod client;
mod error;
mod loopback;
mod target;

pub use body::read_limited;
pub use client::client;
pub use error::Error;
pub use loopback::is_loopback;
/// The HTTP library. Clients, requests and responses are its types.
pub use reqwest;
pub use target::Target;
