//! The database: SQLite for one machine, PostgreSQL for several. One file of queries a resource.
//!
//! Every query runs as a task of the runtime that [`Db::connect`] was called on. A caller may be dropped at any
//! `.await` (actix drops a handler whose client is gone) and its transaction still ends as it should.

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
pub(crate) use connection::{Conn, each, insert_all, on, update_only_if};
pub use error::{Cause, DbError};
use file::DatabaseFile;
use postgres::LastTimeout;
pub(crate) use postgres::Server;
pub(crate) use query::{columns, execute, first, from_column, load, to_column};

use availability::{Availability, Change};

type SqliteConnection = SyncConnectionWrapper<diesel::SqliteConnection>;

/// How long a caller waits for statements, beyond the wait for a connection. What was begun goes on without it.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long PostgreSQL may be silent over one statement, and over a transaction. It ends a statement itself before then
/// (see [`postgres`]): silence means that it can't be reached, though nothing was closed.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(18);

/// `[database]`: how to connect to the database.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DbConfig {
    /// `sqlite://PATH` (also `sqlite:PATH`) or `postgres://…`. In the latter, `sslmode` is `disable`, `prefer` (what
    /// counts when it isn't given), `require`, `verify-ca` or `verify-full`, and `sslrootcert` a file of certificates
    /// (PEM) or `system`; both mean what libpq says.
    #[serde(with = "settings::secret_url::database")]
    pub url: String,
    /// The most connections to PostgreSQL, and the most that read from SQLite beside its one writer. At least 1.
    #[serde(deserialize_with = "settings::positive")]
    pub max_connections: usize,
    /// How long to wait for a free connection before [`DbError::Unavailable`].
    #[serde(with = "settings::duration::positive")]
    pub wait: Duration,
    /// Whether PostgreSQL may keep statements prepared. Not behind a pooler that gives each transaction another session
    /// (PgBouncer with `pool_mode = transaction`): without, every statement runs in a transaction of its own and
    /// leaves nothing behind. Slower, by some round trips a statement.
    pub prepared_statements: bool,
}

impl DbConfig {
    /// Whether the URL is that of a SQLite database.
    pub fn is_sqlite(&self) -> bool {
        sqlite_path(&self.url).is_some()
    }
}

impl Default for DbConfig {
    /// Without a URL.
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
    /// SQLite takes one writer at a time, so there is one connection for it and no waiting for locks in a process.
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
    /// Opens the SQLite file, making it and its folder where they are missing, or readies the pool for a PostgreSQL
    /// server, which need not be up yet. Call it on the main runtime, on which all queries will run.
    ///
    /// # Errors
    /// [`DbError::Config`] for a URL that is not understood; [`DbError::Unavailable`] for a file that can't be opened.
    pub async fn connect(config: &DbConfig) -> Result<Self, DbError> {
        let db = Self {
            pools: connect::pools(config)?,
            wait: config.wait,
            runtime: Handle::current(),
            availability: Arc::default(),
            round_trips: Arc::default(),
        };
        if let Pools::Sqlite { file, .. } = &db.pools {
            // The writer is the one to turn the file to WAL, before any reader opens it.
            db.write(|_| async { Ok(()) }.boxed()).await?;
            file.remember()?;
        }
        Ok(db)
    }

    /// Whether the database answers; of SQLite also whether the file is still the one that was opened, for connections
    /// to one that was removed go on as if nothing had happened.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] where it doesn't.
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
                    // A number alone would be answered without a look at the file.
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

    /// How often this handle and its clones have used the database: the number of queries and transactions so far.
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

    /// Runs statements that write, all or none.
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

    /// The duration of the running outage of the database, or of one that ended within `within`; 0 without one. What other
    /// processes could not write meanwhile says nothing about them.
    pub fn recent_outage(&self, within: Duration) -> Duration {
        self.availability.recent_outage(within)
    }

    /// Logs when the database becomes unavailable and when it is available again, so that its users need not.
    fn log_availability<R>(&self, result: &Result<R, DbError>) {
        let reason = match result {
            Err(DbError::Unavailable(reason)) => Some(reason),
            _ => None,
        };
        match self.availability.observe(reason.is_none()) {
            Some(Change::Lost) => {
                let reason = reason.map_or("", Cause::as_str);
                tracing::warn!("the database is not available: {reason}");
            }
            Some(Change::Recovered) => tracing::info!("the database is available again"),
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

/// Does the work, all or none of it where there is something to `begin` it with.
async fn carry_out<R, F>(conn: &mut Conn, begin: Option<&str>, work: F) -> Result<R, DbError>
where
    F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, DbError>>,
{
    let Some(begin) = begin else { return work(conn).await };
    conn.begin(begin).await?;
    match work(conn).await {
        Ok(done) => conn.commit().await.map(|()| done),
        Err(error) => {
            // A connection that can't roll back is not given to anybody again.
            conn.rollback().await.unwrap_or_else(|_| tracing::debug!("a transaction was lost"));
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
