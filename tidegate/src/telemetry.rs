//! Where log lines go.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan, util::SubscriberInitExt as _};

use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of `[log]` cannot be read; a loaded configuration has one that can.
    #[error("the log filter cannot be read: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process logs already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the log lines of this process to standard error, as `log` says. Standard output is left for what the command
/// prints: scripts read the port from there.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(stderr().is_terminal());
    match log.format {
        LogFormat::Text => lines.finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        let log = Log { format: LogFormat::Text, filter: "a=b=c".to_owned() };
        assert!(matches!(init(&log), Err(TelemetryError::Filter(_))));
    }
}
