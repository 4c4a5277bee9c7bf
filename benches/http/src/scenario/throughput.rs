//! Measures requests per second.

use crate::load::{self, Connections, Requests};
use crate::server::{Contender, Server};
use crate::targets::{Targets, median};

/// The server, the order of its message ids, and the target of its relative rate.
const ROWS: [(Contender, &str, f64); 5] = [
    (Contender::Bare, "", 0.0),
    (Contender::VerifyOnly, "", 0.90),
    (Contender::Memory, "", 0.85),
    (Contender::Sqlite, ", increasing ids", 0.50),
    (Contender::Sqlite, ", random ids", 0.30),
];

const LOADS: [(usize, Connections); 4] = [
    (64, Connections::Reused),
    (1000, Connections::Reused),
    (64, Connections::Single),
    (1000, Connections::Single),
];

pub fn run(targets: &mut Targets, quick: bool) {
    let (rounds, count) = if quick { (1, 2_000) } else { (9, 60_000) };
    for (connections, kind) in LOADS {
        let count = if kind == Connections::Single {
            count / 4
        } else {
            count
        };
        let increasing = Requests::new(0..count, load::increasing_id);
        let random = Requests::new(0..count, load::random_id);
        let reuse = if kind == Connections::Reused {
            "reused"
        } else {
            "one request each"
        };
        println!(
            "\n  {connections} concurrent connections, {reuse}: {count} requests, {rounds} rounds\n"
        );

        let mut rates = vec![Vec::new(); ROWS.len()];
        let (mut relative, mut user, mut system) = (rates.clone(), rates.clone(), rates.clone());
        for _ in 0..rounds {
            for (row, (contender, ids, _)) in ROWS.into_iter().enumerate() {
                let requests = if ids.contains("random") {
                    &random
                } else {
                    &increasing
                };
                let folder = super::folder();
                let server = Server::start(contender, &folder);
                let before = server.processor_time();
                let rate = requests.send(&[server.address], connections, kind);
                let after = server.processor_time();
                server.stop();
                let micros = |after, before| (after - before) * 1e6 / count as f64;
                user[row].push(micros(after[0], before[0]));
                system[row].push(micros(after[1], before[1]));
                rates[row].push(rate);
                let bare = *rates[0].last().unwrap_or(&rate);
                relative[row].push(rate / bare);
            }
        }
        println!(
            "    {:<44}{:>14}{:>14}{:>12}{:>12}",
            "", "relative rate", "requests/s", "µs user", "µs system"
        );
        for (row, (contender, ids, _)) in ROWS.into_iter().enumerate() {
            let what = format!("{}{ids}", contender.what());
            let (relative_rate, rate) = (median(&mut relative[row]), median(&mut rates[row]));
            let (user, system) = (median(&mut user[row]), median(&mut system[row]));
            println!("    {what:<44}{relative_rate:>14.2}{rate:>14.0}{user:>12.1}{system:>12.1}");
        }
        println!();
        for (row, (contender, ids, target)) in ROWS.into_iter().enumerate().skip(1) {
            let relative_rate = median(&mut relative[row]);
            targets.at_least(&format!("{}{ids}", contender.what()), target, relative_rate);
        }
    }
}
