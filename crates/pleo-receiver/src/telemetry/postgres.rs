//! The events of the inbox in PostgreSQL. None has a metric.

use core::error::Error;

use tracing::{debug, error, info, warn};

use crate::error::error_chain;

/// Reports that the schema was created or upgraded.
pub(crate) fn schema_migrated(schema: &str, version: i32) {
    info!(schema, version, "database schema migrated");
}

/// Reports that others in the network can read or change messages.
pub(crate) fn connection_unsafe(weakness: &str) {
    warn!(
        weakness,
        "connections to the database are not safe; set `sslmode=verify-full`"
    );
}

/// Reports that the server does not protect its files from torn pages.
pub(crate) fn full_page_writes_off() {
    warn!(
        "`full_page_writes` is off; a crash of the server's machine can damage the database, unless its \
         file system writes pages atomically"
    );
}

/// Reports settings that the user of the inbox should have behind a pooler.
pub(crate) fn pooler_settings_missing(settings: &str) {
    warn!(
        settings,
        "settings missing for the user of the inbox behind a pooler; statements are slow or have no \
         time limit"
    );
}

/// Reports that a connection ended.
pub(crate) fn connection_lost(error: &(dyn Error + 'static)) {
    let error = error_chain(error);
    debug!(error, "database connection lost");
}

/// Reports that the server cannot be reached, or cannot be used.
pub(crate) fn database_unavailable(error: &(dyn Error + 'static)) {
    let error = error_chain(error);
    error!(error, "database unavailable; retrying");
}

/// Reports that the server can be used again.
pub(crate) fn database_available() {
    info!("database available again");
}
