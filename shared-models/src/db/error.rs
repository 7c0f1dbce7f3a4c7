//! Errors of the database.

use std::{error::Error as StdError, fmt, sync::Arc};

use diesel::{
    ConnectionError,
    result::{DatabaseErrorInformation, DatabaseErrorKind, Error},
};
use diesel_async::pooled_connection::{PoolError, deadpool};

/// Why a query failed. The texts are for logs: they may contain names of tables and hosts, so they
/// are not sent to clients.
#[derive(Debug, Clone)]
pub enum DbError {
    /// No connection became free, the server cannot be reached, or the file is locked. A retry may succeed (503).
    Unavailable(Cause),
    /// The write contradicts the database: a constraint, or a row that changed meanwhile.
    Conflict(Cause),
    /// A defect: a row that cannot be read, or a statement that the database does not accept (500).
    Broken(Cause),
    /// The database has a schema that this program cannot work with.
    Schema(Cause),
    /// The configured URL or path is invalid.
    Config(Cause),
}

/// The cause of a [`DbError`]: a text, and the underlying error, where there is one.
#[derive(Debug, Clone)]
pub struct Cause {
    text: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Cause {
    fn new(text: impl Into<String>, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { text: text.into(), source: Some(Arc::new(source)) }
    }

    /// The cause as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl DbError {
    /// [`DbError::Unavailable`] without an underlying error.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable(Cause { text: text.into(), source: None })
    }

    /// [`DbError::Conflict`] without an underlying error.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::Conflict(Cause { text: text.into(), source: None })
    }

    /// [`DbError::Broken`] without an underlying error.
    pub fn broken(text: impl Into<String>) -> Self {
        Self::Broken(Cause { text: text.into(), source: None })
    }

    /// [`DbError::Schema`].
    pub fn schema(text: impl Into<String>) -> Self {
        Self::Schema(Cause { text: text.into(), source: None })
    }

    /// [`DbError::Config`].
    pub fn config(text: impl Into<String>) -> Self {
        Self::Config(Cause { text: text.into(), source: None })
    }

    fn cause(&self) -> &Cause {
        match self {
            Self::Unavailable(cause)
            | Self::Conflict(cause)
            | Self::Broken(cause)
            | Self::Schema(cause)
            | Self::Config(cause) => cause,
        }
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Unavailable(_) => "the database is unavailable: ",
            Self::Conflict(_) => "the database refused a write: ",
            Self::Broken(_) => "the database gave an unexpected answer: ",
            Self::Schema(_) => "",
            Self::Config(_) => "invalid database configuration: ",
        };
        write!(out, "{what}{}", self.cause())
    }
}

/// The text includes the cause, so `source` returns the source of the cause.
impl StdError for DbError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause().source.as_deref().and_then(StdError::source)
    }
}

/// Prefixes of the messages of temporary failures of SQLite. diesel maps only constraint violations
/// to kinds, and does not expose the error code.
const TEMPORARY_IN_SQLITE: [&str; 5] = [
    "database is locked",
    "database table is locked",
    "database schema is locked",
    "database or disk is full",
    "disk I/O error",
];

/// Prefixes of the messages of temporary failures of PostgreSQL that have no [`DatabaseErrorKind`]:
/// diesel-async does not expose the SQLSTATE. The messages are those of a server whose
/// `lc_messages` is English.
const TEMPORARY_IN_POSTGRES: [&str; 3] = [
    // 40P01
    "deadlock detected",
    // 57P01, 57P05, 25P03, 25P04
    "terminating connection",
    // 57014, 55P03
    "canceling statement",
];

fn is_temporary(message: &str) -> bool {
    let mut starts = TEMPORARY_IN_SQLITE.iter().chain(&TEMPORARY_IN_POSTGRES);
    starts.any(|start| message.starts_with(start))
}

