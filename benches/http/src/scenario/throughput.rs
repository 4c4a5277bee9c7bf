//! How many requests per second.

use crate::load::{self, Connections, Requests};
use crate::marks::{Marks, median};
use crate::server::{Contender, Server};

/// Who, with which identifiers, and the share of the bare server's rate that it promises.
const ROWS: [(Contender, &str, f64); 5] = [
    (Contender::Bare, "", 0.0),
    (Contender::VerifyOnly, "", 0.90),
    (Contender::Memory, "", 0.85),
    (Contender::Sqlite, ", rising ids", 0.50),
    (Contender::Sqlite, ", ids in no order", 0.30),
];

const LOADS: [(usize, Connections); 4] = [
    (64, Connections::Kept),
    (1000, Connections::Kept),
    (64, Connections::Single),
    (1000, Connections::Single),
];

pub fn run(marks: &mut Marks, quick: bool) {
    let (rounds, count) = if quick { (1, 2_000) } else { (9, 60_000) };
    for (connections, kind) in LOADS {
        let count = if kind == Connections::Single {
            count / 4
        } else {
            count
        };
        let rising = Requests::new(0..count, load::rising_id);
        let scattered = Requests::new(0..count, load::scattered_id);
        let kept = if kind == Connections::Kept {
            "kept open"
        } else {
            "of one request each"
        };
        println!(
            "\n  {connections} connections at once, {kept}: {count} requests, {rounds} rounds\n"
        );

        let mut rates = vec![Vec::new(); ROWS.len()];
        let (mut shares, mut own, mut system) = (rates.clone(), rates.clone(), rates.clone());
        for _ in 0..rounds {
            for (row, (contender, ids, _)) in ROWS.into_iter().enumerate() {
                let requests = if ids.contains("no order") {
                    &scattered
                } else {
                    &rising
                };
                let folder = super::folder();
                let server = Server::start(contender, &folder);
                let before = server.processor_time();
                let rate = requests.send(server.address, connections, kind);
                let after = server.processor_time();
                server.stop();
                let micros = |after, before| (after - before) * 1e6 / count as f64;
                own[row].push(micros(after[0], before[0]));
                system[row].push(micros(after[1], before[1]));
                rates[row].push(rate);
                let bare = *rates[0].last().unwrap_or(&rate);
                shares[row].push(rate / bare);
            }
        }
        println!(
            "    {:<44}{:>14}{:>14}{:>12}{:>12}",
            "", "share of bare", "requests/s", "µs user", "µs system"
        );
        for (row, (contender, ids, _)) in ROWS.into_iter().enumerate() {
            let what = format!("{}{ids}", contender.what());
            let (share, rate) = (median(&mut shares[row]), median(&mut rates[row]));
            let (own, system) = (median(&mut own[row]), median(&mut system[row]));
            println!("    {what:<44}{share:>14.2}{rate:>14.0}{own:>12.1}{system:>12.1}");
        }
        println!();
        for (row, (contender, ids, mark)) in ROWS.into_iter().enumerate().skip(1) {
            let share = median(&mut shares[row]);
            marks.at_least(&format!("{}{ids}", contender.what()), mark, share);
        }
    }
}
