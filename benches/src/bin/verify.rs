//! Measures the time of a verification as a multiple of the floor, and its allocations.
//!
//! `--quick` only tests that every contender returns the expected result. `--check` fails if a limit is
//! exceeded.

use std::process::ExitCode;

use pleo_benches::allocations::{self, Counting};
use pleo_benches::contenders::{self, Contender};
use pleo_benches::delivery::Delivery;
use pleo_benches::floor::Floor;
use pleo_benches::interleave::{self, Effort};
use pleo_benches::stats::{median, paired_ratio};
use pleo_benches::{BACKEND, Options};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BODIES: [(&str, usize); 4] = [
    ("300 B", 300),
    ("1 KiB", 1024),
    ("20 KiB", 20 * 1024),
    ("1 MiB", 1024 * 1024),
];

// The index of each contender in `contenders::all`.
const ONE_CALL: usize = 0;
const STREAMING: usize = 1;
const MAP_AND_CLOCK: usize = 2;
const SVIX: usize = 3;
const STANDARD_WEBHOOKS: usize = 4;

/// A limit and the measured value.
struct Limit {
    what: String,
    measured: f64,
    at_most: f64,
}

fn main() -> ExitCode {
    let options = Options::from_args();
    let effort = if options.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let floor = Floor::default();
    let contenders = contenders::all();
    let mut limits = Vec::new();

    println!("Backend: {BACKEND}. Time as a multiple of the floor.\n");
    print!("{:>7}{:>6}{:>9}{:>12}", "body", "sigs", "result", "floor");
    header(&contenders);
    for (label, len) in BODIES {
        for signatures in [1, 10] {
            for is_valid in [true, false] {
                let delivery = Delivery::new(len, signatures, is_valid);
                assert_eq!(
                    floor.verify(&delivery, &delivery.headers()),
                    is_valid,
                    "the floor's result"
                );
                let times = row(&floor, &contenders, &delivery, is_valid, effort);
                let (of_floor, times) = times.split_first().expect("the floor is the first");
                let result = if is_valid { "valid" } else { "invalid" };
                let nanoseconds = median(of_floor.clone());
                print!("{label:>7}{signatures:>6}{result:>9}{nanoseconds:>9.0} ns");
                for time in times {
                    print!("{:>18.3}", paired_ratio(time, of_floor));
                }
                println!();
                if is_valid && signatures == 1 {
                    limits.extend(limits_of_row(label, of_floor, times));
                }
            }
        }
    }

    rejects(&floor, &contenders, effort, &mut limits);
    count_allocations(&contenders, &mut limits);

    println!("\n{:<52}{:>9}{:>9}", "limit", "measured", "at most");
    let mut exceeded = 0;
    for limit in limits {
        let is_kept = limit.measured <= limit.at_most;
        exceeded += u32::from(!is_kept);
        let note = if is_kept { "" } else { "  EXCEEDED" };
        let Limit {
            what,
            measured,
            at_most,
        } = limit;
        println!("{what:<52}{measured:>9.3}{at_most:>9.3}{note}");
    }
    println!("{exceeded} limits exceeded");
    if options.check && exceeded > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Prints the names of the contenders.
fn header(contenders: &[Box<dyn Contender>]) {
    for contender in contenders {
        print!("{:>18}", contender.name());
    }
    println!();
}

/// Times the floor and every contender on one delivery.
fn row(
    floor: &Floor,
    contenders: &[Box<dyn Contender>],
    delivery: &Delivery,
    is_valid: bool,
    effort: Effort,
) -> Vec<Vec<f64>> {
    let mut entries: Vec<(&dyn Contender, &Delivery)> = vec![(floor, delivery)];
    for contender in contenders {
        let result = contender.verify(delivery, &delivery.headers());
        assert_eq!(result, is_valid, "{}", contender.name());
        entries.push((contender.as_ref(), delivery));
    }
    interleave::measure(&entries, effort)
}

fn limits_of_row(label: &str, floor: &[f64], times: &[Vec<f64>]) -> Vec<Limit> {
    // The streaming state is about 1.3 kB on ring, which is copied out of `begin`.
    let (of_floor, of_one_call) = match label {
        "300 B" => (1.15, 1.20),
        "1 KiB" => (1.05, 1.10),
        _ => (1.05, 1.03),
    };
    let mut limits = vec![
        Limit {
            what: format!("{label}: one call / floor"),
            measured: paired_ratio(&times[ONE_CALL], floor),
            at_most: of_floor,
        },
        Limit {
            what: format!("{label}: 4 KiB chunks / one call"),
            measured: paired_ratio(&times[STREAMING], &times[ONE_CALL]),
            at_most: of_one_call,
        },
    ];
    if matches!(label, "300 B" | "1 KiB") {
        for (peer, name) in [(SVIX, "svix"), (STANDARD_WEBHOOKS, "standardwebhooks")] {
            limits.push(Limit {
                what: format!("{label}: map and clock / {name}"),
                measured: paired_ratio(&times[MAP_AND_CLOCK], &times[peer]),
                at_most: 0.25,
            });
        }
    }
    limits
}

/// Measures deliveries that are rejected before hashing.
fn rejects(
    floor: &Floor,
    contenders: &[Box<dyn Contender>],
    effort: Effort,
    limits: &mut Vec<Limit>,
) {
    let valid = Delivery::new(1024, 1, true);
    println!("\nDeliveries rejected by their headers, as a multiple of the floor at 1 KiB.\n");
    print!("{:>34}", "");
    header(contenders);
    for (what, delivery) in [
        ("missing header", valid.clone().without_id()),
        ("stale timestamp", valid.clone().stale()),
        ("no v1 signature", valid.clone().without_v1()),
    ] {
        let mut entries: Vec<(&dyn Contender, &Delivery)> =
            vec![(floor, &valid), (contenders[ONE_CALL].as_ref(), &valid)];
        for contender in contenders {
            assert!(
                !contender.verify(&delivery, &delivery.headers()),
                "{}: {what}",
                contender.name()
            );
            entries.push((contender.as_ref(), &delivery));
        }
        let times = interleave::measure(&entries, effort);
        let [of_floor, of_valid, times @ ..] = &times[..] else {
            unreachable!("the floor and the valid delivery are the first two")
        };
        print!("{what:>34}");
        for time in times {
            print!("{:>18.3}", paired_ratio(time, of_floor));
        }
        println!();
        for (index, how) in [(ONE_CALL, "one call"), (STREAMING, "4 KiB chunks")] {
            limits.push(Limit {
                what: format!("{what}: {how} / valid delivery"),
                measured: paired_ratio(&times[index], of_valid),
                at_most: 0.1,
            });
        }
    }
}

/// Counts allocations per call.
fn count_allocations(contenders: &[Box<dyn Contender>], limits: &mut Vec<Limit>) {
    print!("\n{:>34}", "allocations per call");
    let deliveries = [
        Delivery::new(300, 1, true),
        Delivery::new(300, 10, false),
        Delivery::new(1024 * 1024, 1, true),
        Delivery::new(300, 1, true).stale(),
    ];
    for (index, contender) in contenders.iter().enumerate() {
        let counts = deliveries.iter().map(|delivery| {
            allocations::during(|| {
                std::hint::black_box(contender.verify(delivery, &delivery.headers()));
            })
        });
        let most = counts.max().unwrap_or_default();
        print!("{most:>18}");
        if index <= MAP_AND_CLOCK {
            limits.push(Limit {
                what: format!("{}: allocations per call", contender.name()),
                measured: if most == 0 { 0.0 } else { f64::INFINITY },
                at_most: 0.0,
            });
        }
    }
    println!();
}
