//! Macros that run one statement on either database, and helpers for its columns.

use diesel::{Selectable, pg::Pg};

/// The columns of a row type. They are the same on both databases, hence a query with them runs on either.
pub(crate) fn columns<T: Selectable<Pg>>() -> T::SelectExpression {
    T::construct_selection()
}

/// An unsigned number as a column.
pub(crate) fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An unsigned number from a column. A negative number, which is never written, counts as 0.
pub(crate) fn from_column(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// `first!(db, query)`: the first row, if there is one.
macro_rules! first {
    ($db:expr, $query:expr) => {{
        let query = $query;
        $db.read(move |conn| {
            ::futures::FutureExt::boxed(async move {
                let row = $crate::db::on!(conn, |c| ::diesel_async::RunQueryDsl::first(query, c));
                Ok(::diesel::OptionalExtension::optional(row)?)
            })
        })
        .await
    }};
}
pub(crate) use first;

/// `load!(db, query)`: all rows.
macro_rules! load {
    ($db:expr, $query:expr) => {{
        let query = $query;
        $db.read(move |conn| {
            ::futures::FutureExt::boxed(async move {
                Ok($crate::db::on!(conn, |c| ::diesel_async::RunQueryDsl::load(query, c))?)
            })
        })
        .await
    }};
}
pub(crate) use load;

/// `execute!(db, statement)`: executes a statement that writes. Returns the number of affected rows.
macro_rules! execute {
    ($db:expr, $query:expr) => {{
        let query = $query;
        $db.write(move |conn| {
            ::futures::FutureExt::boxed(async move {
                Ok($crate::db::on!(conn, |c| ::diesel_async::RunQueryDsl::execute(query, c))?)
            })
        })
        .await
    }};
}
pub(crate) use execute;
