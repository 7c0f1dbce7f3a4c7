//! Where log lines go.

mod fields;
mod lines;

use std::{
    io::{self, IsTerminal as _, Stderr, stderr},
    panic,
};

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan, util::SubscriberInitExt as _};

use self::lines::{DELAY, Lines};
use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of `[log]` cannot be read; a loaded configuration has one that can.
    #[error("the log filter cannot be read: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The thread that writes lines cannot be started.
    #[error("log lines cannot be written: {0}")]
    Thread(#[from] io::Error),
    /// This process logs already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// The log of this process. When it is dropped nothing waits to be written any more.
#[must_use = "lines that wait are written when it is dropped"]
pub struct Logging(Lines<Stderr>);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Sends the log lines of this process to standard error, as `log` says. Standard output is left for what the command
/// prints: scripts read the port from there.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(log: &Log) -> Result<Logging, TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let written = Lines::to(stderr(), DELAY)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(written.clone())
        .with_span_events(FmtSpan::NONE)
        .with_ansi(stderr().is_terminal());
    match log.format {
        LogFormat::Text if stderr().is_terminal() => lines.finish().try_init()?,
        LogFormat::Text => lines.fmt_fields(fields::plain()).finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    // What led to a panic stands before it.
    let (waiting, report) = (written.clone(), panic::take_hook());
    panic::set_hook(Box::new(move |panic| {
        waiting.try_flush();
        report(panic);
    }));
    Ok(Logging(written))
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
