//! Measures several contenders in turn, so that noise affects all of them.

use crate::contenders::Contender;
use crate::delivery::Delivery;
use crate::random::Random;

/// The length of a measurement.
#[derive(Clone, Copy)]
pub struct Effort {
    /// The number of rounds; each measures every contender.
    pub rounds: usize,
    /// The nanoseconds of one measurement.
    pub batch: f64,
}

impl Effort {
    /// Detects a difference of 1 %.
    pub const FULL: Self = Self {
        rounds: 300,
        batch: 1e6,
    };
    /// Tests the benchmark itself.
    pub const QUICK: Self = Self {
        rounds: 9,
        batch: 1e5,
    };
}

/// Measures the nanoseconds per call: for each entry, one value per round. Each round measures every
/// entry in a random order.
#[must_use]
pub fn measure(entries: &[(&dyn Contender, &Delivery)], effort: Effort) -> Vec<Vec<f64>> {
    let mut random = Random::new(7);
    let calls: Vec<u32> = entries
        .iter()
        .map(|(contender, delivery)| {
            contender.time(delivery, 3);
            let once = contender.time(delivery, 10);
            // At least one call, even if it is longer than a batch.
            (1..=20)
                .rev()
                .map(|power| 1 << power)
                .find(|calls| f64::from(*calls) * once < effort.batch)
                .unwrap_or(1)
        })
        .collect();
    let mut order: Vec<usize> = (0..entries.len()).collect();
    let mut times = vec![Vec::with_capacity(effort.rounds); entries.len()];
    for _ in 0..effort.rounds {
        random.shuffle(&mut order);
        for index in &order {
            let (contender, delivery) = entries[*index];
            times[*index].push(contender.time(delivery, calls[*index]));
        }
    }
    times
}
