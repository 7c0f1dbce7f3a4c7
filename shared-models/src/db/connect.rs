//! From the configured URL to pools of connections.

use std::{path::Path, time::Duration};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{BuildError, Pool},
    },
};
use futures::{FutureExt, future::BoxFuture};

use super::{DbConfig, DbError, Pools, SqliteConnection};

/// For the one connection that writes. `FULL`, for a row that says `stored` must outlive a power cut once it was seen.
/// Another process may hold the write lock, hence the busy timeout (milliseconds).
const WRITER: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                      PRAGMA foreign_keys = ON;";

/// For those that read. In WAL they never wait for the writer.
const READER: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;";

const OPEN_TRIES: u32 = 100;

/// The path in a SQLite URL; none for a URL of something else.
pub(crate) fn sqlite_path(url: &str) -> Option<&str> {
    url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))
}

pub(super) fn pools(config: &DbConfig) -> Result<Pools, DbError> {
    let size = config.max_connections.max(1);
    let failed = |error: BuildError| DbError::Config(error.to_string());
    if let Some(path) = sqlite_path(&config.url) {
        make_folder(path)?;
        let writer = manager(path, |path| open(path, WRITER).boxed());
        let reader = manager(path, |path| open(path, READER).boxed());
        return Ok(Pools::Sqlite {
            write: Pool::builder(writer).max_size(1).build().map_err(failed)?,
            read: Pool::builder(reader).max_size(size).build().map_err(failed)?,
        });
    }
    if config.url.starts_with("postgres://") || config.url.starts_with("postgresql://") {
        let server = manager(&with_liveness(&config.url), |url| AsyncPgConnection::establish(url).boxed());
        return Ok(Pools::Postgres(Pool::builder(server).max_size(size).build().map_err(failed)?));
    }
    Err(DbError::Config("the URL must begin with sqlite:// or postgres://".to_owned()))
}

fn manager<C: AsyncConnection + 'static>(
    url: &str,
    open: fn(&str) -> BoxFuture<'_, ConnectionResult<C>>,
) -> AsyncDieselConnectionManager<C> {
    let mut config = ManagerConfig::<C>::default();
    config.custom_setup = Box::new(open);
    // A closed connection is noticed without asking the server before every query.
    config.recycling_method = RecyclingMethod::Fast;
    AsyncDieselConnectionManager::new_with_config(url, config)
}

async fn open(path: &str, pragmas: &'static str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(path).await?;
    // The change to WAL is the one statement that doesn't wait for a lock: two processes may start together.
    let mut tries = 1;
    while let Err(error) = conn.batch_execute(pragmas).await {
        if tries == OPEN_TRIES {
            return Err(ConnectionError::CouldntSetupConfiguration(error));
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(conn)
}

fn make_folder(path: &str) -> Result<(), DbError> {
    if path.is_empty() || path.contains(":memory:") {
        return Err(DbError::Config("SQLite needs the path of a file".to_owned()));
    }
    match Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => std::fs::create_dir_all(folder)
            .map_err(|error| DbError::Unavailable(format!("cannot make {}: {error}", folder.display()))),
        None => Ok(()),
    }
}

/// A server that vanished without a word is to be noticed within seconds, not with the kernel's patience of a quarter
/// of an hour. What the operator wrote in the URL stands.
pub(crate) fn with_liveness(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, value) in [("keepalives_idle", "30"), ("tcp_user_timeout", "15"), ("connect_timeout", "10")] {
        if !url.contains(name) {
            let separator = if url.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{separator}{name}={value}"));
        }
    }
    url
}
