//! The filter of the messages.

use std::collections::BTreeSet;

use jiff::Timestamp;
use maud::{Markup, html};
use pleo_receiver::events::EventType;
use pleo_receiver::{Inbox, InboxError, Query, Selection, State};

use super::form::{Form, link};
use crate::escape::escape;

const FIELDS: [&str; 6] = ["state", "type", "endpoint", "since", "until", "q"];

const STATES: [(&str, &str); 4] = [
    ("", "any"),
    ("pending", "pending"),
    ("done", "done"),
    ("dead", "dead"),
];

/// What the filter's form says.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    form: Form,
    selection: Selection,
    /// The parameters that could not be read.
    invalid: Vec<&'static str>,
}

impl Filter {
    pub(super) fn new(form: Form) -> Self {
        let mut selection = Selection::all();
        let mut invalid = Vec::new();
        selection.state = match form.get("state") {
            "" => None,
            "pending" => Some(State::Pending),
            "done" => Some(State::Done),
            "dead" => Some(State::Dead),
            _ => {
                invalid.push("state");
                None
            }
        };
        selection.event_type = form.some("type").map(str::to_owned);
        selection.endpoint = form.some("endpoint").map(str::to_owned);
        let mut time = |name| {
            let text = form.some(name)?;
            let at = parse_time(text);
            if at.is_none() {
                invalid.push(name);
            }
            at
        };
        selection.since = time("since");
        selection.until = time("until");
        Self {
            form,
            selection,
            invalid,
        }
    }

    /// Returns the text that is searched.
    pub(super) fn search(&self) -> Option<&str> {
        self.form.some("q")
    }

    /// Returns the selection; for a search, by the id that has messages: the message id, the event id
    /// or the resource id.
    pub(super) async fn selection(&self, inbox: &dyn Inbox) -> Result<Selection, InboxError> {
        let Some(id) = self.search() else {
            return Ok(self.selection.clone());
        };
        let mut by_id = [(); 3].map(|()| self.selection.clone());
        let [message, event, resource] = &mut by_id;
        message.webhook_id = Some(id.to_owned());
        event.event_id = Some(id.to_owned());
        resource.resource_id = Some(id.to_owned());
        let [message, event, resource] = by_id;
        for selection in [&message, &event] {
            let found = inbox.list(Query::new(selection.clone(), 1)).await?;
            if !found.entries.is_empty() {
                return Ok(selection.clone());
            }
        }
        Ok(resource)
    }

    /// Returns `true` if all messages are selected.
    pub(super) fn is_empty(&self) -> bool {
        FIELDS.iter().all(|field| self.form.get(field).is_empty())
    }

    /// Returns what is wrong with the filter: a parameter that would otherwise select everything.
    pub(super) fn error(&self) -> Option<String> {
        let names = self.invalid.join(", ");
        (!names.is_empty()).then(|| format!("The filter is invalid: correct {names}."))
    }

    /// Returns the parameters that are set.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = FIELDS.iter();
        fields.filter_map(|field| Some((*field, self.form.some(field)?)))
    }

    /// Returns a link with this filter and another parameter.
    pub(super) fn link<'a>(&'a self, path: &str, more: Option<(&'a str, &'a str)>) -> String {
        link(path, self.parameters().chain(more))
    }

    /// The form. `endpoints` are offered.
    pub(super) fn markup(&self, endpoints: &BTreeSet<String>) -> Markup {
        let value = |name| self.form.get(name);
        let more = ["type", "endpoint", "since", "until"];
        let has_more = more.iter().any(|name| self.form.some(name).is_some());
        html! {
            form.filter method="get" action="/messages" role="search" aria-label="Messages" {
                p {
                    label for="q" { "Id" }
                    input id="q" type="search" name="q" value=(value("q")) maxlength="256"
                        placeholder="message, event or resource id" autocomplete="off" spellcheck="false";
                    @let shown = escape(value("q"));
                    @if shown != value("q") { span.note { "It has characters that are not shown: " code { (shown) } } }
                }
                p {
                    label for="state" { "State" }
                    select id="state" name="state" {
                        @for (state, name) in STATES {
                            option value=(state) selected[value("state") == state] { (name) }
                        }
                    }
                }
                p.buttons {
                    button.main { "Filter" }
                    @if !self.is_empty() { a.button href="/messages" { "Clear" } }
                }
                details open[has_more] {
                    summary { "Type, endpoint and time" }
                    div {
                        p {
                            label for="type" { "Event type" }
                            input id="type" name="type" value=(value("type")) list="types" autocomplete="off" spellcheck="false";
                            datalist id="types" {
                                @for spelling in EventType::KNOWN.iter().flat_map(|known| known.spellings()) {
                                    option value=(spelling) {}
                                }
                            }
                        }
                        p {
                            label for="endpoint" { "Endpoint" }
                            select id="endpoint" name="endpoint" {
                                option value="" { "any" }
                                @for endpoint in endpoints {
                                    option value=(endpoint) selected[value("endpoint") == endpoint] { (escape(endpoint)) }
                                }
                            }
                        }
                        @for (name, label) in [("since", "From (UTC)"), ("until", "Before (UTC)")] {
                            @let is_invalid = self.invalid.contains(&name);
                            p {
                                label for=(name) { (label) }
                                input id=(name) name=(name) type="datetime-local" step="1" value=(value(name))
                                    aria-invalid=[is_invalid.then_some("true")];
                                @if is_invalid { span.alert role="alert" { "Not a time, as 2026-11-26T09:30" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Parses a time of the form, in UTC: `2026-11-26T09:30`.
fn parse_time(text: &str) -> Option<Timestamp> {
    format!("{text}Z").parse().ok()
}
