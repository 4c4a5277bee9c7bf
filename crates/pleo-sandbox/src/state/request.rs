//! Requests that the API received.

use serde::Serialize;

/// A request that the API received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ApiRequest {
    /// The method.
    pub method: String,
    /// The path and query.
    pub target: String,
}
