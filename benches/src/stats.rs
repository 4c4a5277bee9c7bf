//! Medians, and Welch's t.

/// Returns the median; the higher of the two in the middle if their number is even.
///
/// # Panics
/// If there are no values.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the median ratio of two times of the same round, so that a slow round does not count.
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

/// Computes count, mean and variance, one value at a time (Welford).
#[derive(Default)]
pub struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }

    /// Returns the mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    fn error(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }

    /// Returns Welch's t: the distance of two means in standard errors.
    #[must_use]
    pub fn t(&self, other: &Self) -> f64 {
        (self.mean - other.mean) / (self.error() + other.error()).sqrt()
    }
}
