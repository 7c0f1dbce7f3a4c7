//! The log of the process.

mod fields;
mod log_buffer;

use std::{
    io::{self, IsTerminal as _, stderr},
    panic,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan, util::SubscriberInitExt as _};

use self::log_buffer::LogBuffer;
use crate::config::{Log, LogFormat};

/// The delay of a line that is not a warning or an error.
const WRITE_DELAY: Duration = Duration::from_millis(100);

/// The time limit of the last write at the end of the process and before a panic.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// An error of the setup.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid. A loaded configuration has a valid one.
    #[error("invalid log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The thread that writes lines could not be started.
    #[error("failed to start the log thread: {0}")]
    Thread(#[from] io::Error),
    /// The log was set up before.
    #[error("the log is already set up: {0}")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// The log of the process. All lines are written when it is dropped.
#[must_use = "dropping it writes the remaining lines"]
pub struct Logging(LogBuffer);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

/// Writes log lines to standard error, in the configured format. Standard output is for the output of the command: scripts
/// read the port from it.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(log: &Log) -> Result<Logging, TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let report = |lines| tracing::warn!(lines, "dropped log lines: standard error was blocked");
    let buffer = LogBuffer::start(stderr(), WRITE_DELAY, report)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(buffer.clone())
        .with_span_events(FmtSpan::NONE)
        .with_ansi(stderr().is_terminal());
    match log.format {
        LogFormat::Text if stderr().is_terminal() => lines.finish().try_init()?,
        LogFormat::Text => lines.fmt_fields(fields::plain()).finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    // The lines before a panic precede its message.
    let (lines, report) = (buffer.clone(), panic::take_hook());
    panic::set_hook(Box::new(move |panic| {
        lines.flush(FLUSH_TIMEOUT);
        report(panic);
    }));
    Ok(Logging(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_filter_is_refused() {
        let log = Log { filter: "a=b=c".to_owned(), ..Log::default() };
        assert!(matches!(init(&log), Err(TelemetryError::Filter(_))));
    }
}
