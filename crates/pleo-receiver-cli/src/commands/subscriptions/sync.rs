//! `pleo-receiver subscriptions sync`: makes Pleo match the configuration.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use pleo_api::{Client, Subscription};
use serde_json::json;
use uuid::Uuid;

use crate::args::subscriptions::Sync;
use crate::config::edit::ConfigDocument;
use crate::config::lock::ConfigLock;
use crate::config::schema::{ConfigFile, EndpointTable, SubscriptionTable};
use crate::failure::Failure;
use crate::files::{self, Access};
use crate::output;
use crate::pleo::apply::{apply, undo_create};
use crate::pleo::client::{CredentialsRef, client_with, find_subscriptions, signing_secret};
use crate::pleo::declared;
use crate::pleo::owner::{check_not_copied, is_owned, new_name, owned_by};
use crate::pleo::plan::Change;
use crate::pleo::secret_file::{self, OtherSecret};

/// Credentials, and the relevant subscriptions that they give access to.
struct Account<'a> {
    credentials: CredentialsRef<'a>,
    client: Client,
    existing: Vec<Subscription>,
}

/// The planned change of one endpoint's subscription.
struct Step<'a> {
    endpoint: &'a EndpointTable,
    url: &'a str,
    /// Index of the account.
    account: usize,
    change: Change,
}

pub(crate) async fn run(args: Sync) -> Result<(), Failure> {
    let config = &args.receiver.config;
    let _lock = if args.yes {
        ConfigLock::acquire(config).await?
    } else {
        None
    };
    let file = declared::read(&args.receiver)?;
    let mut document = ConfigDocument::open(config)?;
    let owner = file.subscriptions.as_ref().map(|owner| owner.name.as_str());
    let declared = declared_subscriptions(&file);
    if declared.is_empty() && owner.is_none() {
        return Err(Failure::Usage(format!(
            "{}: no `[[endpoint]]` declares a `subscription`: add one, or run `pleo-receiver setup`",
            config.display()
        )));
    }
    let urls = file.subscription_urls();
    let is_relevant = |subscription: &Subscription| {
        urls.contains(subscription.endpoint_url.as_str()) || is_owned(subscription, owner)
    };
    let (accounts, indices) = accounts(&args, &declared, is_relevant).await?;
    let owned = (accounts.iter()).flat_map(|account| owned_by(owner, &account.existing));
    check_not_copied(config, &urls, owned)?;

    let new_owner = new_name();
    let mut steps = Vec::new();
    for ((endpoint, subscription), account) in declared.into_iter().zip(indices) {
        let desired = subscription.desired(&endpoint.delivery_headers()?);
        let existing = &accounts[account].existing;
        let change = desired.plan(existing, owner.unwrap_or(&new_owner))?;
        change.check(&accounts[account].client)?;
        if let (Change::Create(_), Some(secret)) = (&change, endpoint.secret_file()) {
            check_secret_file(&args, &file, endpoint, &secret)?;
        }
        let url = subscription.url.as_str();
        steps.push(Step {
            endpoint,
            url,
            account,
            change,
        });
    }
    let creates = steps
        .iter()
        .any(|step| matches!(step.change, Change::Create(_)));
    if args.yes && creates && owner.is_none() {
        // Saved first: after an interruption, the next run finds the subscriptions by this name.
        document.set_owner(&new_owner);
        document.save()?;
    }

    let mut printer = Printer::new(&args);
    let mut fetched = false;
    for step in &steps {
        fetched |= run_step(step, &accounts[step.account], &mut printer).await?;
    }
    if fetched {
        output::note("reload a running receiver: `kill -HUP PID`, or restart it")?;
    }
    let abandoned = delete_abandoned(owner, &accounts, &urls, &mut printer).await?;
    if printer.changes > 0 && !args.yes {
        output::note("nothing has changed: add `--yes` to apply this")?;
    }
    if abandoned && !args.delete {
        output::note("nothing was deleted: add `--yes --delete` to delete")?;
    }
    Ok(())
}

fn declared_subscriptions(file: &ConfigFile) -> Vec<(&EndpointTable, &SubscriptionTable)> {
    let endpoints = file.endpoint.iter();
    endpoints
        .filter_map(|endpoint| Some((endpoint, endpoint.subscription.as_ref()?)))
        .collect()
}

/// Lists the relevant subscriptions of each account. Returns the accounts, and the index of the
/// account of each endpoint.
async fn accounts<'a>(
    args: &'a Sync,
    declared: &[(&'a EndpointTable, &'a SubscriptionTable)],
    is_relevant: impl Fn(&Subscription) -> bool,
) -> Result<(Vec<Account<'a>>, Vec<usize>), Failure> {
    let mut accounts = Vec::new();
    let mut indices = Vec::new();
    for (endpoint, subscription) in declared {
        let at = |failure: Failure| failure.at(&endpoint.path);
        let credentials = CredentialsRef::of(subscription, &args.api).map_err(at)?;
        let index = account(&mut accounts, credentials, args, &is_relevant).await;
        indices.push(index.map_err(at)?);
    }
    // A file without endpoints may still own subscriptions.
    if let Ok(credentials) = CredentialsRef::from_args(&args.api) {
        account(&mut accounts, credentials, args, &is_relevant).await?;
    }
    Ok((accounts, indices))
}

