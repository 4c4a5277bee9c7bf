//! `pleo-receiver subscriptions`: Pleo's Subscriptions API from the command line.

mod print;
mod sync;

use std::io::{self, Write};

use pleo_api::{
    ActivityList, EndpointAuth, Page, PageRequest, PageStart, Sensitive, SortOrder,
    SubscriptionList, SubscriptionRequest,
};
use serde_json::json;

use self::print::Row;
use crate::args::pleo::{
    Activities, Create, Extras, List, One, Paging, Secret, Subscriptions, Update,
};
use crate::failure::Failure;
use crate::pleo::{client, secret_file};
use crate::secret_ref::SecretRef;

pub(crate) async fn run(command: Subscriptions) -> Result<(), Failure> {
    match command {
        Subscriptions::List(args) => list(args).await,
        Subscriptions::Create(args) => create(args).await,
        Subscriptions::Get(args) => get(args).await,
        Subscriptions::Update(args) => update(args).await,
        Subscriptions::Delete(args) => delete(args).await,
        Subscriptions::Secret(args) => secret(args).await,
        Subscriptions::Activities(args) => activities(args).await,
        Subscriptions::Sync(args) => sync::run(args).await,
    }
}

async fn list(args: List) -> Result<(), Failure> {
    let client = args.api.client()?;
    let list = SubscriptionList {
        status: args.status,
        event_types: args.events,
        select: args.paging.select()?,
    };
    if args.paging.is_one_page() {
        return Ok(page(&client.list(&list).await?, args.json)?);
    }
    let mut printer = print::List::new(args.json);
    let mut all = client.subscriptions(list);
    while let Some(subscription) = all.next().await {
        printer.print(&subscription?)?;
    }
    Ok(printer.end()?)
}

async fn create(args: Create) -> Result<(), Failure> {
    let mut request = SubscriptionRequest::new(args.url, args.events);
    request.status = args.status;
    args.extras.apply(&mut request)?;
    let made = args.api.client()?.create(&request).await?;
    Ok(print::one(&made, args.json)?)
}

async fn get(args: One) -> Result<(), Failure> {
    let subscription = args.api.client()?.get(args.id).await?;
    Ok(print::one(&subscription, args.json)?)
}

async fn update(args: Update) -> Result<(), Failure> {
    let client = args.api.client()?;
    let mut request = SubscriptionRequest::from(&client.get(args.id).await?);
    if let Some(url) = args.url {
        request.endpoint_url = url;
    }
    if !args.events.is_empty() {
        request.event_types = args.events;
    }
    if let Some(status) = args.status {
        request.status = status;
    }
    for name in &args.remove_header {
        let headers = &mut request.custom_headers;
        headers.retain(|other, _| !other.eq_ignore_ascii_case(name));
    }
    args.extras.apply(&mut request)?;
    if args.remove_credentials {
        request.endpoint_auth = Some(EndpointAuth::none());
    }
    let changed = client.update(args.id, &request).await?;
    Ok(print::one(&changed, args.json)?)
}

async fn delete(args: One) -> Result<(), Failure> {
    args.api.client()?.delete(args.id).await?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({ "deleted": args.id }))?;
    } else {
        writeln!(out, "deleted {}", args.id)?;
    }
    Ok(())
}

async fn secret(args: Secret) -> Result<(), Failure> {
    let (secret, _) = client::secret(&args.api.client()?, args.id).await?;
    let mut out = io::stdout().lock();
    if let Some(path) = &args.output {
        // Who names it may write over it.
        secret_file::keep_secret(path, secret.expose(), true)?;
        let file = path.display().to_string();
        if args.json {
            writeln!(out, "{}", json!({ "file": file }))?;
        } else {
            writeln!(out, "wrote {file}")?;
        }
    } else if args.json {
        writeln!(out, "{}", json!({ "secretKey": secret.expose() }))?;
    } else {
        writeln!(out, "{}", secret.expose())?;
    }
    Ok(())
}

async fn activities(args: Activities) -> Result<(), Failure> {
    let client = args.api.client()?;
    let types = args.operations.iter();
    let list = ActivityList {
        operation_types: types.map(|text| text.as_str().into()).collect(),
        select: args.paging.select()?,
    };
    if args.paging.is_one_page() {
        return Ok(page(&client.activities(args.id, &list).await?, args.json)?);
    }
    let mut printer = print::List::new(args.json);
    let mut all = client.all_activities(args.id, list);
    while let Some(activity) = all.next().await {
        printer.print(&activity?)?;
    }
    Ok(printer.end()?)
}

/// One page, and on standard error how to get the ones beside it.
fn page<T: Row>(page: &Page<T>, json: bool) -> io::Result<()> {
    let mut printer = print::List::new(json);
    for row in &page.data {
        printer.print(row)?;
    }
    printer.end()?;
    let place = &page.pagination;
    let mut err = io::stderr().lock();
    if let Some(cursor) = place
        .start_cursor
        .as_ref()
        .filter(|_| place.has_previous_page)
    {
        writeln!(err, "the page before: --before {cursor}")?;
    }
    if let Some(cursor) = place.end_cursor.as_ref().filter(|_| place.has_next_page) {
        writeln!(err, "the next page: --after {cursor}")?;
    }
    Ok(())
}

impl Paging {
    const fn is_one_page(&self) -> bool {
        self.before.is_some()
            || self.after.is_some()
            || self.offset.is_some()
            || self.limit.is_some()
    }

    fn select(&self) -> Result<PageRequest, Failure> {
        let before = self.before.clone().map(PageStart::Before);
        let place = before.or_else(|| self.after.clone().map(PageStart::After));
        let mut sorting = Vec::new();
        for text in &self.sort {
            let (key, order) = text.split_once(':').unwrap_or((text, "ASC"));
            let order = SortOrder::from(order);
            if matches!(order, SortOrder::Other(_)) {
                let why = "an order is ASC or DESC, each also with _NULLS_FIRST or _NULLS_LAST";
                return Err(Failure::Usage(format!("`--sort {text}`: {why}")));
            }
            sorting.push((key.to_owned(), order));
        }
        Ok(PageRequest {
            place: place.or_else(|| self.offset.map(PageStart::Offset)),
            limit: self.limit,
            sorting,
        })
    }
}

impl Extras {
    fn apply(&self, request: &mut SubscriptionRequest) -> Result<(), Failure> {
        let resolve = |hidden: &SecretRef, flag: &str| {
            let usage = |why| Failure::Usage(format!("`{flag}`: {why}"));
            hidden.resolve().map_err(usage)
        };
        for header in &self.headers {
            let header = resolve(header, "--header")?;
            let Some((name, value)) = header.split_once(':') else {
                let why = "`--header`: give it as `name: value`";
                return Err(Failure::Usage(why.to_owned()));
            };
            let (name, value) = (name.trim().to_owned(), Sensitive::from(value.trim()));
            request.custom_headers.insert(name, value);
        }
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            let username = resolve(username, "--username")?;
            let password = resolve(password, "--password")?;
            request.endpoint_auth = Some(EndpointAuth::basic(username, password));
        }
        Ok(())
    }
}
