//! `pleo-receiver doctor`: looks at everything between the configuration and Pleo, and says of each
//! thing that it is well or what to do.

mod delivery;
mod public;

use std::io::{self, Write};

use clap::Parser;
use jiff::Timestamp;
use pleo_api::{Client, Status};
use pleo_receiver::SqliteInbox;
use pleo_receiver::verify::Secret;
use serde_json::json;

use crate::args::pleo::Doctor;
use crate::args::{Cli, Command};
use crate::commands::serve::sqlite_path;
use crate::commands::setup::is_same;
use crate::commands::subscriptions::api::subscriptions;
use crate::commands::subscriptions::declared::{Declared, Endpoint, Subscription};
use crate::commands::subscriptions::print::plain;
use crate::config::Config;
use crate::failure::{Failure, chain};

/// How far the clock may be off, in seconds, before somebody should see to it. Deliveries may be off
/// by 300, but drift adds up.
const CLOCK: u64 = 30;

pub(crate) async fn run(args: Doctor) -> Result<(), Failure> {
    let mut report = Report::new(args.json);
    let config = args.receiver.config.display();
    let checked = Declared::read(&args.receiver).and_then(|declared| {
        check_config(&args)?;
        Ok(declared)
    });
    let declared = match checked {
        Ok(declared) => declared,
        Err(failure) => {
            let fix = "until the configuration is right, nothing else can be checked";
            report.failed("configuration", &failure.to_string(), fix)?;
            return report.end();
        }
    };
    report.ok("configuration", &format!("{config} can be served"))?;
    let inbox = check_inbox(&args, &declared, &mut report)?;
    for endpoint in &declared.endpoint {
        report.endpoint = Some(endpoint.name().to_owned());
        let Some(subscription) = &endpoint.subscription else {
            let fix = "`pleo-receiver setup --url https://…` makes one, and says so in the file";
            report.failed("subscription", "the file says of none", fix)?;
            continue;
        };
        let is_https = public::check(&subscription.url, &mut report).await?;
        let secrets = endpoint.secrets()?;
        let login = subscription.login(&args.api);
        match login.and_then(|login| args.api.client_of(login)) {
            Ok(client) => at_pleo(&client, endpoint, subscription, &secrets, &mut report).await?,
            Err(failure) => {
                let fix = "with a token, what Pleo has can be looked at";
                report.failed("pleo", &failure.to_string(), fix)?;
            }
        }
        if is_https {
            delivery::check(&args, endpoint, &secrets, inbox.as_ref(), &mut report).await?;
        }
    }
    if declared.endpoint.is_empty() {
        let fix = "`pleo-receiver setup --url https://…` makes one, with its subscription";
        report.failed("endpoint", "the file has no `[[endpoint]]` tables", fix)?;
    }
    report.end()
}

/// Whether `serve` would take it.
fn check_config(args: &Doctor) -> Result<(), Failure> {
    let config = args.receiver.config.as_os_str();
    let words = [
        "pleo-receiver".as_ref(),
        "serve".as_ref(),
        "--config".as_ref(),
        config,
    ];
    let cli = Cli::try_parse_from(words).map_err(|error| Failure::Usage(error.to_string()))?;
    let Command::Serve(serve) = cli.command else {
        return Ok(());
    };
    Config::new(*serve, |_| false).map(drop)
}

fn check_inbox(
    args: &Doctor,
    declared: &Declared,
    report: &mut Report,
) -> Result<Option<SqliteInbox>, Failure> {
    let url = declared.inbox(&args.receiver);
    if url == "memory:" {
        let fix = "set `inbox = \"sqlite:pleo-inbox.db\"`";
        report.failed(
            "inbox",
            "it is in memory: its messages end with the receiver",
            fix,
        )?;
        return Ok(None);
    }
    let path = sqlite_path(url)?;
    // Opening takes the right to write, and asks for it.
    let inbox = match SqliteInbox::open_shared(path) {
        Ok(inbox) => inbox,
        Err(error) => {
            let fix = format!(
                "run `pleo-receiver serve --config {}` once, and this as the same user",
                args.receiver.config.display()
            );
            report.failed("inbox", &chain(&error), &fix)?;
            return Ok(None);
        }
    };
    report.ok("inbox", &format!("{url} can be written"))?;
    match SqliteInbox::server_pid(path) {
        Some(pid) => report.ok("receiver", &format!("process {pid} serves it"))?,
        None if SqliteInbox::is_served(path) => {
            report.ok(
                "receiver",
                "one serves it, in another container or as another user",
            )?;
        }
        None => {
            let fix = format!(
                "pleo-receiver serve --config {}",
                args.receiver.config.display()
            );
            report.failed("receiver", "none runs on this inbox", &fix)?;
        }
    }
    Ok(Some(inbox))
}

