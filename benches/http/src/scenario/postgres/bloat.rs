//! Shows the rate and the sizes of the tables under sustained load, also while another transaction is
//! open, which keeps the server from cleaning up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pleo_receiver::{
    Delivery, DispatchOptions, Endpoint, Inbox, NewMessage, PostgresInbox, Receiver, Selection,
    State, handler_fn,
};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time;
use tokio_postgres::{Client, NoTls};

use crate::load::{self, BODY, SECRET};
use crate::targets::Targets;

/// Messages per second. Less than half of what the machine can dispatch.
const RATE: f64 = 1000.0;

const REPLICAS: usize = 2;

/// How long messages are kept.
const RETENTION: Duration = Duration::from_secs(60);

const SIZES: &str = "
    SELECT relname::text, pg_total_relation_size(relid) / 1048576.0::float8,
           n_live_tup, n_dead_tup
    FROM pg_stat_user_tables
    WHERE schemaname = 'bench' AND relname IN ('message', 'dispatch', 'attempt', 'tally')
    ORDER BY relname
";

pub fn run(targets: &mut Targets, quick: bool) {
    let Some(database) = super::database() else {
        return;
    };
    let step = Duration::from_secs(if quick { 3 } else { 20 });
    let runtime = Builder::new_multi_thread().enable_all().build();
    let url = database.url("bench");
    let measured = measure(&url, step);
    runtime
        .expect("a runtime")
        .block_on(measured)
        .check(targets);
}

/// The lowest rates of dispatch before another transaction begins, while it is open, and after it.
struct Rates([f64; 3]);

impl Rates {
    fn check(&self, targets: &mut Targets) {
        println!();
        for (rate, when) in self.0.iter().zip(["before", "behind", "after"]) {
            let what =
                format!("lowest rate {when} an open transaction, compared with that of arrivals");
            targets.at_least(&what, 0.90, rate / RATE);
        }
    }
}

/// Runs 30 steps. Another transaction is open from the 9th to the 21st.
async fn measure(url: &str, step: Duration) -> Rates {
    let handled = Arc::<AtomicU64>::default();
    let mut inboxes = Vec::new();
    for _ in 0..REPLICAS {
        let inbox = Arc::new(PostgresInbox::open(url).await.expect("an inbox"));
        dispatch(Arc::clone(&inbox), Arc::clone(&handled));
        inboxes.push(inbox);
    }
    tokio::spawn(send(inboxes.clone()));
    tokio::spawn(prune(Arc::clone(&inboxes[0])));
    let observer = connect(url).await;
    println!(
        "\n    {:>6}{:>6}{:>12}{:>10}{:>14}  size in MiB, live and dead rows of each table",
        "s", "open", "handled/s", "pending", "statistics"
    );
    let (start, mut rates, mut before) = (Instant::now(), Vec::new(), 0);
    let mut other = None;
    for number in 1..=30 {
        match number {
            9 => {
                let client = connect(url).await;
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class";
                client.batch_execute(begin).await.expect("a transaction");
                other = Some(client);
            }
            21 => other = None,
            _ => {}
        }
        let began = Instant::now();
        time::sleep(step).await;
        let now = handled.load(Ordering::Relaxed);
        let rate = (now - before) as f64 / began.elapsed().as_secs_f64();
        before = now;
        rates.push(rate);
        let asked = Instant::now();
        let stats = inboxes[0].stats().await.expect("statistics");
        let asked = asked.elapsed();
        let tables = observer.query(SIZES, &[]).await.expect("sizes");
        let tables = tables.iter().map(|row| {
            let (name, size): (String, f64) = (row.get(0), row.get(1));
            let (live, dead): (i64, i64) = (row.get(2), row.get(3));
            format!("  {name} {size:.0} ({live}, {dead})")
        });
        println!(
            "    {:>6.0}{:>6}{rate:>12.0}{:>10}{asked:>14.1?}{}",
            start.elapsed().as_secs_f64(),
            if other.is_some() { "yes" } else { "" },
            stats.first().map_or(0, |stats| stats.pending()),
            tables.collect::<String>()
        );
    }
    // The first step has the start of the dispatchers.
    let periods = [&rates[1..8], &rates[8..20], &rates[20..]];
    Rates(periods.map(|rates| rates.iter().copied().fold(f64::INFINITY, f64::min)))
}

async fn connect(url: &str) -> Client {
    let url = url.split('?').next().unwrap_or_default();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a server");
    tokio::spawn(connection);
    client
}

/// Runs a dispatcher until the process ends.
fn dispatch(inbox: Arc<PostgresInbox>, handled: Arc<AtomicU64>) {
    let handler = handler_fn(move |_: Delivery| {
        handled.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(()))
    });
    let secret = SECRET.parse().expect("a secret");
    let (receiver, dispatcher) = Receiver::builder(inbox)
        .endpoint(Endpoint::new("/webhooks/pleo", secret).expect("a path"))
        .handler(handler)
        .dispatch_options(DispatchOptions::default().with_concurrency(64))
        .build()
        .expect("a receiver");
    tokio::spawn(async move {
        let _receiver = receiver;
        dispatcher.run(std::future::pending()).await
    });
}

/// Appends messages at [`RATE`], or more slowly if the inboxes are slow.
async fn send(inboxes: Vec<Arc<PostgresInbox>>) {
    let waiting = Arc::new(Semaphore::new(512));
    let start = Instant::now();
    for number in 0.. {
        let at = start + Duration::from_secs_f64(number as f64 / RATE);
        if Instant::now() < at {
            time::sleep_until(at.into()).await;
        }
        let permit = Arc::clone(&waiting).acquire_owned().await.expect("open");
        let inbox = Arc::clone(&inboxes[number as usize % inboxes.len()]);
        tokio::spawn(async move {
            let message = NewMessage::new("/webhooks/pleo", load::increasing_id(number), BODY);
            inbox.append(message).await.expect("stored");
            drop(permit);
        });
    }
}

/// Deletes old messages, as retention does.
async fn prune(inbox: Arc<PostgresInbox>) {
    loop {
        time::sleep(Duration::from_secs(5)).await;
        let mut old = Selection::all();
        old.state = Some(State::Done);
        old.until = Some(Timestamp::now() - RETENTION);
        inbox.prune(old).await.expect("deleted");
    }
}
