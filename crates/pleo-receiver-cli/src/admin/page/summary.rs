//! The summary of a known event for humans.

use jiff::Timestamp;
use maud::{Markup, html};
use pleo_receiver::events::{Envelope, Event, ExportJob, Vendor};

use super::layout::{countdown, cut, number, time};

/// How many characters of a value are shown.
const VALUE: usize = 256;

/// Returns the facts of an event; `None` if its type is unknown or its body doesn't fit.
pub(super) fn markup(body: &[u8], now: Timestamp) -> Option<Markup> {
    let envelope = Envelope::parse(body).ok()?;
    match envelope.event().ok()? {
        Event::ExportJobCreated(job) => Some(export_job(&job, now)),
        Event::VendorCreated(vendor) => Some(self::vendor(&vendor)),
        _ => None,
    }
}

fn export_job(job: &ExportJob, now: Timestamp) -> Markup {
    html! {
        p {
            "An export of " b { (number(job.number_of_items)) }
            @if job.number_of_items == 1 { " entry" } @else { " entries" }
            ", created " (time(job.created_at))
            @if let Some(at) = job.expires_at() { ", expires " (countdown(at, now)) }
            "."
        }
        dl.facts {
            (fact("Job", Some(&job.id.to_string())))
            (fact("Company", Some(&job.company_id.to_string())))
            (fact("Status", Some(job.status.as_str())))
            (fact("Created by", job.created_by.map(|id| id.to_string()).as_deref()))
            (fact("Failure", job.failure_reason.as_deref()))
        }
    }
}

fn vendor(vendor: &Vendor) -> Markup {
    html! {
        p {
            "The vendor " b { (cut(&vendor.name, VALUE)) }
            @if let Some(at) = vendor.created_at { ", created " (time(at)) }
            "."
        }
        dl.facts {
            (fact("Vendor", Some(&vendor.id.to_string())))
            (fact("Company", Some(&vendor.company_id.to_string())))
            (fact("State", Some(vendor.state.as_str())))
            (fact("Currency", Some(&vendor.default_currency)))
            (fact("Country", vendor.country.as_deref()))
            (fact("Registration number", vendor.registration_number.as_deref()))
            (fact("Tax number", vendor.tax_registration_number.as_deref()))
            (fact("Code", vendor.code.as_deref()))
            (fact("External id", vendor.external_id.as_deref()))
            (fact("Accounting system", vendor.accounting_system.as_deref()))
        }
    }
}

fn fact(name: &str, value: Option<&str>) -> Markup {
    html! { @if let Some(value) = value { div { dt { (name) } dd { (cut(value, VALUE)) } } } }
}
