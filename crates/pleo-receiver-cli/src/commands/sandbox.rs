//! `pleo-receiver sandbox`: runs a local Pleo until it is stopped.

use std::io;
use std::net::SocketAddr;

use pleo_sandbox::{
    Attempt, Error, HeaderPrefix, PlainHttp, Sandbox, SandboxEvent, SandboxOptions,
};
use serde_json::json;

use crate::args::sandbox::{HeaderPrefix as Prefix, Sandbox as Args};
use crate::failure::{Failure, chain};
use crate::files::{self, Access};
use crate::{invocation, output, signals};

/// The endpoint of the printed commands: where `serve` listens by default.
const ENDPOINT: &str = "http://127.0.0.1:8787/webhooks/pleo";

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut stop = signals::Stop::new()?;
    let sandbox = Sandbox::start_with(options(&args)?).await?;
    let mut events = sandbox.events();
    if let Some(file) = &args.token_file {
        let before = files::read_if_exists(file).map_err(|error| {
            Failure::usage("`--token-file`", &format!("{}: {error}", file.display()))
        })?;
        files::replace(file, &before, &sandbox.token(), Access::Owner)?;
    }
    if args.json {
        output::json(&json!({
            "url": sandbox.url(),
            "token": sandbox.token(),
            "api_key": sandbox.api_key(),
            "company": sandbox.company(),
        }))?;
    } else {
        introduce(&sandbox, &args)?;
    }
    loop {
        tokio::select! {
            () = stop.wait() => break,
            event = events.next() => match event {
                Some(SandboxEvent::Attempt(attempt)) if !args.json => print_attempt(&attempt)?,
                Some(SandboxEvent::Disabled { subscription }) if !args.json => {
                    output::line(format_args!("disabled     subscription {subscription}"))?;
                }
                Some(_) => {}
                None => break,
            },
        }
    }
    Ok(sandbox.stop().await?)
}

fn options(args: &Args) -> Result<SandboxOptions, Failure> {
    let lifetime = u32::try_from(args.expire_after.as_secs()).map_err(|_| {
        let why = "give a duration up to 100 years, such as 1h";
        Failure::usage("`--expire-after`", why)
    })?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], args.port));
    let mut options = SandboxOptions::new()
        .with_listen(args.listen.unwrap_or(loopback))
        .with_compression(args.compress)
        .with_expires_in(lifetime)
        .with_header_prefix(match args.header_prefix {
            Prefix::Webhook => HeaderPrefix::Webhook,
            Prefix::Svix => HeaderPrefix::Svix,
            Prefix::Both => HeaderPrefix::Both,
        });
    for host in &args.hosts {
        options = options.with_host(host);
    }
    if args.http_endpoints {
        options = options.with_plain_http(PlainHttp::Allowed);
    }
    if let Some(seed) = args.seed {
        options = options.with_seed(seed);
    }
    if let Some(file) = &args.state {
        let target = files::target(file, Access::Owner);
        options =
            options.with_state_file(target.map_err(|error| files::cannot_write(file, &error))?);
    }
    Ok(options)
}

/// Prints what the sandbox serves, and the commands to go on with.
fn introduce(sandbox: &Sandbox, args: &Args) -> io::Result<()> {
    let (url, program) = (sandbox.url(), invocation::program());
    let token = match &args.token_file {
        Some(file) => format!("file:{}", file.display()),
        None => sandbox.token(),
    };
    let state = match &args.state {
        Some(file) => file.display().to_string(),
        None => "in memory".to_owned(),
    };
    for (name, value) in [
        ("sandbox", format!("{url}/")),
        ("token", token.clone()),
        ("api key", sandbox.api_key()),
        ("company", sandbox.company().to_string()),
        ("state", state),
    ] {
        output::line(format_args!("{name:12} {value}"))?;
    }
    let token = shlex::try_quote(&token).unwrap_or_default().into_owned();
    output::line("")?;
    output::line("Go on in a second terminal, in this folder:")?;
    output::line("")?;
    output::line(format_args!(
        "export PLEO_API_URL={url} PLEO_API_TOKEN={token}"
    ))?;
    output::line(format_args!("{program} setup --url {ENDPOINT}"))?;
    output::line(format_args!("{program} serve --exec 'tee last-event.json'"))?;
    output::line("")?;
    output::line(format_args!(
        "Then press Export on {url}/, or run `curl -X POST {url}/sandbox/export`."
    ))?;
    output::line("The sandbox runs until you press Ctrl-C.")?;
    output::line("")
}

fn print_attempt(attempt: &Attempt) -> io::Result<()> {
    let outcome = match (attempt.status, &attempt.error) {
        (Some(status), _) => status.to_string(),
        (None, error) => error.clone().unwrap_or_default(),
    };
    let (time, message) = (attempt.at.strftime("%H:%M:%S"), &attempt.message);
    output::line(format_args!("{time:12} {message} {outcome}"))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = chain(&error);
        match error {
            Error::NotLoopback { .. } => Self::usage("`--listen`", &text).and("see `--host`"),
            Error::Listen { .. } | Error::StateFormat { .. } => Self::Usage(text),
            _ => Self::Run(text),
        }
    }
}
