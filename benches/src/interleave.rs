//! Measures several things in turn, so that what disturbs the machine disturbs all of them.

use crate::contenders::Contender;
use crate::delivery::Delivery;
use crate::random::Random;

/// How long to measure.
#[derive(Clone, Copy)]
pub struct Effort {
    /// How often everything is measured.
    pub rounds: usize,
    /// How many nanoseconds of one contender's calls make one measurement.
    pub batch: f64,
}

impl Effort {
    /// Enough to tell a difference of 1%.
    pub const FULL: Self = Self {
        rounds: 300,
        batch: 1e6,
    };
    /// Enough to see that everything works.
    pub const QUICK: Self = Self {
        rounds: 9,
        batch: 1e5,
    };
}

/// Nanoseconds per call, for each entry a value per round. In each round every entry has its turn,
/// in any order.
#[must_use]
pub fn measure(entries: &[(&dyn Contender, &Delivery)], effort: Effort) -> Vec<Vec<f64>> {
    let mut random = Random::new(7);
    let calls: Vec<u32> = entries
        .iter()
        .map(|(contender, delivery)| {
            contender.time(delivery, 3);
            let once = contender.time(delivery, 10);
            // What is slower than a batch is called once.
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
