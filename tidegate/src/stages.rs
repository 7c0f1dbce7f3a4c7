//! The stages of a shutdown.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::signals::Shutdown;

/// The stages of a shutdown, in their order. Each has begun when its token is cancelled.
#[derive(Clone, Default)]
pub(crate) struct Stages {
    /// The process is not ready and starts no jobs; registry-api creates no content links to this node. Requests are
    /// still accepted.
    pub(crate) draining: CancellationToken,
    /// The public listener is closed. Running requests finish.
    pub(crate) stopping: CancellationToken,
    /// All requests have finished, and the state of fills is saved. The internal listener closes.
    pub(crate) stopped: CancellationToken,
    /// The grace period has passed before the second stage.
    is_graceful: Arc<AtomicBool>,
}

/// How long open connections without a request remain after a grace period.
const IDLE_GRACE: Duration = Duration::from_secs(1);

impl Stages {
    /// Starts the first stage when `shutdown` resolves, and the second one after `drain_grace`, or at once. The third begins
    /// when all requests have finished.
    pub(crate) async fn stop(
        &self,
        shutdown: impl Future<Output = Shutdown>,
        drain_grace: Duration,
    ) -> Infallible {
        let shutdown = shutdown.await;
        tracing::info!("shutting down");
        self.draining.cancel();
        match shutdown {
            Shutdown::Graceful => {
                tokio::time::sleep(drain_grace).await;
                self.is_graceful.store(!drain_grace.is_zero(), Ordering::Relaxed);
            }
            Shutdown::Immediate => {}
        }
        self.stopping.cancel();
        std::future::pending().await
    }

    /// Waits for the second stage. Returns how long open connections without a request remain.
    pub(crate) async fn stopping(&self) -> Duration {
        self.stopping.cancelled().await;
        if self.is_graceful.load(Ordering::Relaxed) { IDLE_GRACE } else { Duration::ZERO }
    }

    /// Starts all stages that have not begun.
    pub(crate) fn end(&self) {
        self.draining.cancel();
        self.stopping.cancel();
        self.stopped.cancel();
    }

    /// The readiness check, which fails from the first stage on.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.draining.is_cancelled() { Err("the process is shutting down".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_is_not_ready_during_the_grace_and_then_stops() {
        let stages = Stages::default();
        assert_eq!(stages.ready(), Ok(()));
        let grace = Duration::from_secs(5);
        let begin = tokio::time::Instant::now();
        let stopping = stages.clone();
        let stop = tokio::spawn(async move { stopping.stop(async { Shutdown::Graceful }, grace).await });
        stages.draining.cancelled().await;
        assert!(stages.ready().is_err());
        assert!(!stages.stopping.is_cancelled());
        stages.stopping.cancelled().await;
        assert_eq!(begin.elapsed(), grace);
        assert!(!stages.stopped.is_cancelled());
        stages.end();
        assert!(stages.stopped.is_cancelled());
        stop.abort();
    }
}
