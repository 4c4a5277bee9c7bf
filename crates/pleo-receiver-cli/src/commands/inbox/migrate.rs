//! `pleo-receiver inbox migrate`: creates or upgrades the schema of an inbox in PostgreSQL.

use pleo_receiver::PostgresInbox;
use serde_json::json;

use super::url;
use crate::args::inbox::InboxMigrate;
use crate::failure::Failure;
use crate::inbox_url::InboxUrl;
use crate::output;

pub(super) async fn migrate(args: InboxMigrate) -> Result<(), Failure> {
    let InboxUrl::Postgres(options) = InboxUrl::parse(&url(&args.inbox)?)? else {
        let why = "only an inbox in PostgreSQL has migrations; `serve` upgrades a file";
        return Err(Failure::usage("`--inbox`", why));
    };
    let versions = PostgresInbox::migrate(*options).await?;
    if args.json {
        return Ok(output::json(&json!({ "migrated_to": versions }))?);
    }
    for version in &versions {
        output::line(format_args!("migrated to version {version}"))?;
    }
    if versions.is_empty() {
        output::line("the schema is up to date")?;
    }
    Ok(())
}
