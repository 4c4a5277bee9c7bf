//! The filter of the log: a level, and levels of single targets.

use core::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The start of the targets of this project's crates.
const OWN: &str = "pleo_";

/// A filter such as `info` or `info,h2=warn`.
///
/// The level applies to the events of this project. Those of its dependencies are logged at the level
/// `trace`, or if a target names them: a client could fill the log with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogFilter {
    level: Option<LevelFilter>,
    targets: Vec<(String, LevelFilter)>,
}

impl LogFilter {
    /// Returns the filter with the default level for what it does not name.
    pub(super) fn targets(&self, default: LevelFilter) -> Targets {
        let level = self.level.unwrap_or(default);
        let dependencies = if level == LevelFilter::TRACE {
            LevelFilter::TRACE
        } else {
            LevelFilter::OFF
        };
        Targets::new()
            .with_default(dependencies)
            .with_target(OWN, level)
            .with_targets(self.targets.clone())
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        let parts = text.split(',').map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None => filter.level = Some(level(part)?),
                Some((target, text)) => filter.targets.push((name(target)?, level(text)?)),
            }
        }
        Ok(filter)
    }
}

impl<'de> Deserialize<'de> for LogFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let text = text.trim();
    text.parse().map_err(|_| {
        format!("`{text}` is not a level: give off, error, warn, info, debug or trace")
    })
}

fn name(target: &str) -> Result<String, String> {
    let target = target.trim();
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    if target.is_empty() || !target.bytes().all(is_path) {
        return Err(format!(
            "`{target}` is not a target such as `h2` or `pleo_receiver::server`"
        ));
    }
    Ok(target.to_owned())
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn targets(filter: &str) -> Targets {
        let filter: LogFilter = filter.parse().unwrap();
        filter.targets(LevelFilter::INFO)
    }

    #[test]
    fn level_applies_to_own_events_only_below_trace() {
        for (filter, own, dependencies) in [
            ("off", None, None),
            ("error", Some(Level::ERROR), None),
            ("WARN", Some(Level::WARN), None),
            ("info", Some(Level::INFO), None),
            ("debug", Some(Level::DEBUG), None),
            ("trace", Some(Level::TRACE), Some(Level::TRACE)),
            ("", Some(Level::INFO), None),
            ("h2=warn", Some(Level::INFO), Some(Level::WARN)),
            ("h2 = warn, error", Some(Level::ERROR), Some(Level::WARN)),
            ("debug,h2=error", Some(Level::DEBUG), Some(Level::ERROR)),
        ] {
            let targets = targets(filter);
            for level in [
                Level::ERROR,
                Level::WARN,
                Level::INFO,
                Level::DEBUG,
                Level::TRACE,
            ] {
                for (target, least) in [
                    ("pleo_receiver::telemetry", own),
                    ("pleo_api", own),
                    ("h2::proto", dependencies),
                ] {
                    let is_logged = least.is_some_and(|least| level <= least);
                    let would = targets.would_enable(target, &level);
                    assert_eq!(would, is_logged, "{filter}: {target} at {level}");
                }
            }
        }
    }

    #[test]
    fn target_beats_level() {
        let targets = targets("error,pleo_receiver::telemetry=debug");
        assert!(targets.would_enable("pleo_receiver::telemetry::requests", &Level::DEBUG));
        assert!(!targets.would_enable("pleo_receiver::log", &Level::WARN));
    }

    #[test]
    fn rejects_invalid_filters() {
        for (text, start) in [
            ("loud", "`loud` is not a level"),
            ("info,h2", "`h2` is not a level"),
            ("h2=loud", "`loud` is not a level"),
            ("=warn", "`` is not a target"),
            ("h2[x]=warn", "`h2[x]` is not a target"),
        ] {
            let error = text.parse::<LogFilter>().unwrap_err();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
