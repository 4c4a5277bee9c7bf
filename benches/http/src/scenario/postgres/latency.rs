//! Measures the response time at half of the receiver's maximum rate.

use crate::scenario::latency::measure;
use crate::server::Contender;
use crate::targets::Targets;

pub fn run(targets: &mut Targets, quick: bool) {
    if let Some(database) = super::database() {
        measure(targets, quick, Contender::Postgres, &database.url("bench"));
    }
}
