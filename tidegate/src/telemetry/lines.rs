//! Log lines on their way out. One that can wait waits a moment, so that many requests cost one write.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line of this process's log waits at most.
pub(super) const DELAY: Duration = Duration::from_millis(100);

/// How many bytes of lines wait at most.
const FULL: usize = 64 * 1024;

/// Gathers lines for `W`. They are written when one of them is a warning or an error, when many have gathered, a moment
/// after the first of them, and when this is closed.
pub(super) struct Lines<W>(Arc<Gathered<W>>);

struct Gathered<W> {
    state: Mutex<State<W>>,
    /// Rung when the first line has come, and at the end.
    rung: Condvar,
    /// How long a line waits at most.
    delay: Duration,
}

struct State<W> {
    waiting: Vec<u8>,
    open: bool,
    out: W,
}

impl<W> Clone for Lines<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: Write + Send + 'static> Lines<W> {
    /// Starts the thread that writes what has waited for `delay`.
    ///
    /// # Errors
    /// There can be no thread.
    pub(super) fn to(out: W, delay: Duration) -> io::Result<Self> {
        let state = State { waiting: Vec::with_capacity(FULL), open: true, out };
        let lines = Self(Arc::new(Gathered { state: Mutex::new(state), rung: Condvar::new(), delay }));
        let writer = lines.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_late())?;
        Ok(lines)
    }

    fn write_late(&self) {
        let Gathered { state, rung, delay } = &*self.0;
        let mut now = lock(state);
        while now.open {
            if now.waiting.is_empty() {
                now = rung.wait(now).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            now = rung
                .wait_timeout_while(now, *delay, |now| now.open)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            now.write();
        }
    }

    /// Writes what waits, unless a line is being written just now.
    pub(super) fn try_flush(&self) {
        if let Ok(mut now) = self.0.state.try_lock() {
            now.write();
        }
    }

    /// Writes what waits. A line that comes later is written at once.
    pub(super) fn close(&self) {
        let mut now = lock(&self.0.state);
        now.open = false;
        now.write();
        self.0.rung.notify_one();
    }

    fn take(&self, line: &[u8], urgency: Urgency) {
        let mut now = lock(&self.0.state);
        let first = now.waiting.is_empty();
        now.waiting.extend_from_slice(line);
        if !now.open || urgency == Urgency::AtOnce || now.waiting.len() >= FULL {
            now.write();
        } else if first {
            self.0.rung.notify_one();
        }
    }
}

fn lock<W>(state: &Mutex<State<W>>) -> MutexGuard<'_, State<W>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Write> State<W> {
    /// A log that cannot be written is nowhere to be reported.
    fn write(&mut self) {
        let _ = self.out.write_all(&self.waiting).and_then(|()| self.out.flush()).is_ok();
        self.waiting.clear();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    CanWait,
    AtOnce,
}

/// Where one line is put.
pub(super) struct Line<'a, W> {
    lines: &'a Lines<W>,
    urgency: Urgency,
}

impl<'a, W: Write + Send + 'static> MakeWriter<'a> for Lines<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { lines: self, urgency: Urgency::AtOnce }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let can_wait = *metadata.level() > Level::WARN;
        Line { lines: self, urgency: if can_wait { Urgency::CanWait } else { Urgency::AtOnce } }
    }
}

impl<W: Write + Send + 'static> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.take(line, self.urgency);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

    use tracing_subscriber::{fmt, util::SubscriberInitExt as _};

    use super::*;

    struct Told(Sender<String>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A delay that no test lives to see.
    const HOUR: Duration = Duration::from_secs(3600);

    fn logging(delay: Duration) -> (Lines<Told>, Receiver<String>, tracing::subscriber::DefaultGuard) {
        let (told, written) = channel();
        let lines = Lines::to(Told(told), delay).unwrap();
        let log = fmt().with_writer(lines.clone()).without_time().with_target(false).with_ansi(false);
        (lines, written, log.finish().set_default())
    }

    #[test]
    fn lines_that_can_wait_are_written_after_a_moment() {
        let (_lines, written, _guard) = logging(Duration::from_millis(1));
        for line in ["one", "two", "three"] {
            tracing::info!("{line} a");
            tracing::info!("{line} b");
            // The moment may end between the two.
            let expected = format!(" INFO {line} a\n INFO {line} b\n");
            let mut text = String::new();
            while text.len() < expected.len() {
                text += &written.recv_timeout(Duration::from_secs(60)).unwrap();
            }
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn lines_that_can_wait_are_written_together() {
        let (lines, written, _guard) = logging(HOUR);
        tracing::info!("one");
        tracing::info!("two");
        assert_eq!(written.try_recv(), Err(TryRecvError::Empty));
        lines.try_flush();
        assert_eq!(written.try_recv().unwrap(), " INFO one\n INFO two\n");
    }

    #[test]
    fn a_warning_is_written_at_once_with_what_waits() {
        let (_lines, written, _guard) = logging(HOUR);
        tracing::info!("one");
        tracing::warn!("two");
        assert_eq!(written.try_recv().unwrap(), " INFO one\n WARN two\n");
    }

    #[test]
    fn no_more_waits_than_the_limit() {
        let (_lines, written, _guard) = logging(HOUR);
        tracing::info!("{}", "x".repeat(FULL));
        assert_eq!(written.try_recv().unwrap().len(), FULL + " INFO \n".len());
    }

    #[test]
    fn nothing_waits_after_the_end() {
        let (lines, written, _guard) = logging(HOUR);
        tracing::info!("one");
        lines.close();
        assert_eq!(written.try_recv().unwrap(), " INFO one\n");
        tracing::info!("two");
        assert_eq!(written.try_recv().unwrap(), " INFO two\n");
    }
}
