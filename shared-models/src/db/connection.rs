//! A connection to either database, and macros for queries that run on both.

use diesel::{dsl::Filter, query_dsl::methods::FilterDsl};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, TransactionManager,
    pooled_connection::{PoolableConnection, deadpool::Object},
};

use super::{DbError, SqliteConnection};

/// A connection taken from a pool.
#[expect(clippy::large_enum_variant, reason = "there is one for each running query, in a task on the heap")]
pub(crate) enum Conn {
    Postgres(Object<AsyncPgConnection>),
    Sqlite(Object<SqliteConnection>),
}

type PgTransactions = <AsyncPgConnection as AsyncConnection>::TransactionManager;
type SqliteTransactions = <SqliteConnection as AsyncConnection>::TransactionManager;

impl Conn {
    /// Begins a transaction; on PostgreSQL with the statements in `begin`.
    pub(super) async fn begin(&mut self, begin: &str) -> Result<(), DbError> {
        match self {
            Self::Postgres(conn) => PgTransactions::begin_transaction_sql(&mut **conn, begin).await?,
            // A deferred transaction that reads first fails on its first write, without waiting, if
            // another process has written meanwhile. An immediate one waits for the write lock when
            // it begins.
            Self::Sqlite(conn) => {
                conn.spawn_blocking(|conn| {
                    diesel::connection::AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")
                })
                .await?;
            }
        }
        Ok(())
    }

    pub(super) async fn commit(&mut self) -> Result<(), DbError> {
        match self {
            Self::Postgres(conn) => PgTransactions::commit_transaction(&mut **conn).await?,
            Self::Sqlite(conn) => SqliteTransactions::commit_transaction(&mut **conn).await?,
        }
        Ok(())
    }

    pub(super) async fn rollback(&mut self) -> Result<(), DbError> {
        match self {
            Self::Postgres(conn) => PgTransactions::rollback_transaction(&mut **conn).await?,
            Self::Sqlite(conn) => SqliteTransactions::rollback_transaction(&mut **conn).await?,
        }
        Ok(())
    }

    /// Whether the connection is closed or its transaction state is unknown.
    pub(super) fn is_lost(&mut self) -> bool {
        match self {
            Self::Postgres(conn) => conn.is_broken(),
            Self::Sqlite(_) => false,
        }
    }

    /// Removes the connection from its pool and closes it: the response to its last statement was not read.
    pub(super) fn abandon(self) {
        match self {
            Self::Postgres(conn) => drop(Object::take(conn)),
            Self::Sqlite(conn) => drop(Object::take(conn)),
        }
    }
}

/// `INSERT … ON CONFLICT … DO UPDATE … WHERE condition`. Method syntax would be ambiguous with that of queries.
pub(crate) fn update_only_if<Q: FilterDsl<P>, P>(upsert: Q, condition: P) -> Filter<Q, P> {
    FilterDsl::filter(upsert, condition)
}

/// `on!(conn, |c| query.execute(c))`: awaits the query on a connection to either database.
macro_rules! on {
    ($conn:expr, |$c:ident| $query:expr) => {
        match $conn {
            $crate::db::Conn::Postgres(conn) => {
                let $c = &mut **conn;
                $query.await
            }
            $crate::db::Conn::Sqlite(conn) => {
                let $c = &mut **conn;
                $query.await
            }
        }
    };
}
pub(crate) use on;

/// The maximum number of rows in one statement.
pub(crate) const MAX_ROWS: usize = 1000;

/// `insert_all!(conn, rows, |values| insert_into(table).values(values)…)`: inserts many rows, [`MAX_ROWS`] in a statement;
/// on SQLite within one blocking task.
///
/// With `, if condition`, the query is an upsert whose update changes nothing where the condition is false. PostgreSQL
/// would write a new version of the row; SQLite does not write a page that stays the same, and diesel supports no
/// condition for many rows there.
macro_rules! insert_all {
    ($conn:expr, $rows:expr, |$values:ident| $query:expr) => {
        $crate::db::insert_all!(@ $conn, $rows, |$values| $query, $query)
    };
    ($conn:expr, $rows:expr, |$values:ident| $query:expr, if $condition:expr) => {
        $crate::db::insert_all!(
            @ $conn, $rows, |$values| $crate::db::update_only_if($query, $condition), $query
        )
    };
    (@ $conn:expr, $rows:expr, |$values:ident| $postgres:expr, $sqlite:expr) => {{
        let mut rows: Vec<_> = $rows;
        match $conn {
            $crate::db::Conn::Postgres(conn) => {
                while !rows.is_empty() {
                    let rest = rows.split_off(rows.len().min($crate::db::MAX_ROWS));
                    let $values = std::mem::replace(&mut rows, rest);
                    ::diesel_async::RunQueryDsl::execute($postgres, &mut **conn).await?;
                }
            }
            $crate::db::Conn::Sqlite(conn) => {
                conn.spawn_blocking(move |conn| {
                    while !rows.is_empty() {
                        let rest = rows.split_off(rows.len().min($crate::db::MAX_ROWS));
                        let $values = std::mem::replace(&mut rows, rest);
                        ::diesel::RunQueryDsl::execute($sqlite, conn)?;
                    }
                    Ok(())
                })
                .await?;
            }
        }
    }};
}
pub(crate) use insert_all;

/// `each!(conn, rows, |row| query)`: executes a statement for each row.
macro_rules! each {
    ($conn:expr, $rows:expr, |$row:pat_param| $query:expr) => {{
        let rows = $rows;
        match $conn {
            $crate::db::Conn::Postgres(conn) => {
                for $row in rows {
                    ::diesel_async::RunQueryDsl::execute($query, &mut **conn).await?;
                }
            }
            $crate::db::Conn::Sqlite(conn) => {
                conn.spawn_blocking(move |conn| {
                    for $row in rows {
                        ::diesel::RunQueryDsl::execute($query, conn)?;
                    }
                    Ok(())
                })
                .await?;
            }
        }
    }};
}
pub(crate) use each;
