//! Receivers that are killed, a server that crashes, and connections that are cut.

use core::time::Duration;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use pleo_receiver::{Inbox, PostgresInbox, Query, Selection, State};
use tokio::{task, time};

use super::fleet::{Fleet, Handler, Senders, balance, body};
use crate::support::postgres::Server;
use crate::support::tcp_proxy::TcpProxy;

const FAULTS: u64 = 35;

/// How many messages must be acknowledged between two faults.
const PROGRESS: usize = 40;

/// How long recovery from a fault may take.
const PATIENCE: Duration = Duration::from_secs(120);

const SCHEMA: &str = "faults";

/// Everything that was acknowledged is stored once and handled, and no message is handled by two
/// receivers at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_and_dispatches_acknowledged_messages_whatever_fails() {
    let Some(mut server) = task::block_in_place(|| Server::start(&[])) else {
        return;
    };
    let proxy = TcpProxy::start(server.port());
    // Longer than a lease, which is then renewed.
    let (handler, target) = Handler::start(Duration::from_secs(5)).await;
    let urls = vec![
        server.url(SCHEMA),
        server.url(SCHEMA),
        server.url_at(proxy.port(), SCHEMA),
    ];
    let config = format!(
        "forward = \"{target}\"\n[retry]\nmin_delay = \"1ms\"\nmax_delay = \"20ms\"\n\
         max_attempts = 1000000\nconcurrency = 32\nlease_ttl = \"3s\"\n"
    );
    let mut fleet = task::block_in_place(|| Fleet::start(urls, &config));
    let address = balance(fleet.addresses.clone()).await;
    let senders = Senders::start(address, 16);
    let random = RandomState::new();
    for fault in 0..FAULTS {
        senders.wait_for(PROGRESS, PATIENCE).await;
        let chance = random.hash_one(fault);
        let pause = Duration::from_millis(chance % 1000);
        match fault % 7 {
            0 | 3 => {
                let number = usize::try_from(chance % 3).unwrap();
                task::block_in_place(|| fleet.stop(number, "-KILL"));
                time::sleep(pause).await;
                task::block_in_place(|| fleet.restart(number));
            }
            1 | 4 => task::block_in_place(|| {
                server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE application_name = 'pleo-receiver' AND random() < 0.5",
                );
            }),
            2 => {
                proxy.cut();
                // Longer than a lease every second time.
                let longer = Duration::from_secs(fault % 2 * 4);
                time::sleep(pause + longer).await;
                proxy.repair();
            }
            5 => {
                proxy.slow(Duration::from_millis(100 + chance % 300));
                time::sleep(Duration::from_secs(2)).await;
                proxy.repair();
            }
            _ => task::block_in_place(|| {
                server.stop("immediate");
                std::thread::sleep(pause);
                server.run();
            }),
        }
    }
    senders.wait_for(PROGRESS, PATIENCE).await;
    let (acknowledged, longest, unavailable) = senders.stop().await;
    let inbox = PostgresInbox::open(&server.url(SCHEMA)).await.unwrap();
    let all_done = async {
        while inbox.stats().await.unwrap()[0].pending() > 0 {
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    let all_done = time::timeout(PATIENCE * 2, all_done).await;
    let stats = inbox.stats().await.unwrap();
    if all_done.is_err() {
        let logs = (0..3).map(|number| task::block_in_place(|| fleet.stop(number, "-KILL")));
        let logs = Vec::from_iter(logs).join("\n");
        panic!("{stats:?}\n{logs}");
    }

    let (handled, overlaps) = handler.results();
    let mut stored = HashSet::new();
    let mut query = Query::new(Selection::all(), 500);
    loop {
        let page = inbox.list(query.clone()).await.unwrap();
        for entry in &page.entries {
            let id = entry.webhook_id.to_string();
            assert_eq!(entry.state, State::Done, "{id}");
            let message = inbox.get(entry.key()).await.unwrap().unwrap();
            assert!(message.body == body(&id), "{id} has another body");
            assert!(handled.contains_key(&id), "{id} was never handled");
            assert!(stored.insert(id.clone()), "{id} is stored more than once");
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    for id in &acknowledged {
        assert!(stored.contains(id), "{id} was acknowledged and lost");
    }
    assert_eq!(overlaps, Vec::<String>::new(), "handled by two at a time");
    assert_eq!(stats[0].done, u64::try_from(stored.len()).unwrap());
    println!(
        "{FAULTS} faults, {} messages, {} attempts, {unavailable} answers 503, longest {longest:?}",
        acknowledged.len(),
        handled.values().sum::<usize>()
    );
    for number in 0..3 {
        task::block_in_place(|| fleet.stop(number, "-TERM"));
    }
}
