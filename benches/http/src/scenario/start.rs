//! Measures the time from start to the first response, and the memory for many connections.

use std::time::Instant;

use tokio::runtime::Builder;

use crate::load::{self, Requests};
use crate::server::{Contender, Server};
use crate::targets::{Targets, median};

const ROWS: u64 = 100_000;
const CONNECTIONS: u64 = 1000;

pub fn run(targets: &mut Targets, quick: bool) {
    let (rows, times) = if quick { (1000, 1) } else { (ROWS, 9) };
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let folder = super::folder();
    drop(runtime.block_on(super::fill(&folder, rows)));

    let mut milliseconds = Vec::new();
    let mut resident = 0.0;
    for time in 0..times {
        let first = rows + time * CONNECTIONS * 10;
        let requests = Requests::new(first..first + CONNECTIONS * 10, load::increasing_id);
        let start = Instant::now();
        let server = Server::start(Contender::Sqlite, &folder);
        runtime.block_on(async {
            let mut stream = load::connect(server.address).await;
            load::exchange(&mut stream, &requests.all()[0]).await;
        });
        milliseconds.push(start.elapsed().as_secs_f64() * 1000.0);
        // Each connection sends ten requests, and stays open until the memory is measured.
        runtime.block_on(async {
            let mut streams = Vec::new();
            for _ in 0..CONNECTIONS {
                streams.push(load::connect(server.address).await);
            }
            let mut tasks = tokio::task::JoinSet::new();
            for (mut stream, chunk) in streams.into_iter().zip(requests.all().chunks(10)) {
                let chunk = chunk.to_vec();
                tasks.spawn(async move {
                    for request in chunk {
                        load::exchange(&mut stream, &request).await;
                    }
                    stream
                });
            }
            let open = tasks.join_all().await;
            resident = f64::max(resident, server.resident());
            drop(open);
        });
        server.stop();
    }
    println!("\n  an inbox of {rows} messages, {times} starts; {CONNECTIONS} connections\n");
    let first = median(&mut milliseconds);
    targets.at_most("time from start to the first 204, in ms", 100.0, first);
    targets.at_most("resident memory, in MiB", 30.0, resident);
}
