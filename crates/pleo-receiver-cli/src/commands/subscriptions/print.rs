//! How subscriptions are shown. Only `secret` shows anything secret.

use std::io::{self, Write};

use pleo_api::{Activity, Subscription};
use serde::Serialize;
use serde_json::Value;

use crate::pleo::plain;
use crate::pleo::plan::OWNER;

/// What is listed: a line of a table, or a JSON object.
pub(crate) trait Row: Serialize {
    const HEAD: &'static str;

    fn line(&self) -> String;
}

impl Row for Subscription {
    const HEAD: &'static str =
        "ID                                   STATUS   ENDPOINT URL AND EVENT TYPES";

    fn line(&self) -> String {
        let (id, status) = (self.id, self.status.as_str());
        let types = self.event_types.join(" ");
        plain(&format!("{id} {status:8} {} {types}", self.endpoint_url))
    }
}

impl Row for Activity {
    const HEAD: &'static str = "AT                   OPERATION BY";

    fn line(&self) -> String {
        let at = format!("{:.0}", self.created_at);
        let (operation, actor) = (self.operation_type.as_str(), self.actor_urn.as_deref());
        plain(&format!("{at:20} {operation:9} {}", actor.unwrap_or("-")))
    }
}

/// Prints a list, entry by entry.
pub(crate) struct List {
    json: bool,
    started: bool,
}

impl List {
    pub(crate) const fn new(json: bool) -> Self {
        Self {
            json,
            started: false,
        }
    }

    pub(crate) fn print(&mut self, row: &impl Row) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            return writeln!(out, "{}", shown(row));
        }
        self.head(row)?;
        writeln!(out, "{}", row.line())
    }

    /// Says so where there was nothing to print.
    pub(crate) fn end(self) -> io::Result<()> {
        if self.json || self.started {
            return Ok(());
        }
        writeln!(io::stderr().lock(), "Pleo has none that fits")
    }

    fn head<R: Row>(&mut self, _: &R) -> io::Result<()> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        writeln!(io::stdout().lock(), "{}", R::HEAD)
    }
}

/// Prints one subscription, field by field.
pub(crate) fn one(subscription: &Subscription, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let value = shown(subscription);
    if json {
        return writeln!(out, "{value}");
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        writeln!(out, "{:13} {}", plain(name), plain(&text))?;
    }
    Ok(())
}

/// As JSON, without the values of headers and credentials.
pub(crate) fn shown(row: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(row).unwrap_or_default();
    for pointer in ["/customHeaders", "/endpointAuth/credentials"] {
        let map = value.pointer_mut(pointer).and_then(Value::as_object_mut);
        for (name, value) in map.into_iter().flatten() {
            if name != OWNER {
                *value = "(not shown)".into();
            }
        }
    }
    value
}
