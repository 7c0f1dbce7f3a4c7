//! A pool that hands out living connections only.

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

/// A connection that was not used for so long is asked whether it lives before somebody gets it.
const PING_AFTER_IDLE: Duration = Duration::from_secs(5);

/// How long it may take to say so, at most. It is never more than half of what a caller waits for a connection: one who
/// gave up first would leave the others to find out by themselves.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// When a connection was last found silent. What was last used before then is not to be trusted: the network or the
/// server is gone without a word, and each of them would cost somebody the same wait.
#[derive(Clone, Default)]
pub(in crate::db) struct LastTimeout(Arc<Mutex<Option<Instant>>>);

impl LastTimeout {
    /// A connection is silent.
    pub(in crate::db) fn record(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn covers(&self, used: Instant) -> bool {
        self.0.lock().is_some_and(|at| used <= at)
    }
}

/// A pool of up to `size` connections, for callers who wait up to `wait` for one. A closed one is noticed without asking
/// and replaced, as is one that is silent.
///
/// # Errors
/// As deadpool says.
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
                Ok(Err(_)) => Err(HookError::message("it is closed")),
                Err(_) => {
                    last_timeout.record();
                    Err(HookError::message("it is silent"))
                }
            }
        }
        .boxed()
    });
    // The URL stays with the server: it may have a password in it.
    let manager = AsyncDieselConnectionManager::new_with_config("", config);
    Pool::builder(manager).max_size(size).pre_recycle(check).build()
}
