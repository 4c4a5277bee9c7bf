//! How long a verification takes, as a multiple of the floor, and how often it allocates.
//!
//! `--quick` only sees that every contender gives the right verdict; `--check` fails where a mark
//! is missed.

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

// Where each contender stands in `contenders::all`.
const ONE_SHOT: usize = 0;
const STREAMING: usize = 1;
const MAP_AND_CLOCK: usize = 2;
const SVIX: usize = 3;
const STANDARD_WEBHOOKS: usize = 4;

/// A promise, and what became of it.
struct Mark {
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
    let mut marks = Vec::new();

    println!("The verifier on {BACKEND}. Time as a multiple of the floor's.\n");
    print!("{:>7}{:>6}{:>9}{:>12}", "body", "sigs", "verdict", "floor");
    header(&contenders);
    for (label, len) in BODIES {
        for signatures in [1, 10] {
            for genuine in [true, false] {
                let delivery = Delivery::new(len, signatures, genuine);
                assert_eq!(floor.verify(&delivery), genuine, "the floor's verdict");
                let times = row(&floor, &contenders, &delivery, genuine, effort);
                let (of_floor, times) = times.split_first().expect("the floor is the first");
                let verdict = if genuine { "valid" } else { "invalid" };
                let nanoseconds = median(of_floor.clone());
                print!("{label:>7}{signatures:>6}{verdict:>9}{nanoseconds:>9.0} ns");
                for time in times {
                    print!("{:>18.3}", paired_ratio(time, of_floor));
                }
                println!();
                if genuine && signatures == 1 {
                    marks.extend(marks_of_row(label, of_floor, times));
                }
            }
        }
    }

    rejects(&floor, &contenders, effort, &mut marks);
    allocated(&contenders, &mut marks);

    println!("\n{:<52}{:>9}{:>9}", "mark", "measured", "at most");
    let mut missed = 0;
    for mark in marks {
        let reached = mark.measured <= mark.at_most;
        missed += u32::from(!reached);
        let verdict = if reached { "" } else { "  MISSED" };
        let Mark {
            what,
            measured,
            at_most,
        } = mark;
        println!("{what:<52}{measured:>9.3}{at_most:>9.3}{verdict}");
    }
    println!("{missed} marks missed");
    if options.check && missed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

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
    genuine: bool,
    effort: Effort,
) -> Vec<Vec<f64>> {
    let mut entries: Vec<(&dyn Contender, &Delivery)> = vec![(floor, delivery)];
    for contender in contenders {
        let verdict = contender.verify(delivery);
        assert_eq!(verdict, genuine, "{}", contender.name());
        entries.push((contender.as_ref(), delivery));
    }
    interleave::measure(&entries, effort)
}

fn marks_of_row(label: &str, floor: &[f64], times: &[Vec<f64>]) -> Vec<Mark> {
    let small = label == "300 B";
    let mut marks = vec![
        Mark {
            what: format!("{label}: one-shot / floor"),
            measured: paired_ratio(&times[ONE_SHOT], floor),
            at_most: if small { 1.10 } else { 1.05 },
        },
        Mark {
            what: format!("{label}: 4 KiB pieces / one-shot"),
            measured: paired_ratio(&times[STREAMING], &times[ONE_SHOT]),
            at_most: 1.03,
        },
    ];
    if small || label == "1 KiB" {
        for (peer, name) in [(SVIX, "svix"), (STANDARD_WEBHOOKS, "standardwebhooks")] {
            marks.push(Mark {
                what: format!("{label}: map and clock / {name}"),
                measured: paired_ratio(&times[MAP_AND_CLOCK], &times[peer]),
                at_most: 0.25,
            });
        }
    }
    marks
}

/// What is refused before anything is hashed must cost next to nothing.
fn rejects(
    floor: &Floor,
    contenders: &[Box<dyn Contender>],
    effort: Effort,
    marks: &mut Vec<Mark>,
) {
    let whole = Delivery::new(1024, 1, true);
    println!(
        "\nRefused without a look at the body of 1 KiB, as a multiple of the floor for all of it.\n"
    );
    print!("{:>34}", "");
    header(contenders);
    for (what, delivery) in [
        ("missing header", whole.clone().without_id()),
        ("stale timestamp", whole.clone().stale()),
        ("unusable signature list", whole.clone().without_v1()),
    ] {
        let mut entries: Vec<(&dyn Contender, &Delivery)> =
            vec![(floor, &whole), (contenders[ONE_SHOT].as_ref(), &whole)];
        for contender in contenders {
            assert!(!contender.verify(&delivery), "{}: {what}", contender.name());
            entries.push((contender.as_ref(), &delivery));
        }
        let times = interleave::measure(&entries, effort);
        let [of_floor, of_whole, times @ ..] = &times[..] else {
            unreachable!("the floor and a full check are the first two")
        };
        print!("{what:>34}");
        for time in times {
            print!("{:>18.3}", paired_ratio(time, of_floor));
        }
        println!();
        for (index, way) in [(ONE_SHOT, "one-shot"), (STREAMING, "4 KiB pieces")] {
            marks.push(Mark {
                what: format!("{what}: {way} / full check"),
                measured: paired_ratio(&times[index], of_whole),
                at_most: 0.1,
            });
        }
    }
}

fn allocated(contenders: &[Box<dyn Contender>], marks: &mut Vec<Mark>) {
    print!("\n{:>34}", "allocations a call");
    let deliveries = [
        Delivery::new(300, 1, true),
        Delivery::new(300, 10, false),
        Delivery::new(1024 * 1024, 1, true),
        Delivery::new(300, 1, true).stale(),
    ];
    for (index, contender) in contenders.iter().enumerate() {
        let counts = deliveries.iter().map(|delivery| {
            allocations::during(|| {
                std::hint::black_box(contender.verify(delivery));
            })
        });
        let most = counts.max().unwrap_or_default();
        print!("{most:>18}");
        if index <= MAP_AND_CLOCK {
            marks.push(Mark {
                what: format!("{}: allocations a call", contender.name()),
                measured: if most == 0 { 0.0 } else { f64::INFINITY },
                at_most: 0.0,
            });
        }
    }
    println!();
}
