//! Compares the rate with a full inbox and with an empty one.

use crate::load::{self, Connections, Requests};
use crate::server::{Contender, Server};
use crate::targets::Targets;

const CONNECTIONS: usize = 64;

pub fn run(targets: &mut Targets, quick: bool) {
    let (steps, step) = if quick { (2, 2_000) } else { (10, 100_000) };
    let (bare_folder, folder) = (super::folder(), super::folder());
    let bare = Server::start(Contender::Bare, &bare_folder);
    let server = Server::start(Contender::Sqlite, &folder);
    println!(
        "\n    {:>10}{:>14}{:>14}",
        "messages", "relative rate", "requests/s"
    );
    let mut relative_rates = Vec::new();
    for number in 0..steps {
        let first = number * step;
        let requests = Requests::new(first..first + step, load::increasing_id);
        let bare_rate = requests.send(&[bare.address], CONNECTIONS, Connections::Reused);
        let rate = requests.send(&[server.address], CONNECTIONS, Connections::Reused);
        println!(
            "    {:>10}{:>14.2}{rate:>14.0}",
            first + step,
            rate / bare_rate
        );
        relative_rates.push(rate / bare_rate);
    }
    bare.stop();
    server.stop();
    // Averages two steps at each end, to reduce noise.
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let ends = relative_rates.len().div_ceil(2).min(2);
    let (first, last) = (
        mean(&relative_rates[..ends]),
        mean(&relative_rates[relative_rates.len() - ends..]),
    );
    println!();
    targets.at_least(
        "relative rate with a full inbox, compared with an empty one",
        0.90,
        last / first,
    );
}
