//! Bar charts by minute, as SVG with a table of the same numbers for screen readers.

use jiff::Timestamp;
use maud::{Markup, html};

use super::history::MINUTES;
use super::layout::number;

const BAR: usize = 10;
const HEIGHT: u64 = 100;

/// A part of each bar.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The class of its color.
    pub(super) class: &'static str,
}

/// A bar chart of the last hour.
pub(super) struct Chart<'a> {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) series: &'a [Series],
    /// The minutes since 1970 and the values of the series, in the order of time.
    pub(super) minutes: &'a [(i64, Vec<u64>)],
    /// The last minute.
    pub(super) last: i64,
    /// What the largest bar shows, as `at most … a minute`.
    pub(super) unit: &'static str,
}

impl Chart<'_> {
    pub(super) fn markup(&self) -> Markup {
        let sum = |values: &[u64]| values.iter().sum::<u64>();
        let largest = self.minutes.iter().map(|(_, values)| sum(values)).max();
        let largest = largest.unwrap_or(0);
        let count = i64::try_from(MINUTES).unwrap_or(i64::MAX);
        let first = self.last + 1 - count;
        let width = BAR * MINUTES;
        let label = format!("{}-title", self.id);
        html! {
            figure.chart aria-labelledby=(label) {
                figcaption id=(label) { (self.title) }
                svg viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" focusable="false" {
                    line.axis x1="0" x2=(width) y1=(HEIGHT) y2=(HEIGHT) {}
                    @for (minute, values) in self.minutes {
                        @if let Ok(column) = usize::try_from(minute - first) {
                            @for (index, series) in self.series.iter().enumerate() {
                                // The first series is at the bottom.
                                @let below = sum(values.get(..index).unwrap_or_default());
                                @let value = values.get(index).copied().unwrap_or(0);
                                @if value > 0 {
                                    @let top = scale(below + value, largest);
                                    rect class=(series.class) x=(column * BAR + 1) width=(BAR - 2)
                                        y=(HEIGHT - top) height=((top - scale(below, largest)).max(1)) {}
                                }
                            }
                        }
                    }
                }
                div.scale aria-hidden="true" {
                    span { (clock(first)) }
                    span { "largest: " (number(largest)) " " (self.unit) }
                    span { (clock(self.last)) " UTC" }
                }
                @if self.series.len() > 1 {
                    ul.legend {
                        @for (index, series) in self.series.iter().enumerate() {
                            @let total = self.minutes.iter().filter_map(|(_, values)| values.get(index)).sum::<u64>();
                            li { span.swatch.(series.class) aria-hidden="true" {} (series.name) " " b { (number(total)) } }
                        }
                    }
                }
                details {
                    summary { "Numbers" }
                    div.scroll tabindex="0" role="region" aria-label={ (self.title) ", numbers" } {
                        table {
                            thead {
                                tr {
                                    th scope="col" { "Minute (UTC)" }
                                    @for series in self.series { th scope="col" { (series.name) } }
                                }
                            }
                            tbody {
                                @for (minute, values) in self.minutes.iter().rev() {
                                    tr {
                                        th scope="row" { (clock(*minute)) }
                                        @for value in values { td.number { (number(*value)) } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn scale(value: u64, largest: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(HEIGHT) / u128::from(largest.max(1));
    u64::try_from(scaled).unwrap_or(HEIGHT)
}

fn clock(minute: i64) -> String {
    let at = Timestamp::from_second(minute.saturating_mul(60));
    at.map_or_else(|_| String::new(), |at| at.strftime("%H:%M").to_string())
}