async fn account<'a>(
    accounts: &mut Vec<Account<'a>>,
    credentials: CredentialsRef<'a>,
    args: &'a Sync,
    is_relevant: impl Fn(&Subscription) -> bool,
) -> Result<usize, Failure> {
    let index = accounts
        .iter()
        .position(|account| account.credentials == credentials);
    if let Some(index) = index {
        return Ok(index);
    }
    let client = client_with(credentials, &args.api)?;
    let existing = find_subscriptions(&client, is_relevant).await?;
    accounts.push(Account {
        credentials,
        client,
        existing,
    });
    Ok(accounts.len() - 1)
}

/// Checks that the secret of a new subscription can be stored, before Pleo has the subscription.
fn check_secret_file(
    args: &Sync,
    file: &ConfigFile,
    endpoint: &EndpointTable,
    secret: &Path,
) -> Result<(), Failure> {
    if !file.is_only_user(&endpoint.path, secret) {
        return Err(secret_file::in_use(secret));
    }
    secret_file::check_unused(secret)?;
    if args.yes {
        files::check_writable(secret, Access::Owner)?;
    }
    Ok(())
}

/// Prints a step, and applies it with `--yes`. Returns `true` if a secret was fetched.
async fn run_step(
    step: &Step<'_>,
    account: &Account<'_>,
    printer: &mut Printer<'_>,
) -> Result<bool, Failure> {
    let Step {
        endpoint,
        url,
        change,
        ..
    } = step;
    let client = &account.client;
    // An interrupted run may have created the subscription without fetching its secret.
    let missing = endpoint
        .secret_file()
        .filter(|file| secret_file::is_missing(file));
    let id = if printer.args.yes {
        Some(apply(change, client).await?)
    } else {
        None
    };
    printer.change(change.verb(), &change.subject(url), change.differences())?;
    let Some(file) = missing else {
        if let (Some(id), Change::Create(_)) = (id, change) {
            output::note(format_args!(
                "the endpoint `{}` has no secret file: get its secret with `pleo-receiver \
                 subscriptions secret {id}`",
                endpoint.path
            ))?;
        }
        return Ok(false);
    };
    if let Some(id) = id
        && let Err(failure) = fetch_secret(client, id, &file).await
    {
        return Err(match change {
            Change::Create(_) => {
                undo_create(id, client, account.credentials, &printer.args.api, failure).await
            }
            _ => failure,
        });
    }
    printer.change(
        "fetch",
        &format!("signing secret into {}", file.display()),
        &[],
    )?;
    Ok(id.is_some())
}

async fn fetch_secret(client: &Client, id: Uuid, file: &Path) -> Result<(), Failure> {
    let (secret, _) = signing_secret(client, id).await?;
    secret_file::write(file, secret.expose(), OtherSecret::Refuse)?;
    Ok(())
}

/// Prints the owned subscriptions that the file no longer declares. Deletes them with `--yes
/// --delete`. Returns `true` if there are any.
async fn delete_abandoned(
    owner: Option<&str>,
    accounts: &[Account<'_>],
    urls: &BTreeSet<&str>,
    printer: &mut Printer<'_>,
) -> Result<bool, Failure> {
    // Two accounts may belong to the same company.
    let mut seen = BTreeSet::new();
    for account in accounts {
        for subscription in owned_by(owner, &account.existing) {
            let (id, url) = (subscription.id, &*subscription.endpoint_url);
            if urls.contains(url) || !seen.insert(id) {
                continue;
            }
            let subject = format!("{id} {url}");
            if printer.args.delete && printer.args.yes {
                account.client.subscriptions().delete(id).await?;
            }
            printer.change("delete", &subject, &[])?;
        }
    }
    Ok(!seen.is_empty())
}

/// Prints planned or applied changes.
struct Printer<'a> {
    args: &'a Sync,
    changes: usize,
}

impl<'a> Printer<'a> {
    const fn new(args: &'a Sync) -> Self {
        Self { args, changes: 0 }
    }

    fn change(&mut self, verb: &str, subject: &str, differences: &[String]) -> io::Result<()> {
        self.changes += usize::from(verb != "keep");
        let applied = self.args.yes && (verb != "delete" || self.args.delete);
        let verb = if applied { past(verb) } else { verb };
        if self.args.json {
            let what = if differences.is_empty() {
                subject.to_owned()
            } else {
                format!("{subject}: {}", differences.join("; "))
            };
            return output::json(&json!({ "do": verb, "what": what }));
        }
        output::line(format_args!("{verb:8} {subject}"))?;
        for difference in differences {
            output::line(format_args!("{:8} {difference}", ""))?;
        }
        Ok(())
    }
}

fn past(verb: &str) -> &str {
    match verb {
        "create" => "created",
        "update" => "updated",
        "delete" => "deleted",
        "fetch" => "fetched",
        other => other,
    }
}
