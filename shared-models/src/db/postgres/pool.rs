//! A pool that checks connections before it returns them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{BuildError, Hook, HookError, Pool},
    },
};
use futures::FutureExt;
use parking_lot::Mutex;

use super::Server;

/// Idle time after which a connection is pinged before it is returned.
const PING_AFTER_IDLE: Duration = Duration::from_secs(5);

/// The maximum timeout of a ping. The timeout is at most half of the wait for a connection, so that
/// the ping ends before the caller times out, and other callers benefit from the result.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// When a connection last timed out. Connections that were last used before that time are not used
/// again: the network or the server failed without closing them, and each would cost a caller the
/// same timeout.
#[derive(Clone, Default)]
pub(in crate::db) struct LastTimeout(Arc<Mutex<Option<Instant>>>);

impl LastTimeout {
    /// Records that a connection timed out now.
    pub(in crate::db) fn record(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn covers(&self, used: Instant) -> bool {
        self.0.lock().is_some_and(|at| used <= at)
    }
}

/// Creates a pool of up to `size` connections, for callers that wait up to `wait` for one. Connections that are closed or
/// do not answer a ping are replaced.
///
/// # Errors
/// Those of deadpool.
pub(in crate::db) fn pool(
    server: &Arc<Server>,
    size: usize,
    wait: Duration,
    last_timeout: &LastTimeout,
) -> Result<Pool<AsyncPgConnection>, BuildError> {
    let mut config = ManagerConfig::<AsyncPgConnection>::default();
    config.recycling_method = RecyclingMethod::Fast;
    let server = Arc::clone(server);
    config.custom_setup = Box::new(move |_| {
        let server = Arc::clone(&server);
        async move { server.connect().await }.boxed()
    });
    let (last_timeout, ping) = (last_timeout.clone(), PING_TIMEOUT.min(wait / 2));
    let check = Hook::async_fn(move |conn: &mut AsyncPgConnection, metrics| {
        let (last_timeout, used) = (last_timeout.clone(), metrics.recycled.unwrap_or(metrics.created));
        async move {
            if last_timeout.covers(used) {
                return Err(HookError::message("last used before another connection timed out"));
            }
            if used.elapsed() < PING_AFTER_IDLE {
                return Ok(());
            }
            match tokio::time::timeout(ping, conn.batch_execute("")).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(HookError::message("closed")),
                Err(_) => {
                    last_timeout.record();
                    Err(HookError::message("no answer to a ping"))
                }
            }
        }
        .boxed()
    });
    // `Server` has the URL, which may contain a password.
    let manager = AsyncDieselConnectionManager::new_with_config("", config);
    Pool::builder(manager).max_size(size).pre_recycle(check).build()
}
