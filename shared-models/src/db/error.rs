//! Errors of the database.

use std::{error::Error as StdError, fmt, sync::Arc};

use diesel::{
    ConnectionError,
    result::{DatabaseErrorInformation, DatabaseErrorKind, Error},
};
use diesel_async::pooled_connection::{PoolError, deadpool};

/// Why a query failed. The texts are for logs: they may contain names of tables and hosts, so clients do not get them.
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
    /// The configured URL or path cannot be used.
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

/// The text includes the cause, so the source is that of the cause.
impl StdError for DbError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause().source.as_deref().and_then(StdError::source)
    }
}

/// Beginnings of messages of temporary failures. diesel has no kinds for them, and passes on no error code.
const TEMPORARY: [&str; 9] = [
    // SQLite
    "database is locked",
    "database table is locked",
    "database schema is locked",
    "database or disk is full",
    "disk I/O error",
    // PostgreSQL: 40P01, 57P01, 57014, 25006
    "deadlock detected",
    "terminating connection",
    "canceling statement",
    "cannot execute",
];

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
                _ if TEMPORARY.iter().any(|start| details.message().starts_with(start)) => Self::Unavailable,
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
            error => Self::Unavailable(Cause::new(error.to_string(), error)),
        }
    }
}
