//! Creates the connection pools for the configured URL.

use std::{path::Path, sync::Arc, time::Duration};

use backon::{ConstantBuilder, RetryableWithContext as _};
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncConnection, SimpleAsyncConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{BuildError, Pool},
    },
};
use futures::{FutureExt, future::BoxFuture};

use super::{
    DbConfig, DbError, Pools, SqliteConnection,
    file::DatabaseFile,
    postgres::{self, LastTimeout, Server},
};

/// Settings of the writer. `FULL`: a blob that was reported as stored must still be recorded after a power failure.
/// Another process may hold the write lock, hence the busy timeout (milliseconds).
const WRITER: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                      PRAGMA foreign_keys = ON;";

/// Settings of the readers. In WAL mode they never wait for the writer.
const READER: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;";

/// Maximum retries of the statements that set up a connection to SQLite: 2 seconds in total.
const MAX_SETUP_RETRIES: usize = 99;
const SETUP_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The path in a SQLite URL; `None` for other URLs.
pub(crate) fn sqlite_path(url: &str) -> Option<&str> {
    url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))
}

pub(super) fn pools(config: &DbConfig) -> Result<Pools, DbError> {
    let size = config.max_connections.max(1);
    let failed = |error: BuildError| DbError::config(error.to_string());
    if let Some(path) = sqlite_path(&config.url) {
        make_folder(path)?;
        let writer = manager(path, |path| open(path, WRITER).boxed());
        let reader = manager(path, |path| open(path, READER).boxed());
        return Ok(Pools::Sqlite {
            write: Pool::builder(writer).max_size(1).build().map_err(failed)?,
            read: Pool::builder(reader).max_size(size).build().map_err(failed)?,
            file: DatabaseFile::new(path),
        });
    }
    if is_postgres(&config.url) {
        let server = Arc::new(Server::new(&config.url, config.prepared_statements)?);
        let last_timeout = LastTimeout::default();
        let pool = postgres::pool(&server, size, config.wait, &last_timeout).map_err(failed)?;
        return Ok(Pools::Postgres { pool, server, last_timeout });
    }
    Err(DbError::config("the URL must begin with sqlite:// or postgres://".to_owned()))
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn manager(
    path: &str,
    open: fn(&str) -> BoxFuture<'_, ConnectionResult<SqliteConnection>>,
) -> AsyncDieselConnectionManager<SqliteConnection> {
    let mut config = ManagerConfig::<SqliteConnection>::default();
    config.custom_setup = Box::new(open);
    config.recycling_method = RecyclingMethod::Fast;
    AsyncDieselConnectionManager::new_with_config(path, config)
}

async fn open(path: &str, pragmas: &'static str) -> ConnectionResult<SqliteConnection> {
    // The switch to WAL mode is the only statement that does not wait for a lock, and two processes
    // may start at the same time.
    let set_up = |mut conn: SqliteConnection| async move {
        let result = conn.batch_execute(pragmas).await;
        (conn, result)
    };
    let (conn, result) = set_up
        .retry(ConstantBuilder::new().with_delay(SETUP_RETRY_INTERVAL).with_max_times(MAX_SETUP_RETRIES))
        .context(SqliteConnection::establish(path).await?)
        .await;
    result.map(|()| conn).map_err(ConnectionError::CouldntSetupConfiguration)
}

fn make_folder(path: &str) -> Result<(), DbError> {
    if path.is_empty() || path.contains(":memory:") {
        return Err(DbError::config("SQLite needs the path of a file".to_owned()));
    }
    match Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => std::fs::create_dir_all(folder)
            .map_err(|error| DbError::unavailable(format!("failed to create {}: {error}", folder.display()))),
        None => Ok(()),
    }
}
