//! The vendor: somebody whom companies pay.

use alloc::string::String;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// A vendor, as Pleo's Vendors API describes it.
///
/// A field that may be null may also be absent; both are `None`, and absent when serialised. Texts
/// may be empty. Make one from JSON: fields may be added in any version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Vendor {
    /// The vendor.
    pub id: Uuid,
    /// The company that it belongs to.
    pub company_id: Uuid,
    /// What it is called.
    pub name: String,
    /// Whether it is in use.
    pub state: VendorState,
    /// The currency that it is usually paid in, three letters of ISO 4217.
    pub default_currency: String,
    /// Its country, two letters of ISO 3166.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Its number in the register of companies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_number: Option<String>,
    /// Its number at the tax authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_registration_number: Option<String>,
    /// Its code in the books.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Its identifier in the accounting system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The accounting system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounting_system: Option<String>,
    /// The user who created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Uuid>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Fields that this version doesn't know. Numbers are held as `serde_json` does: exact as
    /// 64-bit integers, else as 64-bit floats.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

open_enum! {
    /// Whether a vendor is in use.
    VendorState {
        /// Not complete:
        Draft = "DRAFT",
        /// In use:
        Active = "ACTIVE",
        /// No longer in use:
        Archived = "ARCHIVED",
    }
}
