//! Types that hide their values.

use core::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A string that is or may be secret. `Debug` hides it, and it cannot be serialized:
///
/// ```compile_fail,E0277
/// let secret = pleo_api::Sensitive::from("whsec_…");
/// pleo_api::serde_json::to_string(&secret);
/// ```
///
/// [`Self::expose`] returns it:
///
/// ```
/// let secret = pleo_api::Sensitive::from("whsec_…");
/// pleo_api::serde_json::to_string(secret.expose());
/// ```
///
/// Dropping it does not clear its memory.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Sensitive(String);

impl Sensitive {
    /// Returns the secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sensitive(..)")
    }
}

impl From<&str> for Sensitive {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Sensitive {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Fields that this version doesn't know, unchanged. A later minor version may turn one into a typed
/// field.
///
/// `Debug` shows only their names, since the values may be secret. For the same reason they cannot be
/// serialized:
///
/// ```compile_fail,E0277
/// pleo_api::serde_json::to_string(&pleo_api::Extra::default());
/// ```
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Extra(Map<String, Value>);

impl Extra {
    /// Returns the fields.
    #[must_use]
    pub const fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the fields, to change them.
    pub const fn as_map_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    /// Returns every string in the values, which may be secret.
    pub(crate) fn strings(&self) -> Vec<&str> {
        let mut strings = Vec::new();
        let mut values: Vec<&Value> = self.0.values().collect();
        while let Some(value) = values.pop() {
            match value {
                Value::String(text) => strings.push(text.as_str()),
                Value::Array(list) => values.extend(list),
                Value::Object(map) => values.extend(map.values()),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        strings
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
