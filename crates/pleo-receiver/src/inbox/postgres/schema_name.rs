//! The name of the schema, in statements.

use std::sync::Arc;

use super::error::UrlError;

/// The name of a schema.
#[derive(Clone, Debug)]
pub(super) struct SchemaName(Arc<str>);

impl SchemaName {
    pub(super) fn new(name: &str) -> Result<Self, UrlError> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_valid = name.len() <= 63 && name.bytes().all(is_allowed);
        if !is_valid || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Err(UrlError::Schema);
        }
        Ok(Self(name.into()))
    }

    /// Replaces `inbox`, the name of the schema in our statements, by this one: in names of tables and of
    /// channels, where it is quoted since it may be a word of SQL, and in those of locks.
    pub(super) fn name_in(&self, sql: &str) -> String {
        let name = &self.0;
        sql.replace("inbox.", &format!("\"{name}\"."))
            .replace(" inbox;", &format!(" \"{name}\";"))
            .replace("'inbox ", &format!("'{name} "))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }
}
