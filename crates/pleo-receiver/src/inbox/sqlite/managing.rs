//! The statements of replays, prunes and pauses, inside a transaction.

use rusqlite::Connection;

use crate::inbox::message::{State, to_u64};
use crate::inbox::query::Selection;

/// Replays those of the messages that still match. Only their state and lease can have changed since
/// they were found.
pub(super) fn replay(
    connection: &Connection,
    sequences: &[i64],
    selection: &Selection,
) -> rusqlite::Result<u64> {
    let mut replay = connection.prepare_cached(
        "UPDATE message SET state = 'pending', due_at = NULL, delay = NULL, attempts = 0
         WHERE sequence = ?1 AND leased = 0 AND (?2 IS NULL OR state = ?2)",
    )?;
    let state = selection.state.map(State::as_str);
    let replayed = sequences
        .iter()
        .map(|sequence| replay.execute((sequence, state)));
    replayed.sum::<rusqlite::Result<usize>>().map(to_u64)
}

/// Deletes those of the messages that still match and are not pending.
pub(super) fn prune(
    connection: &Connection,
    sequences: &[i64],
    selection: &Selection,
) -> rusqlite::Result<u64> {
    let mut prune = connection.prepare_cached(
        "DELETE FROM message
         WHERE sequence = ?1 AND state <> 'pending' AND (?2 IS NULL OR state = ?2)",
    )?;
    let state = selection.state.map(State::as_str);
    let pruned = sequences
        .iter()
        .map(|sequence| prune.execute((sequence, state)));
    pruned.sum::<rusqlite::Result<usize>>().map(to_u64)
}

pub(super) fn set_paused(
    connection: &Connection,
    endpoint: &str,
    paused: bool,
) -> rusqlite::Result<()> {
    let statement = if paused {
        "INSERT INTO paused (endpoint) VALUES (?1) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM paused WHERE endpoint = ?1"
    };
    connection.prepare_cached(statement)?.execute([endpoint])?;
    Ok(())
}
