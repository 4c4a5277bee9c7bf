//! The payloads of Pleo's webhooks: a borrowed envelope, and typed export jobs and vendors on demand.
//!
//! ```
//! use pleo_events::{Envelope, Event};
//!
//! let body = br#"{
//!     "data": {
//!         "id": "b4c4d068-ebbe-45b7-b562-2f16f0deb8b9",
//!         "companyId": "b5fdaec1-1b43-4b62-996a-b0471c3bb336",
//!         "createdAt": "2025-05-23T15:21:32Z",
//!         "numberOfItems": 1,
//!         "expiresIn": 3600,
//!         "status": "PENDING"
//!     },
//!     "eventType": "v1.export-job.created",
//!     "eventId": "a257a31e-e8a6-4c36-a98d-451250e5b5c4"
//! }"#;
//! let envelope = Envelope::parse(body)?;
//! match envelope.event()? {
//!     Event::ExportJobCreated(job) => assert_eq!(job.number_of_items, 1),
//!     other => panic!("{other:?}"),
//! }
//! # Ok::<(), pleo_events::ParseError>(())
//! ```
//!
//! Nothing is lost: an event type, a status, a state or a field that this version doesn't know is
//! kept, and written again when the value is serialised. All spellings of a type or a status that
//! Pleo's pages show parse to the same thing.
//!
//! The crate is `no_std` and needs an allocator. Check a delivery's signature before parsing it.
#![no_std]
#![warn(
    clippy::alloc_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core
)]

extern crate alloc;

#[macro_use]
mod open_enum;
mod envelope;
mod error;
mod event;
mod event_summary;
mod export_job;
mod vendor;

pub use envelope::Envelope;
pub use error::ParseError;
pub use event::{Event, EventType};
pub use event_summary::EventSummary;
pub use export_job::{ExportJob, ExportJobStatus, FailureReasonType};
pub use vendor::{Vendor, VendorState};
