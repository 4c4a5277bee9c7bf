//! Vendors.

use alloc::string::String;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// A vendor as defined by Pleo's Vendors API.
///
/// A nullable field may also be absent; both are `None`, and absent when serialized. Strings may be
/// empty. Construct one from JSON or from [`samples::vendor`](crate::samples::vendor): any version
/// may add fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Vendor {
    /// The vendor's id.
    pub id: Uuid,
    /// The company that the vendor belongs to.
    pub company_id: Uuid,
    /// The vendor's name.
    pub name: String,
    /// Whether the vendor is in use.
    pub state: VendorState,
    /// The default currency, as an ISO 4217 code.
    pub default_currency: String,
    /// The country, as an ISO 3166-1 alpha-2 code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// The company registration number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_number: Option<String>,
    /// The tax registration number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_registration_number: Option<String>,
    /// The vendor's code in the company's books.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The vendor's identifier in the accounting system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The accounting system's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounting_system: Option<String>,
    /// The user who created the vendor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Uuid>,
    /// When the vendor was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When the vendor last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When the vendor was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Fields that this version doesn't know. A later minor version may turn one into a typed field.
    /// Numbers are exact as 64-bit integers, else 64-bit floats.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

open_enum! {
    /// The state of a vendor.
    VendorState {
        /// The vendor is incomplete.
        Draft = "DRAFT",
        /// The vendor is in use.
        Active = "ACTIVE",
        /// The vendor is no longer in use.
        Archived = "ARCHIVED",
    }
}
