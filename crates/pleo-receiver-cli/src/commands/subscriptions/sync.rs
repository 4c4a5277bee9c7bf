//! `pleo-receiver subscriptions sync`: makes Pleo match the configuration.

use std::collections::BTreeSet;
use std::io::{self, Write};

use pleo_api::{Client, Subscription};
use serde_json::json;

use crate::args::pleo::Sync;
use crate::config::edit::Document;
use crate::failure::Failure;
use crate::files;
use crate::pleo::client::{self as api, Login, subscriptions};
use crate::pleo::declared::Declared;
use crate::pleo::plan::{Change, check_copy, new_owner, owned};
use crate::pleo::{plain, secret_file};

/// Those who ask as the same company, and what Pleo has for it.
struct Account<'d> {
    login: Login<'d>,
    client: Client,
    there: Vec<Subscription>,
}

pub(crate) async fn run(args: Sync) -> Result<(), Failure> {
    let declared = Declared::read(&args.receiver)?;
    let mut document = Document::open(&args.receiver.config)?;
    let owner = declared
        .subscriptions
        .as_ref()
        .map(|owner| owner.name.as_str());
    let new = new_owner();
    let wanted: Vec<_> = declared
        .endpoint
        .iter()
        .filter_map(|endpoint| Some((endpoint, endpoint.subscription.as_ref()?)))
        .collect();
    if wanted.is_empty() && owner.is_none() {
        let why =
            "no `[[endpoint]]` has a `subscription`: nothing is said of what Pleo should have";
        return Err(Failure::Usage(format!(
            "{}: {why}",
            args.receiver.config.display()
        )));
    }
    let mut accounts = Vec::new();
    let mut asked = Vec::new();
    for (endpoint, subscription) in &wanted {
        let of_it = |failure: Failure| failure.at(&endpoint.path);
        let login = subscription.login(&args.api).map_err(of_it)?;
        asked.push(account(&mut accounts, login, &args).await.map_err(of_it)?);
    }
    // Where the last endpoint is gone, what was made for it is still there.
    if let Ok(login) = args.api.login() {
        account(&mut accounts, login, &args).await?;
    }
    let urls = declared.urls();
    let owned_there = accounts.iter().flat_map(|one| owned(&one.there, owner));
    check_copy(owned_there, &urls, &args.receiver.config)?;

    let mut changes = Vec::new();
    for (&(endpoint, subscription), account) in wanted.iter().zip(asked) {
        let wanted = subscription.wanted(&endpoint.extras()?);
        let change = wanted.change(&accounts[account].there, owner.unwrap_or(&new))?;
        if let (Change::Create(_), Some(file)) = (&change, endpoint.secret_file()) {
            // Better now than between Pleo and the file.
            if !declared.is_only_user(&endpoint.path, file) {
                return Err(secret_file::taken(file));
            }
            secret_file::check_free(file)?;
            if args.yes {
                files::check(file)?;
            }
        }
        changes.push((endpoint, &*subscription.url, account, change));
    }

    let mut report = Report::new(args.json);
    let verb = |verb| if args.yes { done(verb) } else { verb };
    if args.yes && owner.is_none() && changes.iter().any(|one| matches!(one.3, Change::Create(_))) {
        // Before it marks anything, so that it can't be forgotten.
        document.set_owner(&new);
        document.save()?;
    }
    let mut fetched = false;
    for (endpoint, url, account, change) in changes {
        let client = &accounts[account].client;
        let (what, words) = change.describe(url);
        // One that was to be there already may have been cut short.
        let file = endpoint.secret_file();
        let missing = file.filter(|file| secret_file::held(file).is_ok_and(|text| text.is_empty()));
        let id = if args.yes {
            Some(change.apply(client).await?)
        } else {
            None
        };
        report.line(verb(what), &words)?;
        if let Some(file) = missing {
            if let Some(id) = id {
                let (secret, _) = api::secret(client, id).await?;
                secret_file::keep_secret(file, secret.expose(), false)?;
                fetched = true;
            }
            report.line(
                verb("fetch"),
                &format!("its secret into {}", file.display()),
            )?;
        } else if let (Some(id), Change::Create(_)) = (id, &change) {
            report.note(&format!(
                "the secret of `{}` is not in a file: `pleo-receiver subscriptions secret {id}` shows it",
                endpoint.path
            ))?;
        }
    }
    if fetched {
        report.note(
            "let a receiver that runs read its configuration again: `kill -HUP`, or a restart",
        )?;
    }
    // Two who ask may be the same company.
    let mut seen = BTreeSet::new();
    let mut abandoned = false;
    for account in &accounts {
        for one in owned(&account.there, owner) {
            if urls.contains(&*one.endpoint_url) || !seen.insert(one.id) {
                continue;
            }
            abandoned = true;
            let what = if args.yes && args.delete {
                account.client.delete(one.id).await?;
                done("delete")
            } else {
                "delete"
            };
            report.line(what, &format!("{} {}", one.id, one.endpoint_url))?;
        }
    }
    if report.changes > 0 && !args.yes {
        report.note("nothing was done yet: `--yes` applies it")?;
    }
    if abandoned && !args.delete {
        report.note("what is to be deleted is deleted only with `--delete` beside `--yes`")?;
    }
    Ok(())
}

/// The place of whoever asks among those who did already.
async fn account<'d>(
    accounts: &mut Vec<Account<'d>>,
    login: Login<'d>,
    args: &'d Sync,
) -> Result<usize, Failure> {
    if let Some(index) = accounts.iter().position(|one| one.login == login) {
        return Ok(index);
    }
    let client = args.api.client_of(login)?;
    let there = subscriptions(&client).await?;
    accounts.push(Account {
        login,
        client,
        there,
    });
    Ok(accounts.len() - 1)
}

fn done(verb: &'static str) -> &'static str {
    match verb {
        "create" => "created",
        "update" => "updated",
        "delete" => "deleted",
        "fetch" => "fetched",
        other => other,
    }
}

struct Report {
    json: bool,
    changes: usize,
}

impl Report {
    const fn new(json: bool) -> Self {
        Self { json, changes: 0 }
    }

    fn line(&mut self, verb: &str, words: &str) -> io::Result<()> {
        self.changes += usize::from(verb != "keep");
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", json!({ "do": verb, "what": words }))
        } else {
            writeln!(out, "{verb:8} {}", plain(words))
        }
    }

    /// What a script needn't know.
    fn note(&self, text: &str) -> io::Result<()> {
        writeln!(io::stderr().lock(), "{}", plain(text))
    }
}
