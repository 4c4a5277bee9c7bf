//! The tables `[retention]` and `[catch_up]`: tasks that a server runs on a schedule.

use core::time::Duration;
use std::path::PathBuf;

use pleo_receiver::State;
use serde::Deserialize;

use super::values::Span;

/// The default minimum age of an export job in a catch-up.
const MIN_AGE: Duration = Duration::from_secs(60);

/// The table `[retention]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    done: Option<Span>,
    dead: Option<Span>,
}

/// The table `[catch_up]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CatchUp {
    every: Option<Span>,
    min_age: Option<Span>,
}

/// The tasks that a server runs on a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    /// The states whose messages are deleted at this age.
    pub(crate) retention: Vec<(State, Duration)>,
    pub(crate) catch_up: Option<ScheduledCatchUp>,
}

/// A catch-up on a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScheduledCatchUp {
    pub(crate) every: Duration,
    /// Younger export jobs are skipped: their webhooks may still arrive.
    pub(crate) min_age: Duration,
    /// The configuration file. Each run reads it.
    pub(crate) config: PathBuf,
}

impl Retention {
    pub(super) fn ages(&self) -> Vec<(State, Duration)> {
        let ages = [(State::Done, self.done), (State::Dead, self.dead)];
        let ages = ages.into_iter();
        ages.filter_map(|(state, age)| Some((state, age?.0)))
            .collect()
    }
}

impl CatchUp {
    /// Returns the schedule, if there is one; an error if it has no interval.
    pub(super) fn schedule(
        &self,
        config: PathBuf,
    ) -> Result<Option<ScheduledCatchUp>, &'static str> {
        match self.every {
            None => Ok(None),
            Some(every) if every.0.is_zero() => Err("it must be longer than zero, such as \"15m\""),
            Some(every) => Ok(Some(ScheduledCatchUp {
                every: every.0,
                min_age: self.min_age.map_or(MIN_AGE, |age| age.0),
                config,
            })),
        }
    }
}
