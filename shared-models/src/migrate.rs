//! Migrations of the schema to the version of this program.

#[cfg(test)]
mod tests;

use std::time::Duration;

use diesel::{
    Connection, QueryDsl, SqliteConnection, connection::SimpleConnection, migration::MigrationSource,
};
use diesel_async::{AsyncPgConnection, async_connection_wrapper::AsyncConnectionWrapper};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::time::Instant;

use crate::db::{Db, DbConfig, DbError, Server, load, sqlite_path};

const SQLITE: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("../migrations/postgres");

/// The version of the last migration: the digits before the underscore in its directory's name.
const EXPECTED: &str = "00003";

/// The advisory lock of migrations: "tidegate" as eight bytes.
const LOCK: i64 = 0x7469_6465_6761_7465;

/// How long a migration waits for a migration of another process, in seconds.
const LOCK_TIMEOUT_SECONDS: u32 = 120;

diesel::table! {
    /// The applied migrations, a table of diesel.
    __diesel_schema_migrations (version) {
        /// The digits before the underscore in the directory's name.
        version -> Text,
    }
}

/// The version of the schema that this program works with.
pub fn expected_version() -> &'static str {
    EXPECTED
}

/// Applies the pending migrations in one transaction, and returns their versions in order.
/// Concurrent calls, also of other processes, wait for each other.
///
/// # Errors
/// [`DbError::Config`] for an invalid URL, [`DbError::Unavailable`] if the database is unreachable or another migration
/// takes too long, [`DbError::Schema`] if the schema is that of a newer version, [`DbError::Broken`] if a migration fails.
pub async fn migrate(config: &DbConfig) -> Result<Vec<String>, DbError> {
    // Opening creates the file and its directory, and checks the URL.
    let db = Db::connect(config).await?;
    db.ping().await?;
    match schema_state(&db).await {
        Err(error @ DbError::Schema(_)) => Err(error),
        // Without a table of migrations, the query fails.
        _ => apply(config, Direction::Up).await,
    }
}

/// Waits until another process has applied the migrations of this program. Logs the reason for the
/// wait once. The database need not be running yet.
///
/// # Errors
/// [`DbError::Unavailable`] after `timeout`; [`DbError::Schema`].
pub async fn wait_for_schema(db: &Db, timeout: Duration) -> Result<(), DbError> {
    let end = Instant::now() + timeout;
    let mut told = false;
    loop {
        let missing = match schema_state(db).await {
            Ok(SchemaState::Current) => return Ok(()),
            Ok(SchemaState::Behind) => format!("it has no schema version {EXPECTED} yet"),
            Err(error @ DbError::Schema(_)) => return Err(error),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= end {
            return Err(DbError::unavailable(missing));
        }
        if !told {
            tracing::info!(
                version = EXPECTED,
                "waiting for the database: {missing}; `tidegate migrate` prepares it"
            );
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The migrations of the database, compared with those of this program.
#[derive(Debug, PartialEq, Eq)]
enum SchemaState {
    Current,
    /// Some are missing, all later than those that were applied.
    Behind,
}

/// # Errors
/// [`DbError::Schema`]: another version of the program has applied further migrations, or one in the middle is missing.
fn state(applied: &[String], known: &[String]) -> Result<SchemaState, DbError> {
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        return Err(DbError::schema(format!(
            "the database has the schema version {newer}, and this program knows versions up to {EXPECTED}: \
             use a newer version of the program"
        )));
    }
    let missing: Vec<_> = known.iter().filter(|version| !applied.contains(version)).collect();
    let Some(first) = missing.first() else { return Ok(SchemaState::Current) };
    if applied.iter().any(|version| version > *first) {
        return Err(DbError::schema(format!(
            "the migration {first} of the database is missing, although later ones were applied: \
             restore the database from a backup"
        )));
    }
    Ok(SchemaState::Behind)
}

async fn schema_state(db: &Db) -> Result<SchemaState, DbError> {
    use __diesel_schema_migrations as m;
    let applied: Vec<String> = load!(db, m::table.order(m::version).select(m::version))?;
    state(&applied, &known_versions()?)
}

/// The versions of the migrations of this program, in order.
fn known_versions() -> Result<Vec<String>, DbError> {
    let migrations = MigrationSource::<diesel::sqlite::Sqlite>::migrations(&SQLITE)
        .map_err(|error| DbError::broken(error.to_string()))?;
    let mut versions: Vec<_> =
        migrations.iter().map(|migration| migration.name().version().to_string()).collect();
    versions.sort();
    Ok(versions)
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    /// One migration.
    #[cfg(test)]
    Next,
    #[cfg(test)]
    Down,
}

async fn apply(config: &DbConfig, direction: Direction) -> Result<Vec<String>, DbError> {
    let task = match sqlite_path(&config.url).map(str::to_owned) {
        Some(path) => tokio::task::spawn_blocking(move || on_sqlite(&path, direction)),
        None => {
            let server = Server::new(&config.url, config.prepared_statements)?;
            let conn = server.connect_unlimited().await?;
            tokio::task::spawn_blocking(move || on_postgres(conn, direction))
        }
    };
    task.await.map_err(|error| DbError::broken(error.to_string()))?
}

fn on_sqlite(path: &str, direction: Direction) -> Result<Vec<String>, DbError> {
    let mut conn = SqliteConnection::establish(path)?;
    // A migration that replaces a table drops the old one. With foreign keys, this would delete the rows that refer to it.
    conn.batch_execute(&format!(
        "PRAGMA busy_timeout = {LOCK_TIMEOUT_SECONDS}000; PRAGMA foreign_keys = OFF;"
    ))?;
    conn.exclusive_transaction(|conn| {
        let versions = run(conn, SQLITE, direction)?;
        let broken = diesel::select(diesel::dsl::sql::<diesel::sql_types::BigInt>(
            "(SELECT count(*) FROM pragma_foreign_key_check)",
        ));
        match diesel::RunQueryDsl::get_result::<i64>(broken, conn)? {
            0 => Ok(versions),
            count => {
                Err(DbError::broken(format!("a migration left {count} rows that refer to missing rows")))
            }
        }
    })
}

fn on_postgres(conn: AsyncPgConnection, direction: Direction) -> Result<Vec<String>, DbError> {
    let mut conn: AsyncConnectionWrapper<AsyncPgConnection> = conn.into();
    conn.transaction(|conn| {
        // The transaction holds the lock, so it is always released, even behind a pooler. The
        // limits of queries do not apply to migrations.
        conn.batch_execute(&format!(
            "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s';
             SELECT pg_advisory_xact_lock({LOCK}); SET LOCAL lock_timeout = 0;"
        ))?;
        run(conn, POSTGRES, direction)
    })
}

fn run<C, DB>(
    conn: &mut C,
    migrations: EmbeddedMigrations,
    direction: Direction,
) -> Result<Vec<String>, DbError>
where
    DB: diesel::backend::Backend,
    C: MigrationHarness<DB>,
{
    let versions = match direction {
        Direction::Up => conn.run_pending_migrations(migrations),
        #[cfg(test)]
        Direction::Next => conn.run_next_migration(migrations).map(|version| vec![version]),
        #[cfg(test)]
        Direction::Down => conn.revert_all_migrations(migrations),
    };
    let versions = versions.map_err(|error| DbError::broken(error.to_string()))?;
    Ok(versions.iter().map(ToString::to_string).collect())
}
