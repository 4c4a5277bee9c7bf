//! What the receiver promises, and whether it holds.

/// Collects verdicts, and prints each.
#[derive(Default)]
pub struct Marks {
    pub missed: bool,
}

impl Marks {
    pub fn at_least(&mut self, what: &str, mark: f64, value: f64) {
        self.verdict(what, "at least", mark, value, value >= mark);
    }

    pub fn at_most(&mut self, what: &str, mark: f64, value: f64) {
        self.verdict(what, "at most", mark, value, value <= mark);
    }

    fn verdict(&mut self, what: &str, bound: &str, mark: f64, value: f64, reached: bool) {
        let verdict = if reached { "reached" } else { "MISSED" };
        self.missed |= !reached;
        println!("    {what}: {bound} {mark}: {value:.2}, {verdict}");
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
