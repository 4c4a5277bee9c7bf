//! Compares the rate with a million messages that are done and with an empty inbox.

use crate::load::{self, BODY, Connections, Requests};
use crate::postgres_server::Server as Database;
use crate::server::{Contender, Server};
use crate::targets::{Targets, median};

const CONNECTIONS: usize = 64;

pub fn run(targets: &mut Targets, quick: bool) {
    let Some(database) = super::database() else {
        return;
    };
    let (rounds, done, count) = if quick {
        (1, 10_000, 2_000)
    } else {
        (5, 1_000_000, 30_000)
    };
    // Creates the schema.
    let folder = crate::scenario::folder();
    let schemas = ["empty", "filled"];
    let start = |schema| Server::start_with(Contender::Postgres, &folder, &database.url(schema));
    for schema in schemas {
        start(schema).stop();
    }
    fill(&database, done);
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (schema, rates) in schemas.iter().zip(&mut rates) {
            let first = done + round * count;
            let requests = Requests::new(first..first + count, load::increasing_id);
            let server = start(schema);
            rates.push(requests.send(&[server.address], CONNECTIONS, Connections::Reused));
            server.stop();
        }
    }
    let [mut empty, mut full] = rates;
    let (empty, full) = (median(&mut empty), median(&mut full));
    println!(
        "\n  {done} messages that are done: {full:.0} requests/s; none: {empty:.0} requests/s\n"
    );
    let what = "rate with a full inbox, compared with an empty one";
    targets.at_least(what, 0.90, full / empty);
}

/// Stores messages that are done.
fn fill(database: &Database, done: u64) {
    database.execute(&format!(
        "INSERT INTO filled.message (sequence, endpoint, webhook_id, origin, received_at, headers, body)
         SELECT nextval('filled.message_sequence'), '/webhooks/pleo', 'msg_' || lpad(n::text, 27, '0'),
                'webhook', now(), '', '{BODY}'
         FROM generate_series(0, {done} - 1) AS n"
    ));
    database.execute(
        "INSERT INTO filled.dispatch (sequence, endpoint, state)
         SELECT sequence, endpoint, 'done' FROM filled.message",
    );
    database.execute("VACUUM ANALYZE");
    database.execute("CHECKPOINT");
}
