//! `pleo-receiver doctor`: checks the configuration, the receiver, the public URL and Pleo.

mod delivery;
mod messages;
mod receiver;
mod report;
mod subscription;
mod url;

use std::path::Path;
use std::sync::Arc;

use pleo_receiver::{Inbox, SqliteInbox};

use self::report::Report;
use crate::args::pleo::{ConfigArgs, Doctor};
use crate::config::load::Config;
use crate::config::schema::{ConfigFile, EndpointTable};
use crate::failure::{Failure, chain};
use crate::inbox_url::InboxUrl;
use crate::pleo::client::{CredentialsRef, client_with};
use crate::pleo::declared;

/// Why the clock is not checked.
const NO_CLOCK: &str = "it is compared with Pleo's clock, which needs a subscription and a token";

pub(crate) async fn run(args: Doctor) -> Result<(), Failure> {
    let mut report = Report::new(args.json);
    let config = args.receiver.config.display();
    let (file, settings) = match read_config(&args.receiver) {
        Ok(read) => read,
        Err(failure) => {
            let fix = "correct the configuration; the other checks need it";
            report.failed("configuration", &failure.to_string(), fix)?;
            return report.end();
        }
    };
    report.ok("configuration", &format!("{config} is valid"))?;
    receiver::check_settings(&settings, &mut report)?;
    let url = InboxUrl::parse(file.inbox_url(&args.receiver))?;
    let inbox = check_inbox(&args.receiver, &url, &mut report).await?;
    if let Some(inbox) = &inbox {
        receiver::check_inbox(&url, &**inbox, &mut report).await?;
        messages::check(&**inbox, &mut report).await?;
    }
    receiver::check_admin(&settings.admin, &mut report).await?;
    for endpoint in &file.endpoint {
        report.start_endpoint(endpoint.name())?;
        check_endpoint(&args, endpoint, inbox.as_deref(), &mut report).await?;
    }
    if file.endpoint.is_empty() {
        let names = file.endpoint_names().join(", ");
        let why = format!(
            "{names} is at the top of the file, which declares no subscription; `pleo-receiver setup \
             --url https://… --config {config}` makes an `[[endpoint]]` table, and Pleo and the \
             public URL can be checked"
        );
        report.skipped("endpoint", &why)?;
        report.skipped("clock", NO_CLOCK)?;
    }
    report.end()
}

/// Reads the file, and the configuration that `serve` would have with it.
fn read_config(args: &ConfigArgs) -> Result<(ConfigFile, Config), Failure> {
    let file = declared::read(args)?;
    Ok((file, Config::without_flags(Some(&args.config))?))
}

async fn check_inbox(
    args: &ConfigArgs,
    url: &InboxUrl,
    report: &mut Report,
) -> Result<Option<Arc<dyn Inbox>>, Failure> {
    let config = args.config.display();
    if matches!(url, InboxUrl::Postgres(_)) {
        return match url.open_shared().await {
            Ok(inbox) => {
                report.ok("inbox", &format!("{url} is writable"))?;
                Ok(Some(inbox))
            }
            Err(failure) => {
                let fix = "correct `inbox`, or the server; `serve` needs the same";
                report.failed("inbox", &failure.to_string(), fix)?;
                Ok(None)
            }
        };
    }
    let InboxUrl::Sqlite(path) = url else {
        let found = "the inbox is in memory; its messages are lost when the receiver stops";
        report.failed("inbox", found, "set `inbox = \"sqlite:pleo-inbox.db\"`")?;
        return Ok(None);
    };
    if !Path::new(path).exists() {
        return check_missing_inbox(path, args, report).map(|()| None);
    }
    let inbox = match SqliteInbox::open_shared(path) {
        Ok(inbox) => inbox,
        Err(error) => {
            let fix = "run `doctor` as the receiver's user; if it is, see its log, and keep the file \
                       with its `-wal` for `pleo-receiver inbox check`";
            report.failed("inbox", &chain(&error), fix)?;
            return Ok(None);
        }
    };
    report.ok("inbox", &format!("{url} is writable"))?;
    if let Some(pid) = SqliteInbox::server_pid(path) {
        report.ok("receiver", &format!("process {pid} is running"))?;
    } else if SqliteInbox::is_served(path) {
        report.ok(
            "receiver",
            "running in another container or as another user",
        )?;
    } else {
        let fix = format!("start it with `pleo-receiver serve --config {config}`");
        report.failed("receiver", "no receiver is running on this inbox", &fix)?;
    }
    Ok(Some(Arc::new(inbox)))
}

/// Reports an inbox without a file. Starting the receiver would begin an empty one, so it is no fix if
/// the file was moved.
fn check_missing_inbox(path: &str, args: &ConfigArgs, report: &mut Report) -> Result<(), Failure> {
    let beside = ["-wal", "-shm", ".lock"].map(|suffix| format!("{path}{suffix}"));
    let left: Vec<_> = (beside.iter())
        .filter(|file| Path::new(file).exists())
        .map(String::as_str)
        .collect();
    let (found, fix) = if left.is_empty() {
        let config = args.config.display();
        let fix = format!(
            "if it was moved, put it back first: the receiver would begin an empty one; if there was \
             none yet, start the receiver with `pleo-receiver serve --config {config}`"
        );
        (format!("{path} does not exist"), fix)
    } else {
        let found = format!(
            "{path} was moved or deleted; {} is still there",
            left.join(", ")
        );
        let fix = "keep all files; put it back or restore a backup before the receiver is started, \
                   which would begin an empty inbox";
        (found, fix.to_owned())
    };
    Ok(report.failed("inbox", &found, &fix)?)
}

async fn check_endpoint(
    args: &Doctor,
    endpoint: &EndpointTable,
    inbox: Option<&dyn Inbox>,
    report: &mut Report,
) -> Result<(), Failure> {
    let config = &args.receiver.config;
    let Some(declared) = &endpoint.subscription else {
        let fix = format!(
            "create one with `pleo-receiver setup --url https://… --path {} --config {}`",
            endpoint.path,
            config.display()
        );
        let found = "the file declares no subscription for this endpoint";
        return Ok(report.failed("subscription", found, &fix)?);
    };
    let is_https = url::check(&declared.url, report).await?;
    let secrets = endpoint.secrets()?;
    let credentials = CredentialsRef::of(declared, &args.api);
    match credentials.and_then(|credentials| client_with(credentials, &args.api)) {
        Ok(client) => {
            subscription::check(&client, endpoint, declared, &secrets, config, report).await?;
        }
        Err(failure) => {
            let fix = "set a token, so that `doctor` can check the subscription";
            report.failed("pleo", &failure.to_string(), fix)?;
            report.skipped("clock", NO_CLOCK)?;
        }
    }
    if is_https {
        delivery::check(args, endpoint, declared, &secrets, inbox, report).await?;
    }
    Ok(())
}
