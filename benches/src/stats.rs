//! Medians, and Welch's t.

/// The median, or the higher of the two in the middle.
///
/// # Panics
/// There are no values.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of the quotients of what was measured in the same round, so that what slows a whole
/// round down drops out.
#[must_use]
pub fn paired_ratio(times: &[f64], floor: &[f64]) -> f64 {
    median(
        times
            .iter()
            .zip(floor)
            .map(|(time, floor)| time / floor)
            .collect(),
    )
}

/// Count, mean and variance, one value at a time (Welford).
#[derive(Default)]
pub struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Takes a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    fn error(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }

    /// Welch's t: how many standard errors two means lie apart.
    #[must_use]
    pub fn t(&self, other: &Self) -> f64 {
        (self.mean - other.mean) / (self.error() + other.error()).sqrt()
    }
}
