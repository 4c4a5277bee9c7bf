//! The values of arguments.

use core::str::FromStr;
use std::net::SocketAddr;

use clap::ValueEnum;
use jiff::{Span, SpanRelativeTo, Timestamp};

/// A time, or an age.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeOrAge(pub(crate) Timestamp);

impl FromStr for TimeOrAge {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ago = || {
            let days = SpanRelativeTo::days_are_24_hours();
            let age = text.parse::<Span>().ok()?.to_duration(days).ok()?;
            let age = Some(age).filter(|age| !age.is_negative())?;
            Timestamp::now().checked_sub(age).ok()
        };
        let time = text.parse().ok().or_else(ago).map(Self);
        time.ok_or("give a time such as 2026-11-24T08:00:00Z, or an age such as 30d or 12h")
    }
}

/// The state of a message.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum State {
    Pending,
    Done,
    Dead,
}

/// The state of a message that has no attempt left.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Finished {
    Done,
    Dead,
}

/// Parses an address to listen on.
pub(crate) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let fix = "give an IP address and a port, such as 127.0.0.1:8787, or 0.0.0.0:8787 to listen on \
               every interface";
    text.parse().map_err(|_| fix)
}
