//! Compares the receiver with a bare hyper server that reads the body and answers 204.
//!
//! Each server is a separate process on the same machine as the load generator. In each round, every
//! server gets the same signed requests. The relative rate is the rate of a server divided by that of
//! the bare server in the same round; the median over all rounds is reported.
//!
//! Arguments: the scenarios to run (default: all). `--quick` runs each for a few seconds, as a smoke
//! test. `--check` fails if a target is missed.

mod discarding_inbox;
mod insert_server;
mod load;
#[path = "../../../crates/pleo-receiver/tests/it/support/postgres.rs"]
mod postgres_server;
mod scenario;
mod server;
mod targets;

use std::process::ExitCode;

use scenario::{dispatch, endpoints, growth, latency, postgres, start, throughput};
use targets::Targets;

type Scenario = fn(&mut Targets, bool);

const SCENARIOS: [(&str, Scenario); 12] = [
    ("throughput", throughput::run),
    ("latency", latency::run),
    ("start", start::run),
    ("dispatch", dispatch::run),
    ("growth", growth::run),
    ("endpoints", endpoints::run),
    (
        "postgres-throughput-64",
        postgres::throughput::with_few_connections,
    ),
    (
        "postgres-throughput-1000",
        postgres::throughput::with_many_connections,
    ),
    ("postgres-latency", postgres::latency::run),
    ("postgres-dispatch", postgres::dispatch::run),
    ("postgres-growth", postgres::growth::run),
    ("postgres-bloat", postgres::bloat::run),
];

fn main() -> ExitCode {
    let (mut quick, mut check, mut chosen) = (false, false, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => quick = true,
            "--check" => check = true,
            "--serve" => {
                server::run(&args.next().unwrap_or_default());
                return ExitCode::SUCCESS;
            }
            name => match SCENARIOS.iter().find(|scenario| scenario.0 == name) {
                Some(scenario) => chosen.push(*scenario),
                None => {
                    let names = SCENARIOS.map(|(name, _)| name).join(", ");
                    eprintln!("unknown argument `{name}`; use --quick, --check, {names}");
                    return ExitCode::from(2);
                }
            },
        }
    }
    if chosen.is_empty() {
        chosen = SCENARIOS.to_vec();
    }
    let mut targets = Targets::default();
    for (name, run) in chosen {
        println!("\n{name}");
        run(&mut targets, quick);
    }
    ExitCode::from(u8::from(check && targets.missed))
}
