//! Performance targets of the receiver.

/// Compares results with targets, and prints each comparison.
#[derive(Default)]
pub struct Targets {
    pub missed: bool,
}

impl Targets {
    pub fn at_least(&mut self, what: &str, target: f64, value: f64) {
        self.print(what, "at least", target, value, value >= target);
    }

    pub fn at_most(&mut self, what: &str, target: f64, value: f64) {
        self.print(what, "at most", target, value, value <= target);
    }

    fn print(&mut self, what: &str, bound: &str, target: f64, value: f64, reached: bool) {
        let result = if reached { "reached" } else { "MISSED" };
        self.missed |= !reached;
        println!("    {what}: {bound} {target}: {value:.2}, {result}");
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
