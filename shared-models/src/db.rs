//! The database: SQLite for one machine, PostgreSQL for several. Queries are in one file per table family.
//!
//! Every query runs as a task of the runtime that [`Db::connect`] was called on. A caller may be dropped at any
//! `.await`, as actix does with a handler whose client disconnects: its transaction is still committed or rolled back.

mod availability;
pub mod blobs;
pub mod clock;
mod connect;
mod connection;
mod error;
mod file;
pub mod fills;
pub mod jobs;
pub mod links;
pub mod manifests;
pub mod nodes;
pub mod platforms;
mod postgres;
mod query;
pub mod record;
pub mod repositories;
pub mod tags;
#[cfg(test)]
pub(crate) mod tests;
pub mod upstream_states;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use diesel::{IntoSql, sql_types::Integer};
use diesel_async::{
    AsyncPgConnection, RunQueryDsl, pooled_connection::deadpool::Pool,
    sync_connection_wrapper::SyncConnectionWrapper,
};
use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub(crate) use connect::sqlite_path;
pub(crate) use connection::{Conn, MAX_ROWS, each, insert_all, on, update_only_if};
pub use error::{Cause, DbError};
use file::DatabaseFile;
use postgres::LastTimeout;
pub(crate) use postgres::Server;
pub(crate) use query::{columns, execute, first, from_column, load, to_column};

use availability::{Availability, Change};

type SqliteConnection = SyncConnectionWrapper<diesel::SqliteConnection>;

/// Timeout of a caller for its statements, in addition to the wait for a connection. The statements
/// continue after the timeout.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Timeouts of one statement and of one transaction on PostgreSQL. The server cancels a statement
/// earlier (see [`postgres`]), so a timeout means that the server is unreachable although the
/// connection is open.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(18);

/// `[database]`: how to connect to the database.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DbConfig {
    /// `sqlite://PATH` (also `sqlite:PATH`) or `postgres://…`. In the latter, `sslmode` is `disable`, `prefer` (the
    /// default), `require`, `verify-ca` or `verify-full`, and `sslrootcert` is a file of certificates (PEM) or `system`,
    /// with the meanings of libpq.
    #[serde(with = "settings::secret_url::database")]
    pub url: String,
    /// The maximum number of connections to PostgreSQL, or of readers of SQLite next to its one writer. At least 1.
    #[serde(deserialize_with = "settings::positive")]
    pub max_connections: usize,
    /// How long to wait for a free connection before [`DbError::Unavailable`].
    #[serde(with = "settings::duration::positive")]
    pub wait: Duration,
    /// Whether statements stay prepared on PostgreSQL. Must be false behind a pooler that assigns a
    /// session per transaction (PgBouncer with `pool_mode = transaction`): every statement then
    /// runs in a transaction of its own and leaves no state in the session, at the cost of more
    /// round trips per statement.
    pub prepared_statements: bool,
}

impl DbConfig {
    /// Whether the URL is that of a SQLite database.
    pub fn is_sqlite(&self) -> bool {
        sqlite_path(&self.url).is_some()
    }
}

impl Default for DbConfig {
    /// The default settings, with an empty URL.
    fn default() -> Self {
        Self {
            url: String::new(),
            max_connections: 10,
            wait: Duration::from_secs(5),
            prepared_statements: true,
        }
    }
}

impl fmt::Debug for DbConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DbConfig")
            .field("max_connections", &self.max_connections)
            .field("wait", &self.wait)
            .field("prepared_statements", &self.prepared_statements)
            .finish_non_exhaustive()
    }
}

