//! `pleo-receiver doctor`: checks the configuration, the receiver, the public URL and Pleo.

mod delivery;
mod receiver;
mod report;
mod subscription;
mod url;

use std::path::Path;

use clap::Parser;
use pleo_receiver::SqliteInbox;

use self::report::Report;
use crate::args::pleo::{ConfigArgs, Doctor};
use crate::args::{Cli, Command};
use crate::config::load::Config;
use crate::config::schema::{ConfigFile, EndpointTable};
use crate::failure::{Failure, chain};
use crate::inbox_url::sqlite_path;
use crate::pleo::client::{CredentialsRef, client_with};
use crate::pleo::declared;

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
    let inbox = check_inbox(&args.receiver, &file, &mut report)?;
    if let Some(inbox) = &inbox {
        receiver::check_inbox(inbox, &mut report).await?;
    }
    receiver::check_admin(&settings.admin, &mut report).await?;
    for endpoint in &file.endpoint {
        report.start_endpoint(endpoint.name())?;
        check_endpoint(&args, endpoint, inbox.as_ref(), &mut report).await?;
    }
    if file.endpoint.is_empty() {
        let fix =
            format!("create one with `pleo-receiver setup --url https://… --config {config}`");
        report.failed("endpoint", "the file has no `[[endpoint]]` tables", &fix)?;
    }
    report.end()
}

/// Reads the file, and the configuration that `serve` would have with it.
fn read_config(args: &ConfigArgs) -> Result<(ConfigFile, Config), Failure> {
    let file = declared::read(args)?;
    // Parsed by clap, which also reads the environment variables of `serve`.
    let command = ["pleo-receiver", "serve", "--config"].map(AsRef::as_ref);
    let command = command.into_iter().chain([args.config.as_os_str()]);
    let cli = Cli::try_parse_from(command).map_err(|error| Failure::Usage(error.to_string()))?;
    let Command::Serve(serve) = cli.command else {
        return Err(Failure::Run("the command `serve` is missing".to_owned()));
    };
    Ok((file, Config::new(&serve)?))
}

fn check_inbox(
    args: &ConfigArgs,
    file: &ConfigFile,
    report: &mut Report,
) -> Result<Option<SqliteInbox>, Failure> {
    let config = args.config.display();
    let url = file.inbox_url(args);
    if url == "memory:" {
        let found = "the inbox is in memory; its messages are lost when the receiver stops";
        report.failed("inbox", found, "set `inbox = \"sqlite:pleo-inbox.db\"`")?;
        return Ok(None);
    }
    let path = sqlite_path(url)?;
    let fix =
        format!("run `pleo-receiver serve --config {config}` once, and `doctor` as the same user");
    if !Path::new(path).exists() {
        report.failed("inbox", &format!("{path} does not exist"), &fix)?;
        return Ok(None);
    }
    let inbox = match SqliteInbox::open_shared(path) {
        Ok(inbox) => inbox,
        Err(error) => {
            report.failed("inbox", &chain(&error), &fix)?;
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
    Ok(Some(inbox))
}

async fn check_endpoint(
    args: &Doctor,
    endpoint: &EndpointTable,
    inbox: Option<&SqliteInbox>,
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
        }
    }
    if is_https {
        delivery::check(args, endpoint, declared, &secrets, inbox, report).await?;
    }
    Ok(())
}
