//! How many requests per second the receiver takes, as a share of what a bare hyper server does that
//! reads the body and answers 204.
//!
//! All contenders get the same signed requests over keep-alive connections, in turn, several rounds;
//! what is printed is the median over the rounds of each one's rate as a share of the bare server's
//! in the same round. Load and server share the machine's processors. `--quick` makes it a matter of
//! seconds; `--check` fails where a mark is missed.

mod load;
mod servers;

use std::process::ExitCode;

use load::Requests;
use servers::Contender;

const CONNECTIONS: usize = 64;

/// Share of the bare server's rate that a contender promises.
const MARKS: [(Contender, f64); 2] = [(Contender::Memory, 0.85), (Contender::Sqlite, 0.35)];

fn main() -> ExitCode {
    let (mut quick, mut check) = (false, false);
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--quick" => quick = true,
            "--check" => check = true,
            _ => {
                eprintln!("{arg}: unknown; there are --quick and --check");
                return ExitCode::from(2);
            }
        }
    }
    let (rounds, count) = if quick { (2, 2_000) } else { (11, 60_000) };
    let rising = Requests::new(count, |number| format!("msg_{number:027}"));
    let random = Requests::new(count, load::scattered_id);
    println!(
        "{CONNECTIONS} connections, {count} requests of {} bytes each\n",
        rising.body_len()
    );

    let mut shares = vec![Vec::new(); Contender::ALL.len()];
    let mut rates = shares.clone();
    for _ in 0..rounds {
        let mut bare = None;
        for (index, contender) in Contender::ALL.into_iter().enumerate() {
            let requests = if contender == Contender::SqliteScattered {
                &random
            } else {
                &rising
            };
            let rate = servers::measure(contender, requests, CONNECTIONS);
            let bare = *bare.get_or_insert(rate);
            shares[index].push(rate / bare);
            rates[index].push(rate);
        }
    }
    println!("{:<44}{:>14}{:>14}", "", "share of bare", "requests/s");
    for (index, contender) in Contender::ALL.into_iter().enumerate() {
        let (share, rate) = (median(&mut shares[index]), median(&mut rates[index]));
        println!("{:<44}{share:>14.2}{rate:>14.0}", contender.what());
    }
    let mut missed = false;
    println!();
    for (contender, mark) in MARKS {
        let index = Contender::ALL
            .into_iter()
            .position(|other| other == contender);
        let share = median(&mut shares[index.expect("it is one of them")]);
        let verdict = if share >= mark { "reached" } else { "missed" };
        missed |= share < mark;
        println!(
            "{}: at least {mark:.2}: {share:.2}, {verdict}",
            contender.what()
        );
    }
    ExitCode::from(u8::from(check && missed))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
