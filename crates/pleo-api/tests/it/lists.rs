//! Lists: filters, order, pages, cursors, errors, and lists without an end.

use core::time::Duration;

use futures_util::StreamExt as _;
use pleo_api::{
    ActivityQuery, Client, Error, ExportJobQuery, PageRequest, PageStart, Pages, SortOrder, Status,
    Subscription, SubscriptionQuery, SubscriptionRequest,
};
use pleo_sandbox::{Fault, Sandbox};
use uuid::Uuid;

use crate::support::{EXPORT, URL, VENDOR, builder, first_page, ids, ids_of, request, start};

/// Starts a sandbox with five subscriptions, and lists them in pages of two.
async fn start_list() -> (Sandbox, Vec<Uuid>, Pages<Subscription>) {
    let (pleo, client, _) = start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(client.subscriptions().create(&request()).await.unwrap().id);
    }
    let list = list_from(&pleo, PageRequest::default());
    (pleo, ids, list)
}

/// Lists subscriptions in pages of two, without retries.
fn list_from(pleo: &Sandbox, page: PageRequest) -> Pages<Subscription> {
    let client = builder(pleo).retries(0, Duration::ZERO).build().unwrap();
    let query = SubscriptionQuery::all().with_page(page.with_limit(2));
    client.subscriptions().list(query)
}

/// Returns the ids of all entries that a query selects.
async fn all(client: &Client, query: SubscriptionQuery) -> Vec<Uuid> {
    rest(client.subscriptions().list(query)).await
}

async fn rest(mut list: Pages<Subscription>) -> Vec<Uuid> {
    let mut ids = Vec::new();
    while let Some(subscription) = list.next().await.unwrap() {
        ids.push(subscription.id);
    }
    ids
}

#[tokio::test]
async fn filters_list() {
    let (_pleo, client, _) = start().await;
    let mut created = Vec::new();
    for (event_types, status) in [
        (&[EXPORT][..], Status::Active),
        (&[VENDOR], Status::Active),
        (&[EXPORT, VENDOR], Status::Inactive),
    ] {
        let request = SubscriptionRequest::new(URL, event_types.iter().copied());
        let request = request.with_status(status);
        created.push(client.subscriptions().create(&request).await.unwrap().id);
    }
    for (status, event_types, wanted) in [
        (None, None, &[0, 1, 2][..]),
        (Some(Status::Active), None, &[0, 1]),
        (Some(Status::Inactive), None, &[2]),
        (None, Some(&[EXPORT][..]), &[0, 2]),
        (None, Some(&[EXPORT, VENDOR]), &[0, 1, 2]),
        (Some(Status::Inactive), Some(&[VENDOR]), &[2]),
    ] {
        let mut list = SubscriptionQuery::all();
        list.status = status;
        if let Some(event_types) = event_types {
            list = list.with_event_types(event_types.iter().copied());
        }
        let wanted: Vec<_> = wanted.iter().map(|&index: &usize| created[index]).collect();
        assert_eq!(
            ids(&first_page(&client, list.clone()).await),
            wanted,
            "{list:?}"
        );
    }
}

#[tokio::test]
async fn pages_list_by_cursors_and_offset() {
    let (pleo, client, _) = start().await;
    let mut created = Vec::new();
    for _ in 0..7 {
        created.push(client.subscriptions().create(&request()).await.unwrap().id);
    }
    let mut list = SubscriptionQuery::all();
    list.page.limit = Some(3);
    let first = first_page(&client, list.clone()).await.unwrap();
    assert_eq!(ids_of(&first), created[..3]);
    let pagination = &first.pagination;
    assert_eq!(
        (pagination.has_previous_page, pagination.has_next_page),
        (false, true)
    );
    assert_eq!(pagination.total, Some(7));

    list.page.start = pagination.end_cursor.clone().map(PageStart::After);
    let second = first_page(&client, list.clone()).await.unwrap();
    assert_eq!(ids_of(&second), created[3..6]);
    assert!(second.pagination.has_previous_page);
    let current = second.pagination.current_request_pagination.unwrap();
    assert_eq!(
        (current.after, current.limit),
        (pagination.end_cursor.clone(), Some(3))
    );

    list.page.start = second.pagination.start_cursor.map(PageStart::Before);
    assert_eq!(ids(&first_page(&client, list.clone()).await), created[..3]);

    list.page.start = Some(PageStart::Offset(5));
    let last = first_page(&client, list.clone()).await.unwrap();
    assert_eq!(ids_of(&last), created[5..]);
    assert!(!last.pagination.has_next_page);

    for limit in [None, Some(1), Some(2), Some(7), Some(100)] {
        for start in [0, 5, 7] {
            let mut list = SubscriptionQuery::all();
            list.page.limit = limit;
            list.page.start = Some(PageStart::Offset(start));
            let start = usize::try_from(start).unwrap();
            assert_eq!(
                all(&client, list).await,
                created[start..],
                "{limit:?} from {start}"
            );
        }
    }
    let before = pleo.requests().len();
    let mut list = SubscriptionQuery::all();
    list.page.limit = Some(2);
    drop(all(&client, list).await);
    assert_eq!(pleo.requests().len() - before, 4, "a request for each page");
}

#[tokio::test]
async fn sorts_list() {
    let (_pleo, client, _) = start().await;
    let mut created = Vec::new();
    for status in [Status::Inactive, Status::Active, Status::Inactive] {
        let request = request().with_status(status);
        created.push(client.subscriptions().create(&request).await.unwrap().id);
    }
    let page = PageRequest::default()
        .with_limit(1)
        .with_sorting("status", SortOrder::Ascending)
        .with_sorting("createdAt", SortOrder::DescendingNullsLast);
    let list = SubscriptionQuery::all().with_page(page);
    assert_eq!(
        all(&client, list).await,
        [created[1], created[2], created[0]]
    );
}

