//! The log, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// The log of this process.
pub(crate) struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    told: Option<LevelFilter>,
    default: LevelFilter,
}

impl Log {
    /// Begins to log, as loud as flag or environment `told`.
    pub(crate) fn start(told: Option<LevelFilter>, default: LevelFilter) -> Self {
        let (filter, level) = reload::Layer::new(told.unwrap_or(default));
        let lines = fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false);
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Self {
            level,
            told,
            default,
        }
    }

    /// Goes on as loud as the configuration says, unless told otherwise nearer.
    pub(crate) fn configure(&self, file: Option<LevelFilter>) {
        let level = self.told.or(file).unwrap_or(self.default);
        // The log is there as long as the process.
        let _ = self.level.reload(level);
    }
}
