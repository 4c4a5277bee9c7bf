#![doc = include_str!("../README.md")]
#![no_std]
#![warn(
    clippy::alloc_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core
)]

extern crate alloc;

#[macro_use]
mod open_enum;
mod data_fields;
mod envelope;
mod error;
mod event;
mod export_job;
pub mod samples;
mod vendor;

pub use envelope::Envelope;
pub use error::{JsonError, ParseError};
pub use event::{Event, EventType};
pub use export_job::{ExportJob, ExportJobStatus, FailureReasonType};
pub use open_enum::OtherValue;
pub use vendor::{Vendor, VendorState};
pub use {jiff, serde_json, uuid};

/// Items that `open_enum!` expands to. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use alloc::string::String;
    pub use serde;
}
