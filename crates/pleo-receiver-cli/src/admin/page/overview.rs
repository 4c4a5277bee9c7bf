//! The overview: rates, backlog, counts by endpoint, dead letters, rejections and readiness.

use core::time::Duration;
use std::collections::BTreeMap;

use http::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use pleo_receiver::{EndpointStats, Inbox, InboxError, Query, Selection};
use tokio::time;

use super::Page;
use super::chart::{Chart, Series};
use super::form::link;
use super::history::{Minute, OUTCOMES};
use super::layout::{countdown, duration, number, page, time as show_time, token};
use super::messages::SHOWN;
use super::session::Session;
use crate::admin::Body;
use crate::admin::readiness::Check;
use crate::escape::escape;

/// How many dead letters are grouped by error: the newest.
const DEAD: usize = 200;

/// How many groups and sources are shown.
const GROUPS: usize = 10;

/// How many characters of an error are compared and shown.
const ERROR: usize = 120;

/// The maximum time to read the inbox.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

const DELIVERIES: [Series; 4] = [
    series(OUTCOMES[0], "good"),
    series(OUTCOMES[1], "known"),
    series(OUTCOMES[2], "warn"),
    series(OUTCOMES[3], "bad"),
];

const fn series(name: &'static str, class: &'static str) -> Series {
    Series { name, class }
}

/// Responds with the overview.
pub(super) async fn respond(admin: &Page, session: &Session) -> Response<Body> {
    let now = Timestamp::now();
    let stats = time::timeout(TIMEOUT, admin.receiver.inbox().stats());
    let dead = time::timeout(TIMEOUT, dead_errors(&**admin.receiver.inbox()));
    let (checks, stats, dead) = tokio::join!(admin.readiness.checks(), stats, dead);
    let stats = stats.ok().and_then(Result::ok);
    let dead = dead.ok().and_then(Result::ok);
    let content = html! {
        div.title {
            h1 { "Overview" }
            (readiness(&checks))
        }
        div id="refreshed" data-refresh {
            (charts(admin, now))
            @match &stats {
                Some(stats) => (counts(admin, stats, session, now)),
                None => p.alert role="alert" { "The inbox did not respond; see the log." }
            }
            div.columns {
                section aria-labelledby="dead" {
                    h2 id="dead" { "Dead letters by error" }
                    @match dead {
                        Some((errors, has_more)) => (dead_letters(&errors, has_more)),
                        None => p { "The inbox did not respond." }
                    }
                }
                section aria-labelledby="rejections" {
                    h2 id="rejections" { "Rejections of the last hour" }
                    (rejections(admin, now))
                }
            }
            section aria-labelledby="checks" {
                h2 id="checks" { "Readiness" }
                ul.checks {
                    @for (name, check) in &checks {
                        @let (Ok(reason) | Err(reason)) = check;
                        li {
                            span.state.(if check.is_ok() { "done" } else { "dead" }) {
                                @if check.is_ok() { "ok" } @else { "failed" }
                            }
                            " " b { (name) } ": " (escape(reason))
                        }
                    }
                }
            }
        }
    };
    page("/", "Overview", session, &content)
}