#[tokio::test]
async fn next_call_after_error_requests_same_page() {
    let (pleo, ids, mut list) = start_list().await;
    let mut listed = Vec::new();
    let mut errors = Vec::new();
    // Each page fails twice, the first one too.
    let page = [Fault::status(503), Fault::status(401), Fault::None];
    pleo.fail_next([page.clone(), page.clone(), page].concat());
    loop {
        match list.next().await {
            Ok(Some(subscription)) => listed.push(subscription.id),
            Ok(None) => break,
            Err(error) => errors.push(error.status().unwrap().as_u16()),
        }
    }
    assert_eq!(listed, ids);
    assert_eq!(errors, [503, 401, 503, 401, 503, 401]);
    assert_eq!(list.next().await.unwrap(), None, "the end stays the end");
}

#[tokio::test]
async fn dropped_call_loses_no_entry() {
    let (pleo, ids, mut list) = start_list().await;
    for _ in 0..2 {
        list.next().await.unwrap();
    }
    let before = pleo.requests().len();
    pleo.fail_next([Fault::Silence]);
    let sent = async {
        while pleo.requests().len() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        entry = list.next() => panic!("{entry:?}"),
        () = sent => {}
    }
    assert_eq!(rest(list).await, ids[2..]);
}

#[tokio::test]
async fn continues_from_cursor_without_gap() {
    let (pleo, ids, mut list) = start_list().await;
    assert_eq!(list.cursor(), None);
    // The number of entries read, and of those that are skipped on continuation.
    for (read, skipped) in [(1, 0), (2, 2), (3, 2), (4, 4), (5, 5)] {
        list.next().await.unwrap();
        let page = match list.cursor() {
            Some(cursor) => PageRequest::after(cursor.clone()),
            None => PageRequest::default(),
        };
        let others = rest(list_from(&pleo, page)).await;
        assert_eq!(others, ids[skipped..], "after {read}");
    }
    let mut list = list_from(&pleo, PageRequest::default());
    list.next_page().await.unwrap();
    let cursor = list.cursor().unwrap().clone();
    pleo.fail_next([Fault::status(500)]);
    list.next().await.unwrap_err();
    assert_eq!(list.cursor(), Some(&cursor), "an error keeps it");
    let continued = list_from(&pleo, PageRequest::after(cursor.clone()));
    assert_eq!(continued.cursor(), Some(&cursor));
}

#[tokio::test]
async fn next_page_returns_rest_of_page() {
    let (_pleo, ids, mut list) = start_list().await;
    list.next().await.unwrap();
    let mut pages = Vec::new();
    while let Some(page) = list.next_page().await.unwrap() {
        pages.push(page.data.iter().map(|one| one.id).collect::<Vec<_>>());
    }
    assert_eq!(pages, [&ids[1..2], &ids[2..4], &ids[4..]]);
}

#[tokio::test]
async fn stream_ends_after_error() {
    let (pleo, ids, list) = start_list().await;
    assert_eq!(list.into_stream().count().await, ids.len());
    pleo.fail_next([Fault::None, Fault::status(500)]);
    let mut stream = list_from(&pleo, PageRequest::default()).into_stream();
    for id in &ids[..2] {
        assert_eq!(stream.next().await.unwrap().unwrap().id, *id);
    }
    assert!(stream.next().await.unwrap().is_err());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn empty_filter_selects_nothing() {
    let (pleo, client, company) = start().await;
    let id = client.subscriptions().create(&request()).await.unwrap().id;
    pleo.add_export_job(company);
    let requests = pleo.requests().len();
    let none = SubscriptionQuery::all().with_event_types([""; 0]);
    assert_eq!(
        client.subscriptions().list(none).next().await.unwrap(),
        None
    );
    let none = ActivityQuery::all().with_operation_types([]);
    let mut activities = client.subscriptions().activities(id, none);
    assert_eq!(activities.next().await.unwrap(), None);
    let none = ExportJobQuery::all().with_statuses([]);
    let mut jobs = client.export_jobs().list(none);
    assert!(jobs.next_page().await.unwrap().is_none());
    assert_eq!(pleo.requests().len(), requests, "nothing is requested");
}

#[tokio::test]
async fn endless_list_fails_after_limit() {
    const MAX_PAGES: usize = 10_000;
    let (pleo, client, company) = start().await;
    let job = pleo.add_export_job(company);
    pleo.answer_endless_lists();
    let mut jobs = client.export_jobs().list(ExportJobQuery::pending());
    for _ in 0..MAX_PAGES {
        let listed = jobs.next().await.unwrap().unwrap();
        assert_eq!(listed.json().get(), job.to_string());
    }
    for _ in 0..2 {
        let error = jobs.next().await.unwrap_err();
        let is_limit = matches!(
            error,
            Error::TooManyPages {
                pages: MAX_PAGES,
                ..
            }
        );
        assert!(is_limit, "{error:?}");
    }
    assert_eq!(pleo.requests().len(), MAX_PAGES);
    let rest = PageRequest::after(jobs.cursor().unwrap().clone());
    let mut rest = client
        .export_jobs()
        .list(ExportJobQuery::pending().with_page(rest));
    assert!(rest.next().await.unwrap().is_some(), "continues");
}
