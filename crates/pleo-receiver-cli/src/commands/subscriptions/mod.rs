//! `pleo-receiver subscriptions`: manages subscriptions at Pleo.

mod rows;
mod sync;

use std::io;

use pleo_api::{
    ActivityQuery, EndpointAuth, PageRequest, PageStart, Pages, Pagination, Sensitive, SortOrder,
    Subscription, SubscriptionQuery, SubscriptionRequest,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::args::subscriptions::{
    Activities, ById, Create, HeaderArgs, List, PageArgs, Secret, Subscriptions, Update,
};
use crate::failure::Failure;
use crate::output::{self, Row};
use crate::pleo::client::{client, signing_secret};
use crate::pleo::secret_file::{self, OtherSecret};
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
    let client = client(&args.api)?;
    let mut query = SubscriptionQuery::all().with_page(page_request(&args.page)?);
    query.status = args.status;
    if !args.events.is_empty() {
        query = query.with_event_types(args.events);
    }
    print_list(client.subscriptions().list(query), &args.page, args.json).await
}

async fn create(args: Create) -> Result<(), Failure> {
    let mut request = SubscriptionRequest::new(args.url, args.events);
    request.status = args.status;
    set_headers(&mut request, &args.headers)?;
    let created = client(&args.api)?.subscriptions().create(&request).await?;
    Ok(print_one(&created, args.json)?)
}

async fn get(args: ById) -> Result<(), Failure> {
    let subscription = client(&args.api)?.subscriptions().get(args.id).await?;
    Ok(print_one(&subscription, args.json)?)
}

async fn update(args: Update) -> Result<(), Failure> {
    let subscriptions = client(&args.api)?.subscriptions();
    let mut request = SubscriptionRequest::from(&subscriptions.get(args.id).await?);
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
    set_headers(&mut request, &args.headers)?;
    if args.remove_credentials {
        request.endpoint_auth = Some(EndpointAuth::none());
    }
    let updated = subscriptions.update(args.id, &request).await?;
    Ok(print_one(&updated, args.json)?)
}

async fn delete(args: ById) -> Result<(), Failure> {
    client(&args.api)?.subscriptions().delete(args.id).await?;
    if args.json {
        output::json(&json!({ "deleted": args.id }))?;
    } else {
        output::line(format_args!("deleted {}", args.id))?;
    }
    Ok(())
}

async fn secret(args: Secret) -> Result<(), Failure> {
    let (secret, _) = signing_secret(&client(&args.api)?, args.id).await?;
    match &args.output {
        Some(path) => {
            secret_file::write(path, secret.expose(), OtherSecret::Replace)?;
            let file = path.display().to_string();
            if args.json {
                output::json(&json!({ "file": file }))?;
            } else {
                output::line(format_args!("wrote {file}"))?;
            }
        }
        None if args.json => output::json(&json!({ "secretKey": secret.expose() }))?,
        None => output::line(secret.expose())?,
    }
    Ok(())
}

async fn activities(args: Activities) -> Result<(), Failure> {
    let client = client(&args.api)?;
    let mut query = ActivityQuery::all().with_page(page_request(&args.page)?);
    if !args.operations.is_empty() {
        let types = args.operations.iter();
        query = query.with_operation_types(types.map(|text| text.as_str().into()));
    }
    let list = client.subscriptions().activities(args.id, query);
    print_list(list, &args.page, args.json).await
}

const fn is_one_page(args: &PageArgs) -> bool {
    args.before.is_some() || args.after.is_some() || args.offset.is_some() || args.limit.is_some()
}

fn page_request(args: &PageArgs) -> Result<PageRequest, Failure> {
    let before = args.before.clone().map(PageStart::Before);
    let start = before.or_else(|| args.after.clone().map(PageStart::After));
    let mut request = PageRequest::default();
    request.start = start.or_else(|| args.offset.map(PageStart::Offset));
    request.limit = args.limit;
    for text in &args.sort {
        let (key, order) = text.split_once(':').unwrap_or((text, "ASC"));
        let order = SortOrder::from(order);
        if !is_known(&order) {
            let why = "unknown order: give ASC or DESC, or one of them with _NULLS_FIRST or \
                       _NULLS_LAST";
            return Err(Failure::usage(&format!("`--sort {text}`"), why));
        }
        request = request.with_sorting(key, order);
    }
    Ok(request)
}

const fn is_known(order: &SortOrder) -> bool {
    matches!(
        order,
        SortOrder::Ascending
            | SortOrder::AscendingNullsFirst
            | SortOrder::AscendingNullsLast
            | SortOrder::Descending
            | SortOrder::DescendingNullsFirst
            | SortOrder::DescendingNullsLast
    )
}

fn set_headers(request: &mut SubscriptionRequest, args: &HeaderArgs) -> Result<(), Failure> {
    let resolve = |text: &SecretRef, flag: &str| {
        let resolved = text.resolve();
        resolved.map_err(|why| Failure::usage(flag, &why))
    };
    for header in &args.headers {
        let header = resolve(header, "`--header`")?;
        let Some((name, value)) = header.split_once(':') else {
            return Err(Failure::usage("`--header`", "no colon: give `name: value`"));
        };
        let (name, value) = (name.trim().to_owned(), Sensitive::from(value.trim()));
        request.custom_headers.insert(name, value);
    }
    if let (Some(username), Some(password)) = (&args.username, &args.password) {
        let username = resolve(username, "`--username`")?;
        let password = resolve(password, "`--password`")?;
        request.endpoint_auth = Some(EndpointAuth::basic(username, password));
    }
    Ok(())
}

/// Prints each page as soon as it is fetched.
async fn print_list<T: Row + DeserializeOwned>(
    mut pages: Pages<T>,
    args: &PageArgs,
    json: bool,
) -> Result<(), Failure> {
    const EMPTY: &str = "Pleo has no matching entries";
    let mut list = output::List::new(json);
    while let Some(page) = pages.next_page().await? {
        list.print(&page.data)?;
        if is_one_page(args) {
            list.end(EMPTY)?;
            return Ok(print_cursors(&page.pagination)?);
        }
    }
    Ok(list.end(EMPTY)?)
}

/// Prints the flags of the previous and the next page to standard error.
fn print_cursors(pagination: &Pagination) -> io::Result<()> {
    let before = pagination.start_cursor.as_ref();
    if let Some(cursor) = before.filter(|_| pagination.has_previous_page) {
        output::note(format_args!("the page before: --before {cursor}"))?;
    }
    let after = pagination.end_cursor.as_ref();
    if let Some(cursor) = after.filter(|_| pagination.has_next_page) {
        output::note(format_args!("the next page: --after {cursor}"))?;
    }
    Ok(())
}

fn print_one(subscription: &Subscription, json: bool) -> io::Result<()> {
    let object = subscription.json();
    if json {
        output::json(&object)
    } else {
        output::fields(&object)
    }
}
