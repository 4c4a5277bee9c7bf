//! How the receiver does beside a bare hyper server that reads the body and answers 204.
//!
//! Servers are processes of their own and share the machine's processors with the load. Contenders
//! get the same signed requests in turn, several rounds; a share is the median over the rounds of a
//! contender's rate divided by the bare server's in the same round.
//!
//! Arguments: the scenarios to run (all unless some are named); `--quick` makes each a matter of
//! seconds, to see that it works; `--check` fails where a mark is missed.

mod forgetful;
mod load;
mod marks;
mod scenario;
mod server;

use std::process::ExitCode;

use marks::Marks;
use scenario::{dispatch, endpoints, growth, latency, start, throughput};

type Scenario = fn(&mut Marks, bool);

const SCENARIOS: [(&str, Scenario); 6] = [
    ("throughput", throughput::run),
    ("latency", latency::run),
    ("start", start::run),
    ("dispatch", dispatch::run),
    ("growth", growth::run),
    ("endpoints", endpoints::run),
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
            name => match SCENARIOS.iter().find(|(known, _)| *known == name) {
                Some(scenario) => chosen.push(*scenario),
                None => {
                    let names = SCENARIOS.map(|(name, _)| name).join(", ");
                    eprintln!("{name}: unknown; there are --quick, --check, {names}");
                    return ExitCode::from(2);
                }
            },
        }
    }
    if chosen.is_empty() {
        chosen = SCENARIOS.to_vec();
    }
    let mut marks = Marks::default();
    for (name, run) in chosen {
        println!("\n{name}");
        run(&mut marks, quick);
    }
    ExitCode::from(u8::from(check && marks.missed))
}