fn readiness(checks: &[(&'static str, Check)]) -> Markup {
    let is_ready = checks.iter().all(|(_, check)| check.is_ok());
    html! {
        @if is_ready {
            span.state.done { "ready" }
        } @else {
            a.state.dead href="#checks" { "not ready" }
        }
    }
}

fn charts(admin: &Page, now: Timestamp) -> Markup {
    let minutes = admin.history.minutes(now);
    let deliveries = |minute: &Minute| (minute.number, minute.deliveries.to_vec());
    let deliveries: Vec<_> = minutes.iter().map(deliveries).collect();
    let backlog = |minute: &Minute| Some((minute.number, vec![minute.backlog?]));
    let backlog: Vec<_> = minutes.iter().filter_map(backlog).collect();
    let last = now.as_second().div_euclid(60);
    html! {
        div.columns {
            (Chart {
                id: "deliveries",
                title: "Deliveries a minute",
                series: &DELIVERIES,
                minutes: &deliveries,
                last,
                unit: "a minute",
            }.markup())
            (Chart {
                id: "backlog",
                title: "Backlog: pending messages",
                series: &[series("pending", "open")],
                minutes: &backlog,
                last,
                unit: "messages",
            }.markup())
        }
        p.note { "Counted in memory every 5 seconds since " (show_time(admin.history.started_at)) ", for one hour." }
    }
}

fn counts(admin: &Page, stats: &[EndpointStats], session: &Session, now: Timestamp) -> Markup {
    let sum = |count: fn(&EndpointStats) -> u64| stats.iter().map(count).sum::<u64>();
    let oldest = stats.iter().filter_map(|stats| stats.oldest_pending).max();
    let expiry = stats.iter().filter_map(|stats| stats.nearest_expiry).min();
    let endpoints = admin.receiver.endpoints();
    let path = |name: &str| {
        let endpoint = endpoints.iter().find(|endpoint| &**endpoint.name() == name);
        endpoint.map(|endpoint| endpoint.path().to_owned())
    };
    // Configured endpoints without messages have no statistics.
    let mut rows: BTreeMap<_, _> = endpoints
        .iter()
        .map(|endpoint| (endpoint.name().to_string(), None))
        .collect();
    rows.extend(
        stats
            .iter()
            .map(|stats| (stats.endpoint.to_string(), Some(stats))),
    );
    html! {
        section aria-labelledby="counts" {
            h2 id="counts" { "Messages" }
            dl.facts {
                (fact("Ready", &number(sum(|stats| stats.ready)), Some("/messages?state=pending")))
                (fact("In progress", &number(sum(|stats| stats.leased)), None))
                (fact("Scheduled", &number(sum(|stats| stats.scheduled)), None))
                (fact("Done", &number(sum(|stats| stats.done)), Some("/messages?state=done")))
                (fact("Dead", &number(sum(|stats| stats.dead)), Some("/messages?state=dead")))
                (fact("Oldest pending", &oldest.map_or_else(|| "none".to_owned(), duration), None))
                div {
                    dt { "Nearest expiry" }
                    dd { @match expiry { Some(at) => (countdown(at, now)), None => "none" } }
                }
                (fact("Expired, pending", &number(sum(|stats| stats.expired)), None))
            }
        }
        section aria-labelledby="endpoints" {
            h2 id="endpoints" { "Endpoints" }
            div.scroll tabindex="0" role="region" aria-labelledby="endpoints" {
                table.wide.stacked {
                    thead {
                        tr {
                            th scope="col" { "Endpoint" }
                            th scope="col" { "Dispatch" }
                            th.number scope="col" { "Pending" }
                            th.number scope="col" { "Done" }
                            th.number scope="col" { "Dead" }
                            th scope="col" { "Last delivery" }
                            @if session.account.may_act { th scope="col" { "Action" } }
                        }
                    }
                    tbody {
                        @for (name, stats) in &rows {
                            @let none = EndpointStats::new("");
                            @let row = stats.unwrap_or(&none);
                            tr {
                                th scope="row" {
                                    a href=(link("/messages", [("endpoint", &**name)])) { (escape(name)) }
                                    @match path(name) {
                                        Some(path) => @if path != *name { " at " code { (escape(&path)) } },
                                        None => " (not configured)",
                                    }
                                }
                                td data-label="Dispatch" {
                                    @if row.paused { span.state.pending { "paused" } }
                                    @else { span.state.done { "active" } }
                                }
                                td.number data-label="Pending" { (number(row.pending())) }
                                td.number data-label="Done" { (number(row.done)) }
                                td.number data-label="Dead" { (number(row.dead)) }
                                td data-label="Last delivery" { @match row.delivered_at { Some(at) => (show_time(at)), None => "none" } }
                                @if session.account.may_act { td data-label="Action" { (pause(name, row.paused, session)) } }
                            }
                        }
                    }
                }
            }
            (handler(admin, now))
        }
    }
}

fn fact(name: &str, value: &str, target: Option<&str>) -> Markup {
    html! {
        div {
            dt { (name) }
            dd { @if let Some(target) = target { a href=(target) { (value) } } @else { (value) } }
        }
    }
}

fn pause(endpoint: &str, paused: bool, session: &Session) -> Markup {
    let (action, verb) = if paused {
        ("/resume", "Resume")
    } else {
        ("/pause", "Pause")
    };
    html! {
        form method="post" action=(action) {
            (token(session))
            input type="hidden" name="endpoint" value=(endpoint);
            button { (verb) span.hidden { " " (escape(endpoint)) } }
        }
    }
}

fn handler(admin: &Page, now: Timestamp) -> Markup {
    let mut attempts = [0; 4];
    for minute in admin.history.minutes(now) {
        for (sum, count) in attempts.iter_mut().zip(minute.attempts) {
            *sum += count;
        }
    }
    let [done, retry, dead, lost] = attempts.map(number);
    html! {
        p {
            b { "Handler: " }
            @match admin.handler() { Some(kind) => code { (kind) }, None => "none; messages stay pending" }
            ". Attempts of the last hour: " (done) " done, " (retry) " to retry, " (dead) " dead, "
            (lost) " lost."
        }
    }
}

/// Returns the errors of the newest dead letters, and whether there are more.
async fn dead_errors(inbox: &dyn Inbox) -> Result<(Vec<String>, bool), InboxError> {
    // Types and ids may be long: few messages are in memory at a time.
    let mut query = Query::new(Selection::dead(), SHOWN).newest_first();
    let mut errors = Vec::new();
    loop {
        let page = inbox.list(query.clone()).await?;
        errors.extend(page.entries.into_iter().map(|entry| {
            let error = entry.last_error.unwrap_or_default();
            let line = error.trim().lines().next();
            let line = line.unwrap_or("no error recorded");
            line.chars().take(ERROR).collect::<String>()
        }));
        query.after = page.next;
        if page.next.is_none() || errors.len() >= DEAD {
            return Ok((errors, page.next.is_some()));
        }
    }
}

fn dead_letters(errors: &[String], has_more: bool) -> Markup {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for error in errors {
        *groups.entry(error).or_default() += 1;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, count)| usize::MAX - count);
    html! {
        @if groups.is_empty() { p { "None." } }
        @if has_more { p.note { "Of the newest " (DEAD) " dead letters." } }
        ul.groups {
            @for (error, count) in groups.iter().take(GROUPS) {
                li { b { (count) } " " (escape(error)) }
            }
        }
        @if groups.len() > GROUPS { p.note { "And " (groups.len() - GROUPS) " other errors." } }
        @if !groups.is_empty() { p { a href="/messages?state=dead" { "Show dead letters" } } }
    }
}

fn rejections(admin: &Page, now: Timestamp) -> Markup {
    let rejections = admin.history.rejections(now);
    html! {
        @if rejections.is_empty() { p { "None." } }
        ul.groups {
            @for rejection in &rejections {
                li {
                    b { (number(rejection.count)) } " " code { (rejection.code) } " from "
                    @for (index, (source, count)) in rejection.sources.iter().take(GROUPS).enumerate() {
                        @if index > 0 { ", " }
                        @match source { Some(source) => (source), None => "other sources" }
                        @if rejection.sources.len() > 1 { " (" (number(*count)) ")" }
                    }
                    @if rejection.sources.len() > GROUPS {
                        " and " (rejection.sources.len() - GROUPS) " more"
                    }
                }
            }
        }
    }
}