/// What Pleo has, beside what the file says.
async fn at_pleo(
    client: &Client,
    endpoint: &Endpoint,
    subscription: &Subscription,
    secrets: &[Secret],
    report: &mut Report,
) -> Result<(), Failure> {
    let (time, there) = match (client.time().await, subscriptions(client).await) {
        (Ok(time), Ok(there)) => (time, there),
        (Err(error), _) => {
            return Ok(report.failed("pleo", &chain(&error), "see what it says, and try again")?);
        }
        (_, Err(failure)) => {
            return Ok(report.failed(
                "pleo",
                &failure.to_string(),
                "see what it says, and try again",
            )?);
        }
    };
    report.ok("pleo", &format!("{} knows the token", client.host()))?;
    if let Some(time) = time {
        check_clock(time, report)?;
    }
    let url = &subscription.url;
    let sync = "`pleo-receiver subscriptions sync` shows the difference, and mends it with `--yes`";
    let mut with_url = there.iter().filter(|one| one.endpoint_url == *url);
    let Some(one) = with_url.next() else {
        report.failed("subscription", &format!("Pleo has none for {url}"), sync)?;
        return Ok(());
    };
    let id = one.id;
    if one.status == Status::Active {
        report.ok("subscription", &format!("{id} is {}", one.status))?;
    } else {
        let found = format!("{id} is {}: Pleo delivers nothing", one.status);
        report.failed("subscription", &found, sync)?;
    }
    let missing: Vec<_> = subscription
        .events
        .iter()
        .filter(|event| !one.event_types.contains(event))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        report.ok("events", &subscription.events.join(", "))?;
    } else {
        report.failed(
            "events",
            &format!("not subscribed: {}", missing.join(", ")),
            sync,
        )?;
    }
    let secret: Option<Secret> = match client.secret(id).await {
        Ok(secret) => secret.expose().parse().ok(),
        Err(error) => return Ok(report.failed("secret", &chain(&error), "try again")?),
    };
    let place = secret.and_then(|secret| secrets.iter().position(|one| is_same(one, &secret)));
    match place {
        Some(index) => {
            let found = format!("number {} of {} signs at Pleo", index + 1, secrets.len());
            Ok(report.ok("secret", &found)?)
        }
        None => {
            let fix = format!(
                "`pleo-receiver setup --url {url} --path {}` fetches it",
                endpoint.path
            );
            Ok(report.failed("secret", "Pleo signs with another one", &fix)?)
        }
    }
}

fn check_clock(theirs: Timestamp, report: &mut Report) -> io::Result<()> {
    let skew = Timestamp::now().duration_since(theirs).as_secs();
    if skew.unsigned_abs() <= CLOCK {
        return report.ok("clock", &format!("within {CLOCK} s of Pleo's"));
    }
    let way = if skew > 0 { "fast" } else { "slow" };
    let found = format!("{way} by {} s", skew.unsigned_abs());
    report.failed(
        "clock",
        &found,
        "let the machine get its time from a time server",
    )
}

/// What was found, line by line.
struct Report {
    json: bool,
    endpoint: Option<String>,
    failures: usize,
}

impl Report {
    const fn new(json: bool) -> Self {
        Self {
            json,
            endpoint: None,
            failures: 0,
        }
    }

    fn ok(&self, check: &str, found: &str) -> io::Result<()> {
        self.line("ok", check, found, None)
    }

    /// It couldn't be looked at.
    fn skipped(&self, check: &str, why: &str) -> io::Result<()> {
        self.line("skipped", check, why, None)
    }

    fn failed(&mut self, check: &str, found: &str, fix: &str) -> io::Result<()> {
        self.failures += 1;
        self.line("FAILED", check, found, Some(fix))
    }

    fn line(&self, state: &str, check: &str, found: &str, fix: Option<&str>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let state = state.to_ascii_lowercase();
            let endpoint = &self.endpoint;
            let object = json!({
                "check": check, "endpoint": endpoint, "state": state, "found": found, "fix": fix,
            });
            return writeln!(out, "{object}");
        }
        let place = self
            .endpoint
            .as_deref()
            .map_or_else(String::new, |name| format!("{name}: "));
        writeln!(
            out,
            "{state:7} {check:13} {}",
            plain(&format!("{place}{found}"))
        )?;
        if let Some(fix) = fix {
            writeln!(out, "        {}", plain(fix))?;
        }
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        if self.failures == 0 {
            Ok(())
        } else {
            Err(Failure::AlreadyReported)
        }
    }
}
