//! Whether a full inbox is slower than an empty one.

use crate::load::{self, Connections, Requests};
use crate::marks::Marks;
use crate::server::{Contender, Server};

const CONNECTIONS: usize = 64;

pub fn run(marks: &mut Marks, quick: bool) {
    let (steps, step) = if quick { (2, 2_000) } else { (10, 100_000) };
    let (bare_folder, folder) = (super::folder(), super::folder());
    let bare = Server::start(Contender::Bare, &bare_folder);
    let server = Server::start(Contender::Sqlite, &folder);
    println!(
        "\n    {:>10}{:>14}{:>14}",
        "messages", "share of bare", "requests/s"
    );
    let mut shares = Vec::new();
    for number in 0..steps {
        let first = number * step;
        let requests = Requests::new(first..first + step, load::rising_id);
        let floor = requests.send(bare.address, CONNECTIONS, Connections::Kept);
        let rate = requests.send(server.address, CONNECTIONS, Connections::Kept);
        println!("    {:>10}{:>14.2}{rate:>14.0}", first + step, rate / floor);
        shares.push(rate / floor);
    }
    bare.stop();
    server.stop();
    // Two steps on either side, since one alone may meet a busy moment of the machine.
    let mean = |shares: &[f64]| shares.iter().sum::<f64>() / shares.len() as f64;
    let half = shares.len().div_ceil(2).min(2);
    let (first, last) = (mean(&shares[..half]), mean(&shares[shares.len() - half..]));
    println!();
    marks.at_least(
        "share with a full inbox, of that with an empty one",
        0.90,
        last / first,
    );
}
