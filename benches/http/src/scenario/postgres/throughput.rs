//! Measures requests per second, also of several receivers on one inbox.

use crate::load::{self, Connections, Requests};
use crate::server::{Contender, Server};
use crate::targets::{Targets, median};

const SCHEMA: &str = "bench";

/// The server, the number of its processes, and that of requests.
const ROWS: [(Contender, usize, u64); 5] = [
    (Contender::Bare, 1, 60_000),
    (Contender::Insert, 1, 15_000),
    (Contender::Postgres, 1, 60_000),
    (Contender::Postgres, 2, 60_000),
    (Contender::Postgres, 4, 60_000),
];

pub fn with_few_connections(targets: &mut Targets, quick: bool) {
    run(targets, quick, 64, 3.0);
}

pub fn with_many_connections(targets: &mut Targets, quick: bool) {
    run(targets, quick, 1000, 4.0);
}

/// `target` is how many times faster than one INSERT per request the receiver must be.
fn run(targets: &mut Targets, quick: bool, connections: usize, target: f64) {
    let Some(database) = super::database() else {
        return;
    };
    let (rounds, share) = if quick { (1, 30) } else { (3, 1) };
    println!("\n  {connections} connections, reused: {rounds} rounds\n");
    let mut rates = vec![Vec::new(); ROWS.len()];
    let mut times = rates.clone();
    let (mut of_bare, mut of_insert) = (rates.clone(), rates.clone());
    for _ in 0..rounds {
        for (row, (contender, processes, count)) in ROWS.into_iter().enumerate() {
            let count = count / share;
            super::reset(&database, SCHEMA);
            let requests = Requests::new(0..count, load::increasing_id);
            let url = database.url(SCHEMA);
            // The other server knows no schema.
            let url = match contender {
                Contender::Insert => url.split('?').next().unwrap_or_default(),
                _ => &url,
            };
            let folder = crate::scenario::folder();
            let start = |_| Server::start_with(contender, &folder, url);
            let servers: Vec<_> = (0..processes).map(start).collect();
            let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
            let time = || servers.iter().map(|server| server.processor_time());
            let time = || time().flatten().sum::<f64>();
            let before = time();
            let rate = requests.send(&addresses, connections, Connections::Reused);
            times[row].push((time() - before) * 1e6 / count as f64);
            servers.into_iter().for_each(Server::stop);
            rates[row].push(rate);
            of_bare[row].push(rate / rates[0].last().unwrap_or(&rate));
            of_insert[row].push(rate / rates[1].last().unwrap_or(&rate));
        }
    }
    println!(
        "    {:<44}{:>14}{:>14}{:>14}{:>16}",
        "", "of bare hyper", "of one INSERT", "requests/s", "µs in servers"
    );
    for (row, (contender, processes, _)) in ROWS.into_iter().enumerate() {
        let what = format!("{}, {processes} processes", contender.what());
        let (of_bare, of_insert) = (median(&mut of_bare[row]), median(&mut of_insert[row]));
        let (rate, time) = (median(&mut rates[row]), median(&mut times[row]));
        println!("    {what:<44}{of_bare:>14.2}{of_insert:>14.2}{rate:>14.0}{time:>16.1}");
    }
    println!();
    let what = format!("times the rate of one INSERT per request, {connections} connections");
    targets.at_least(&what, target, median(&mut of_insert[2]));
}
