//! Replays, prunes and pauses.
//!
//! Like leases, they wait for no standby, so that one that stalls does not occupy the connection. A
//! failover may undo the last of them, and the operator or the retention repeats them. It loses no
//! message: what is pruned was handled or is dead. If the same message is appended again, the append waits
//! until the standby has it, and then the standby has the prune before it too.

use std::sync::Arc;

use tokio_postgres::types::Type;

use super::error::Failure;
use super::queries;
use super::session::{Param, Session};
use super::shared::Shared;
use super::text::encode;
use crate::inbox::message::State;
use crate::inbox::query::Selection;

/// How many messages one transaction replays or prunes.
const CHUNK: u64 = 500;

const REPLAY: &str = "
    WITH found AS (
        SELECT sequence FROM inbox.dispatch
        WHERE sequence = ANY ($1) AND lease IS NULL AND ($2::text IS NULL OR state = $2)
        ORDER BY sequence FOR UPDATE
    )
    UPDATE inbox.dispatch SET state = 'pending', due_at = NULL, attempts = 0
    FROM found WHERE dispatch.sequence = found.sequence
    RETURNING 1
";

const PRUNE: &str = "
    WITH found AS (
        SELECT sequence FROM inbox.dispatch
        WHERE sequence = ANY ($1) AND state <> 'pending' AND ($2::text IS NULL OR state = $2)
        ORDER BY sequence FOR UPDATE
    ),
    pruned AS (
        DELETE FROM inbox.dispatch USING found WHERE dispatch.sequence = found.sequence
        RETURNING dispatch.sequence
    ),
    attempts AS (
        DELETE FROM inbox.attempt USING pruned WHERE attempt.sequence = pruned.sequence
    )
    DELETE FROM inbox.message USING pruned WHERE message.sequence = pruned.sequence
    RETURNING 1
";

/// Lets one process prune at a time, so that processes do not wait for each other's rows. The commit waits
/// for no standby.
const PRUNE_LOCK: &str = "
    SELECT pg_advisory_xact_lock(hashtextextended('inbox prune', 0)),
           set_config('synchronous_commit', 'local', true)
";

const PAUSE: &str = "INSERT INTO inbox.paused (endpoint) VALUES ($1) ON CONFLICT DO NOTHING";
const RESUME: &str = "DELETE FROM inbox.paused WHERE endpoint = $1";

pub(super) async fn replay(shared: &Shared, selection: Selection) -> Result<u64, Failure> {
    let replayed = in_chunks(shared, selection, "lease IS NULL", false).await;
    // Also after an error: some chunks may have been replayed.
    shared.changed();
    replayed
}

pub(super) async fn prune(shared: &Shared, selection: Selection) -> Result<u64, Failure> {
    in_chunks(shared, selection, "state <> 'pending'", true).await
}

/// Replays or prunes all selected messages that satisfy the condition, [`CHUNK`] at a time.
async fn in_chunks(
    shared: &Shared,
    selection: Selection,
    condition: &str,
    prunes: bool,
) -> Result<u64, Failure> {
    let selection = Arc::new(selection);
    // Messages that arrive from now on are not selected.
    let last = queries::last_sequence(&*shared.managing.session().await?).await?;
    let (mut after, mut count) = (0, 0);
    let mut missing = selection.limit.unwrap_or(u64::MAX);
    while missing > 0 {
        // Other calls may use the connection between two chunks.
        let session = shared.managing.session().await?;
        let limit = missing.min(CHUNK);
        let found = queries::find(&session, &selection, condition, (after, last), limit).await?;
        let Some(end) = found.last() else { break };
        after = *end;
        let state = selection.state.map(State::as_str);
        let params: [Param<'_>; 2] = [(&found, Type::INT8_ARRAY), (&state, Type::TEXT)];
        let changed = if prunes {
            let calls = [(PRUNE_LOCK, &[][..]), (PRUNE, &params)];
            let [_, pruned] = session.transaction(calls).await?;
            pruned.len()
        } else {
            session.query_locally(REPLAY, &params).await?.len()
        };
        let changed = u64::try_from(changed).unwrap_or(u64::MAX);
        count += changed;
        missing = missing.saturating_sub(changed);
    }
    Ok(count)
}

/// Pauses or resumes an endpoint.
pub(super) async fn set_paused(
    session: &Session,
    endpoint: &str,
    paused: bool,
) -> Result<(), Failure> {
    let endpoint = encode(endpoint);
    let statement = if paused { PAUSE } else { RESUME };
    let params: [Param<'_>; 1] = [(&endpoint, Type::TEXT)];
    session.query_locally(statement, &params).await?;
    Ok(())
}
