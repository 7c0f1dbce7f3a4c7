//! A buffer of log lines and the thread that writes them. A worker never waits for the writer: it appends to the buffer,
//! or drops the line if the buffer is full.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The size of the buffer at which it is written at once, in bytes.
const WRITE_SIZE: usize = 64 * 1024;

/// The maximum size of the buffer, in bytes.
const MAX_SIZE: usize = 4 * 1024 * 1024;

/// Appends log lines. They are written after a delay, or at once if one of them is a warning or an error, or if there are
/// many. So many requests cost one write.
#[derive(Clone)]
pub(super) struct LogBuffer(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Notified when the thread has to do something.
    wake: Condvar,
    /// Notified when the thread has written a buffer.
    written: Condvar,
    /// The maximum time that a line stays in the buffer while the writer does not block.
    delay: Duration,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// The number of lines dropped since the last write.
    dropped: u64,
    /// Whether the thread is to write without delay.
    urgent: bool,
    /// Whether the thread is writing.
    writing: bool,
}

impl LogBuffer {
    /// Starts the thread that writes to `out`. It calls `report_dropped` with the number of lines that were dropped.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn start(
        mut out: impl Write + Send + 'static,
        delay: Duration,
        report_dropped: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let state = Mutex::new(State { lines: Vec::with_capacity(WRITE_SIZE), ..State::default() });
        let (wake, written) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, wake, written, delay });
        let buffer = Self(Arc::clone(&shared));
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut lines = Vec::with_capacity(WRITE_SIZE);
            loop {
                let dropped = shared.take(&mut lines);
                // There is nowhere to report that the log cannot be written.
                let _ = out.write_all(&lines).and_then(|()| out.flush());
                lines.clear();
                lines.shrink_to(WRITE_SIZE);
                shared.state.lock().writing = false;
                shared.written.notify_all();
                if dropped > 0 {
                    report_dropped(dropped);
                }
            }
        })?;
        Ok(buffer)
    }

    /// Waits until all lines are written, but not longer than `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        // The thread that panics may hold the lock.
        let Some(mut state) = self.0.state.try_lock_for(timeout) else { return };
        state.urgent = true;
        self.0.wake.notify_one();
        let is_pending = |state: &mut State| state.writing || !state.lines.is_empty();
        let _ = self.0.written.wait_while_until(&mut state, is_pending, deadline);
    }

    fn append(&self, line: &[u8], urgent: bool) {
        let mut state = self.0.state.lock();
        if state.lines.len() + line.len() > MAX_SIZE {
            state.dropped += 1;
            return;
        }
        let (was_empty, was_urgent) = (state.lines.is_empty(), state.urgent);
        state.lines.extend_from_slice(line);
        state.urgent |= urgent || state.lines.len() >= WRITE_SIZE;
        if was_empty || state.urgent != was_urgent {
            self.0.wake.notify_one();
        }
    }
}

impl Shared {
    /// Waits for lines and exchanges them with the empty `lines`. Returns the number of lines dropped before.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = self.state.lock();
        self.wake.wait_while(&mut state, |state| state.lines.is_empty());
        self.wake.wait_while_for(&mut state, |state| !state.urgent, self.delay);
        mem::swap(&mut state.lines, lines);
        (state.urgent, state.writing) = (false, true);
        mem::take(&mut state.dropped)
    }
}

/// Appends one line.
pub(super) struct LineWriter<'a> {
    buffer: &'a LogBuffer,
    urgent: bool,
}

impl<'a> MakeWriter<'a> for LogBuffer {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { buffer: self, urgent: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        LineWriter { buffer: self, urgent: *metadata.level() <= Level::WARN }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.buffer.append(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel, sync_channel};

    use tracing::subscriber::DefaultGuard;
    use tracing_subscriber::{fmt, util::SubscriberInitExt as _};

    use super::*;

    struct Chunks(Sender<String>);

    impl Write for Chunks {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Longer than any test.
    const HOUR: Duration = Duration::from_secs(3600);

    /// Long enough for a thread to be scheduled on a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    fn log_to(buffer: &LogBuffer) -> DefaultGuard {
        let log = fmt().with_writer(buffer.clone()).without_time().with_target(false).with_ansi(false);
        log.finish().set_default()
    }

    fn logging(delay: Duration) -> (LogBuffer, Receiver<String>, DefaultGuard) {
        let (chunks, written) = channel();
        let buffer = LogBuffer::start(Chunks(chunks), delay, |_| ()).unwrap();
        let guard = log_to(&buffer);
        (buffer, written, guard)
    }

    #[test]
    fn lines_are_written_after_the_delay() {
        let (_buffer, written, _guard) = logging(Duration::from_millis(1));
        for line in ["one", "two", "three"] {
            tracing::info!("{line} a");
            tracing::info!("{line} b");
            // The delay may end between the two.
            let expected = format!(" INFO {line} a\n INFO {line} b\n");
            let mut text = String::new();
            while text.len() < expected.len() {
                text += &written.recv_timeout(LONG).unwrap();
            }
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_flush_writes_all_lines_in_one_write() {
        let (buffer, written, _guard) = logging(HOUR);
        tracing::info!("one");
        tracing::info!("two");
        assert_eq!(written.try_recv(), Err(TryRecvError::Empty));
        buffer.flush(LONG);
        assert_eq!(written.try_recv().unwrap(), " INFO one\n INFO two\n");
        buffer.flush(LONG);
    }

    #[test]
    fn a_warning_is_written_at_once_with_the_lines_before_it() {
        let (_buffer, written, _guard) = logging(HOUR);
        tracing::info!("one");
        tracing::warn!("two");
        assert_eq!(written.recv_timeout(LONG).unwrap(), " INFO one\n WARN two\n");
    }

    #[test]
    fn many_lines_are_written_at_once() {
        let (_buffer, written, _guard) = logging(HOUR);
        tracing::info!("{}", "x".repeat(WRITE_SIZE));
        assert_eq!(written.recv_timeout(LONG).unwrap().len(), WRITE_SIZE + " INFO \n".len());
    }

    /// Blocks each write until it receives a permit.
    struct Blocking {
        permits: Receiver<()>,
        started: Sender<()>,
        chunks: Chunks,
    }

    impl Write for Blocking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.started.send(()).unwrap();
            self.permits.recv().unwrap();
            self.chunks.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_writer_blocks_no_worker_and_dropped_lines_are_counted() {
        let ((permit, permits), (started, starts)) = (sync_channel(8), channel());
        let ((chunks, written), (report, reports)) = (channel(), channel());
        let out = Blocking { permits, started, chunks: Chunks(chunks) };
        let buffer = LogBuffer::start(out, HOUR, move |dropped| report.send(dropped).unwrap()).unwrap();
        let _guard = log_to(&buffer);

        tracing::warn!("first");
        starts.recv_timeout(LONG).unwrap();
        let line = "x".repeat(1024 * 1024);
        for _ in 0..10 {
            tracing::warn!("{line}");
        }
        buffer.flush(Duration::ZERO);
        assert_eq!(written.try_recv(), Err(TryRecvError::Empty), "the writer is still blocked");

        permit.send(()).unwrap();
        permit.send(()).unwrap();
        assert_eq!(written.recv_timeout(LONG).unwrap(), " WARN first\n");
        let kept = written.recv_timeout(LONG).unwrap().lines().count();
        assert_eq!(kept, 3);
        assert_eq!(reports.recv_timeout(LONG).unwrap(), 10 - 3);
    }
}