/// A handle on the database, cheap to clone.
#[derive(Clone)]
pub struct Db {
    pools: Pools,
    wait: Duration,
    runtime: Handle,
    availability: Arc<Availability>,
    round_trips: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Pools {
    Postgres {
        pool: Pool<AsyncPgConnection>,
        server: Arc<Server>,
        last_timeout: LastTimeout,
    },
    /// SQLite permits one writer at a time. With one connection for writes, there are no lock waits within a process.
    Sqlite {
        write: Pool<SqliteConnection>,
        read: Pool<SqliteConnection>,
        file: DatabaseFile,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Transaction,
}

impl Db {
    /// Opens the SQLite file, and creates it and its directory if they are missing; or creates the pool for a PostgreSQL
    /// server, which need not be running yet. Must be called on the main runtime, on which all queries will run.
    ///
    /// # Errors
    /// [`DbError::Config`] for an invalid URL; [`DbError::Unavailable`] for a file that cannot be opened.
    pub async fn connect(config: &DbConfig) -> Result<Self, DbError> {
        let db = Self {
            pools: connect::pools(config)?,
            wait: config.wait,
            runtime: Handle::current(),
            availability: Arc::default(),
            round_trips: Arc::default(),
        };
        if let Pools::Sqlite { file, .. } = &db.pools {
            // The writer changes the file to WAL mode before any reader opens it.
            db.write(|_| async { Ok(()) }.boxed()).await?;
            file.remember()?;
        }
        Ok(db)
    }

    /// Runs a query without side effects. On SQLite, also checks that the path still names the file
    /// that was opened: connections to a deleted file keep working.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] if the database does not answer or the file was replaced.
    pub async fn ping(&self) -> Result<(), DbError> {
        if let Pools::Sqlite { file, .. } = &self.pools {
            let file = file.clone();
            let checked = self.runtime.spawn_blocking(move || file.check()).await;
            checked.map_err(|_| DbError::unavailable("the process is shutting down".to_owned()))??;
        }
        self.read(|conn| {
            async move {
                match conn {
                    Conn::Postgres(conn) => {
                        diesel::select(1.into_sql::<Integer>()).execute(&mut **conn).await?
                    }
                    // Selecting a constant would not read the file.
                    Conn::Sqlite(conn) => {
                        diesel::sql_query("SELECT count(*) FROM sqlite_schema").execute(&mut **conn).await?
                    }
                };
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// The number of queries and transactions of this handle and its clones so far.
    pub fn round_trips(&self) -> u64 {
        AtomicU64::load(&self.round_trips, Ordering::Relaxed)
    }

    /// Runs statements that only read.
    pub(crate) async fn read<R, F>(&self, work: F) -> Result<R, DbError>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, DbError>> + Send + 'static,
    {
        self.run(Access::Read, work).await
    }

    /// Runs one statement that writes.
    pub(crate) async fn write<R, F>(&self, work: F) -> Result<R, DbError>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, DbError>> + Send + 'static,
    {
        self.run(Access::Write, work).await
    }

    /// Runs statements that write in one transaction.
    pub(crate) async fn transaction<R, F>(&self, work: F) -> Result<R, DbError>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, DbError>> + Send + 'static,
    {
        self.run(Access::Transaction, work).await
    }

    async fn run<R, F>(&self, access: Access, work: F) -> Result<R, DbError>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, DbError>> + Send + 'static,
    {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        let db = self.clone();
        let task = self.runtime.spawn(async move {
            let mut conn = db.connection(access).await?;
            let Pools::Postgres { server, last_timeout, .. } = &db.pools else {
                return carry_out(&mut conn, (access == Access::Transaction).then_some(""), work).await;
            };
            let alone = access != Access::Transaction && server.keeps_sessions();
            let timeout = if access == Access::Transaction { TRANSACTION_TIMEOUT } else { STATEMENT_TIMEOUT };
            let done = carry_out(&mut conn, (!alone).then(|| server.begin()), work);
            match tokio::time::timeout(timeout, done).await {
                Ok(Err(DbError::Broken(cause))) if conn.is_lost() => Err(DbError::Unavailable(cause)),
                Ok(result) => result,
                Err(_) => {
                    last_timeout.record();
                    conn.abandon();
                    Err(DbError::unavailable("the database did not answer in time".to_owned()))
                }
            }
        });
        let result = match tokio::time::timeout(self.wait + QUERY_TIMEOUT, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(join)) if join.is_panic() => Err(DbError::broken("a query panicked".to_owned())),
            Ok(Err(_)) => return Err(DbError::unavailable("the process is shutting down".to_owned())),
            Err(_) => Err(DbError::unavailable("the database is too slow to answer".to_owned())),
        };
        self.log_availability(&result);
        result
    }

    /// Whether the last query reached the database.
    pub fn is_available(&self) -> bool {
        self.availability.is_available()
    }

    /// The duration of the current outage of the database, or of one that ended within `within`; 0
    /// if there is neither. If another process did not update its row during an outage, this does
    /// not mean that the process stopped.
    pub fn recent_outage(&self, within: Duration) -> Duration {
        self.availability.recent_outage(within)
    }

    /// Logs when the database becomes unavailable or available, once for all users of this handle.
    fn log_availability<R>(&self, result: &Result<R, DbError>) {
        let reason = match result {
            Err(DbError::Unavailable(reason)) => Some(reason),
            _ => None,
        };
        match self.availability.observe(reason.is_none()) {
            Some(Change::Lost) => {
                tracing::warn!(error = reason.map_or("", Cause::as_str), "database unavailable");
            }
            Some(Change::Recovered) => tracing::info!("database available"),
            None => {}
        }
    }

    async fn connection(&self, access: Access) -> Result<Conn, DbError> {
        let get = async {
            match (&self.pools, access) {
                (Pools::Postgres { pool, .. }, _) => pool.get().await.map(Conn::Postgres),
                (Pools::Sqlite { read, .. }, Access::Read) => read.get().await.map(Conn::Sqlite),
                (Pools::Sqlite { write, .. }, _) => write.get().await.map(Conn::Sqlite),
            }
        };
        match tokio::time::timeout(self.wait, get).await {
            Ok(conn) => Ok(conn?),
            Err(_) => Err(DbError::unavailable("no database connection became free in time".to_owned())),
        }
    }
}

/// Runs the work, in a transaction if `begin` contains the statements that begin one.
async fn carry_out<R, F>(conn: &mut Conn, begin: Option<&str>, work: F) -> Result<R, DbError>
where
    F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, DbError>>,
{
    let Some(begin) = begin else { return work(conn).await };
    conn.begin(begin).await?;
    match work(conn).await {
        Ok(done) => conn.commit().await.map(|()| done),
        Err(error) => {
            // The pool drops a connection that cannot roll back.
            if let Err(error) = conn.rollback().await {
                tracing::debug!(%error, "failed to roll back a transaction");
            }
            Err(error)
        }
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.pools {
            Pools::Postgres { .. } => "Db(postgres)",
            Pools::Sqlite { .. } => "Db(sqlite)",
        })
    }
}
