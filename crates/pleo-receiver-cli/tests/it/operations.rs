//! Tests of the alert rules, the dashboard and the runbook: they fit the metrics and each other.

use std::collections::BTreeSet;

use serde_json::Value;

const METRICS: &str = include_str!("../../../../docs/metrics.md");
const RUNBOOK: &str = include_str!("../../../../docs/runbook.md");
const ALERTS: &str = include_str!("../../../../deploy/prometheus/alerts.yml");
const ALERTS_TEST: &str = include_str!("../../../../deploy/prometheus/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../../../deploy/grafana/dashboard.json");

/// Returns the metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let starts = text.match_indices("pleo_receiver_").map(|(start, _)| start);
    let is_end = |c: char| !c.is_ascii_lowercase() && c != '_';
    let name = |start: usize| {
        let rest = &text[start..];
        &rest[..rest.find(is_end).unwrap_or(rest.len())]
    };
    starts.map(name).collect()
}

/// Asserts that the documentation has each metric of a text.
fn assert_documented(text: &str) {
    let documented = metrics(METRICS);
    let used = metrics(text);
    assert!(used.len() > 10, "{used:?}");
    for name in used {
        // The samples of a histogram have a suffix.
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        let is_documented = documented.contains(family.unwrap_or(name));
        assert!(is_documented, "{name} is not in docs/metrics.md");
    }
}

/// Returns the values of a key in a YAML file.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let start = format!("{key}: ");
    let lines = yaml.lines().map(|line| line.trim_start_matches([' ', '-']));
    lines
        .filter_map(|line| line.strip_prefix(&*start))
        .collect()
}

#[test]
fn alerts_and_dashboard_use_documented_metrics() {
    assert_documented(ALERTS);
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let expressions: Vec<_> = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert_documented(&expressions.join("\n"));
}

#[test]
fn dashboard_shows_each_metric() {
    let shown = metrics(DASHBOARD);
    for name in metrics(METRICS) {
        let is_shown = shown.contains(name) || shown.contains(&*format!("{name}_bucket"));
        assert!(is_shown, "the dashboard does not show {name}");
    }
}

#[test]
fn each_alert_is_tested_and_explained() {
    let alerts = values(ALERTS, "alert");
    assert!(alerts.len() > 10, "{alerts:?}");
    let tested = values(ALERTS_TEST, "name");
    let headings: Vec<_> = RUNBOOK
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(
        headings, alerts,
        "docs/runbook.md has a section for each alert, in this order"
    );
    let anchors: Vec<_> = alerts
        .iter()
        .map(|alert| format!("docs/runbook.md#{}", alert.to_lowercase()))
        .collect();
    assert_eq!(values(ALERTS, "runbook"), anchors);
    for alert in alerts {
        for what in ["fires", "stays silent"] {
            let name = format!("{alert} {what}");
            assert!(
                tested.contains(&&*name),
                "no test {name:?} in alerts_test.yml"
            );
        }
        let section = RUNBOOK.split(&format!("## {alert}\n")).nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        assert!(section.contains("```sh\n"), "{alert}: no command");
    }
}
