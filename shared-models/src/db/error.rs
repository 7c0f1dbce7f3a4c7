//! What can go wrong between here and the database.

use diesel::{
    ConnectionError,
    result::{DatabaseErrorInformation, DatabaseErrorKind, Error},
};
use diesel_async::pooled_connection::{PoolError, deadpool};

/// A query failed. The texts are for logs: they may name tables and hosts, so no client reads them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// Not now: no connection became free, the server is away, the file is locked. Asking again later may help (503).
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The write contradicts what is there: a constraint, or a row that changed meanwhile.
    #[error("the database refused a write: {0}")]
    Conflict(String),
    /// A defect: a row that can't be read, a statement that the database doesn't take (500).
    #[error("the database gave an unexpected answer: {0}")]
    Broken(String),
    /// The database has a schema that this program cannot work with.
    #[error("{0}")]
    Schema(String),
    /// The configured URL or path can't be used.
    #[error("the database is not configured well: {0}")]
    Config(String),
}

/// Beginnings of messages whose error code diesel doesn't pass on, and that go away by themselves.
const PASSING: [&str; 9] = [
    "database is locked",
    "database table is locked",
    "database schema is locked",
    "database or disk is full",
    "disk I/O error",
    "deadlock detected",
    "terminating connection",
    "canceling statement",
    "cannot execute",
];

impl From<Error> for DbError {
    fn from(error: Error) -> Self {
        use DatabaseErrorKind as Kind;
        match error {
            Error::DatabaseError(kind, details) => match kind {
                Kind::ClosedConnection
                | Kind::UnableToSendCommand
                | Kind::SerializationFailure
                | Kind::ReadOnlyTransaction => Self::Unavailable(describe(&*details)),
                Kind::UniqueViolation
                | Kind::ForeignKeyViolation
                | Kind::NotNullViolation
                | Kind::CheckViolation
                | Kind::RestrictViolation
                | Kind::ExclusionViolation => Self::Conflict(describe(&*details)),
                _ if PASSING.iter().any(|start| details.message().starts_with(start)) => {
                    Self::Unavailable(describe(&*details))
                }
                _ => Self::Broken(describe(&*details)),
            },
            Error::BrokenTransactionManager => Self::Unavailable("the transaction was lost".to_owned()),
            error => Self::Broken(error.to_string()),
        }
    }
}

fn describe(details: &(dyn DatabaseErrorInformation + Send + Sync)) -> String {
    match details.constraint_name().or_else(|| details.table_name()) {
        Some(place) => format!("{} ({place})", details.message()),
        None => details.message().to_owned(),
    }
}

impl From<ConnectionError> for DbError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::InvalidCString(_) | ConnectionError::InvalidConnectionUrl(_) => {
                Self::Config(error.to_string())
            }
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<deadpool::PoolError> for DbError {
    fn from(error: deadpool::PoolError) -> Self {
        match error {
            deadpool::PoolError::Backend(PoolError::ConnectionError(error)) => error.into(),
            error => Self::Unavailable(error.to_string()),
        }
    }
}
