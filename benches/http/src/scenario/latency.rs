//! Measures the response time at half of the receiver's maximum rate.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::load::{self, Connections, Requests};
use crate::server::{Contender, Server};
use crate::targets::Targets;

const CONNECTIONS: usize = 64;

pub fn run(targets: &mut Targets, quick: bool) {
    measure(targets, quick, Contender::Sqlite, "");
}

/// Measures a server with the database at this URL, if it needs one.
pub fn measure(targets: &mut Targets, quick: bool, contender: Contender, database: &str) {
    let (warm, seconds) = if quick { (2_000, 1.0) } else { (60_000, 20.0) };
    let folder = super::folder();
    let server = Server::start_with(contender, &folder, database);
    let requests = Requests::new(0..warm, load::increasing_id);
    let rate = requests.send(&[server.address], CONNECTIONS, Connections::Reused) / 2.0;
    let mut flush = flushes(&folder);

    let last = warm + (rate * seconds) as u64;
    let requests = Requests::new(warm..last, load::increasing_id);
    let mut taken = requests.send_at_rate(server.address, CONNECTIONS, rate);
    flush.extend(flushes(&folder));
    server.stop();
    let flush = percentile(&mut flush, 50.0);
    println!(
        "\n  {CONNECTIONS} connections, {rate:.0} requests/s for {seconds} s; a flush of the disk takes {flush:?}\n"
    );
    for percent in [50.0, 90.0, 99.0, 99.9, 100.0] {
        println!("    {percent:>5} %: {:?}", percentile(&mut taken, percent));
    }
    println!();
    let ratio = percentile(&mut taken, 99.0).as_secs_f64() / flush.as_secs_f64();
    targets.at_most(
        "99 % of acknowledgements, in flushes of the disk",
        20.0,
        ratio,
    );
}

/// Measures how long the disk takes to flush a small append.
fn flushes(folder: &tempfile::TempDir) -> Vec<Duration> {
    let mut file = File::create(folder.path().join("flush")).expect("a file");
    let mut flush = || {
        file.write_all(&[7; 400]).expect("space");
        let start = Instant::now();
        file.sync_data().expect("a disk");
        start.elapsed()
    };
    (0..200).map(|_| flush()).collect()
}

fn percentile(values: &mut [Duration], percent: f64) -> Duration {
    values.sort_unstable();
    let index = (values.len() as f64 * percent / 100.0) as usize;
    values[index.min(values.len() - 1)]
}
