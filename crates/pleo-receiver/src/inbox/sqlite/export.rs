//! Reads all messages of an inbox file, also if some are damaged.

use std::collections::{BTreeSet, btree_set};
use std::path::Path;

use rusqlite::Connection;

use super::SqliteInbox;
use super::error::SqliteOpenError;
use super::maintenance::{
    ORDERS, UnreadableMessage, connect, describe, for_each_message, read_message,
};
use super::queries::stored;
use crate::inbox::message::StoredMessage;

/// The messages of an inbox file in the order of arrival, see [`SqliteInbox::export`].
#[derive(Debug)]
pub struct SqliteExport {
    connection: Connection,
    sequences: btree_set::IntoIter<i64>,
    file_errors: Vec<String>,
}

impl SqliteInbox {
    /// Reads the messages of the inbox file at `path` with their history. Goes on after one that cannot
    /// be read. Leaves out messages that arrive meanwhile. Changes nothing.
    ///
    /// A server may have the inbox open. Blocks the thread, as does each step of the iterator.
    ///
    /// # Errors
    /// [`SqliteOpenError::Open`] if the file is missing, is not an inbox, or a newer release wrote it.
    pub fn export(path: impl AsRef<Path>) -> Result<SqliteExport, SqliteOpenError> {
        let path = path.as_ref();
        let connection = connect(path).map_err(|error| SqliteOpenError::new(path, error))?;
        let mut sequences = BTreeSet::new();
        let mut file_errors = Vec::new();
        for order in ORDERS {
            let found = for_each_message(&connection, order, |sequence| {
                sequences.insert(sequence);
            });
            if let Err(error) = found {
                file_errors.push(format!("table message: {error}"));
            }
        }
        Ok(SqliteExport {
            connection,
            sequences: sequences.into_iter(),
            file_errors,
        })
    }
}

impl SqliteExport {
    /// Returns the errors of the file due to which messages may be missing.
    #[must_use]
    pub fn file_errors(&self) -> &[String] {
        &self.file_errors
    }
}

impl Iterator for SqliteExport {
    type Item = Result<StoredMessage, UnreadableMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        let sequence = self.sequences.next()?;
        let connection = &self.connection;
        Some(stored(connection, sequence).map_err(|error| {
            // It says which part is missing.
            let part = read_message(connection, sequence).err();
            let error = part.map_or_else(|| error.to_string(), |part| part.to_string());
            describe(connection, sequence, error)
        }))
    }
}