impl From<Error> for DbError {
    fn from(error: Error) -> Self {
        use DatabaseErrorKind as Kind;
        let text = describe(&error);
        let variant = match &error {
            Error::DatabaseError(kind, details) => match kind {
                Kind::ClosedConnection
                | Kind::UnableToSendCommand
                | Kind::SerializationFailure
                | Kind::ReadOnlyTransaction => Self::Unavailable,
                Kind::UniqueViolation
                | Kind::ForeignKeyViolation
                | Kind::NotNullViolation
                | Kind::CheckViolation
                | Kind::RestrictViolation
                | Kind::ExclusionViolation => Self::Conflict,
                _ if is_temporary(details.message()) => Self::Unavailable,
                _ => Self::Broken,
            },
            Error::BrokenTransactionManager => Self::Unavailable,
            _ => Self::Broken,
        };
        variant(Cause::new(text, error))
    }
}

fn describe(error: &Error) -> String {
    match error {
        Error::DatabaseError(_, details) => {
            let details: &(dyn DatabaseErrorInformation + Send + Sync) = &**details;
            match details.constraint_name().or_else(|| details.table_name()) {
                Some(place) => format!("{} ({place})", details.message()),
                None => details.message().to_owned(),
            }
        }
        Error::BrokenTransactionManager => "the transaction was lost".to_owned(),
        error => error.to_string(),
    }
}

impl From<ConnectionError> for DbError {
    fn from(error: ConnectionError) -> Self {
        let text = error.to_string();
        match error {
            ConnectionError::InvalidCString(_) | ConnectionError::InvalidConnectionUrl(_) => {
                Self::Config(Cause::new(text, error))
            }
            error => Self::Unavailable(Cause::new(text, error)),
        }
    }
}

impl From<deadpool::PoolError> for DbError {
    fn from(error: deadpool::PoolError) -> Self {
        match error {
            deadpool::PoolError::Backend(PoolError::ConnectionError(error)) => error.into(),
            // The text of deadpool's error contains that of its source.
            deadpool::PoolError::Backend(PoolError::QueryError(error)) => {
                Self::Unavailable(Cause::new(describe(&error), error))
            }
            error => Self::Unavailable(Cause::new(error.to_string(), error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(kind: DatabaseErrorKind, message: &str) -> DbError {
        Error::DatabaseError(kind, Box::new(message.to_owned())).into()
    }

    #[test]
    fn temporary_failures_are_unavailable_by_kind_or_by_message() {
        use DatabaseErrorKind as Kind;
        for (kind, message) in [
            (Kind::Unknown, "database is locked"),
            (Kind::Unknown, "database or disk is full"),
            (Kind::Unknown, "deadlock detected"),
            (Kind::Unknown, "terminating connection due to administrator command"),
            (Kind::Unknown, "canceling statement due to lock timeout"),
            (Kind::ReadOnlyTransaction, "text in any language"),
            (Kind::SerializationFailure, "text in any language"),
            (Kind::ClosedConnection, "text in any language"),
            (Kind::UnableToSendCommand, "text in any language"),
        ] {
            let error = database(kind, message);
            assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
        }
        assert!(matches!(Error::BrokenTransactionManager.into(), DbError::Unavailable(_)));
        let conflict = database(Kind::UniqueViolation, "database is locked");
        assert!(matches!(conflict, DbError::Conflict(_)), "{conflict:?}");
        for broken in [database(Kind::Unknown, "syntax error: deadlock detected"), Error::NotFound.into()] {
            assert!(matches!(broken, DbError::Broken(_)), "{broken:?}");
        }
    }

    #[test]
    fn each_text_of_the_chain_is_there_once() {
        let cause = "17".parse::<u8>().and_then(|_| "x".parse::<u8>()).unwrap_err();
        let errors = [
            database(DatabaseErrorKind::Unknown, "no such table"),
            Error::DeserializationError(Box::new(cause.clone())).into(),
            deadpool::PoolError::Backend(PoolError::QueryError(Error::QueryBuilderError(Box::new(cause))))
                .into(),
            deadpool::PoolError::Closed.into(),
        ];
        for error in errors {
            let outermost: &dyn StdError = &error;
            let chain = std::iter::successors(Some(outermost), |error| (*error).source());
            let texts: Vec<_> = chain.map(ToString::to_string).collect();
            for (at, text) in texts.iter().enumerate() {
                assert!(!texts.iter().take(at).any(|outer| outer.contains(text)), "{texts:?}");
            }
        }
    }
}
