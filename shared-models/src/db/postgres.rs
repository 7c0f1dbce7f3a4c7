//! Opens connections to PostgreSQL.

mod pool;
mod tls;
mod url;
mod verify;

use std::{error::Error, fmt::Write, time::Duration};

use diesel::{ConnectionError, ConnectionResult, connection::CacheSize};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use tokio_postgres::{Client, Config, Connection, Socket, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::DbError;
pub(super) use pool::{LastTimeout, pool};
use tls::is_handshake_failure;

/// Limits in milliseconds that the server enforces, by the names of its settings.
const LIMITS: [(&str, u32); 3] =
    [("statement_timeout", 8_000), ("lock_timeout", 5_000), ("idle_in_transaction_session_timeout", 15_000)];

/// A PostgreSQL server, and how to connect to it.
pub(crate) struct Server {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    /// Timeout of all steps of opening a connection: DNS, TCP, TLS, authentication, settings.
    connect_timeout: Duration,
    /// Whether statements stay prepared; see [`DbConfig::prepared_statements`](super::DbConfig::prepared_statements).
    prepared_statements: bool,
    limits: Vec<(&'static str, u32)>,
    begin: String,
}

impl Server {
    /// Parses the URL and reads the certificates that it names.
    ///
    /// # Errors
    /// [`DbError::Config`] for an invalid URL, or certificates that cannot be read.
    pub(crate) fn new(url: &str, prepared_statements: bool) -> Result<Self, DbError> {
        let url::Parsed { config, verification } = url::parse(url)?;
        let tls = verification.map(tls::connector).transpose()?;
        let connect_timeout = config.get_connect_timeout().copied().unwrap_or(url::CONNECT_TIMEOUT);
        let options = config.get_options().unwrap_or_default();
        // Settings in the URL take precedence.
        let limits: Vec<_> = LIMITS.into_iter().filter(|(name, _)| !options.contains(name)).collect();
        let begin = if prepared_statements { "BEGIN".to_owned() } else { begin_with(&limits) };
        Ok(Self { config, tls, connect_timeout, prepared_statements, limits, begin })
    }

    /// Whether settings and prepared statements of a session outlive a transaction.
    pub(super) fn keeps_sessions(&self) -> bool {
        self.prepared_statements
    }

    /// The statements that begin a transaction.
    pub(super) fn begin(&self) -> &str {
        &self.begin
    }

    /// Opens a connection for queries, with [`LIMITS`].
    pub(super) async fn connect(&self) -> ConnectionResult<AsyncPgConnection> {
        let mut conn = self.connect_unlimited().await?;
        if self.prepared_statements {
            let settings: String = self.limits.iter().fold(String::new(), |mut text, (name, limit)| {
                // Writing to a string does not fail.
                let _written = write!(text, "SET {name} = {limit};");
                text
            });
            conn.batch_execute(&settings).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(conn)
    }

    /// Opens a connection without [`LIMITS`], for long-running statements.
    pub(crate) async fn connect_unlimited(&self) -> ConnectionResult<AsyncPgConnection> {
        match tokio::time::timeout(self.connect_timeout, self.establish()).await {
            Ok(conn) => conn,
            Err(_) => Err(ConnectionError::BadConnection("the server did not answer in time".to_owned())),
        }
    }

    async fn establish(&self) -> ConnectionResult<AsyncPgConnection> {
        let Some(tls) = &self.tls else {
            let (client, connection) =
                self.config.connect(tokio_postgres::NoTls).await.map_err(|error| bad(&error))?;
            return self.set_up(client, connection).await;
        };
        match self.config.connect(tls.clone()).await {
            Ok((client, connection)) => self.set_up(client, connection).await,
            // As libpq: with `prefer`, a TLS handshake that fails is followed by a connection without TLS.
            Err(error) if self.config.get_ssl_mode() == SslMode::Prefer && is_handshake_failure(&error) => {
                let mut plain = self.config.clone();
                plain.ssl_mode(SslMode::Disable);
                let (client, connection) =
                    plain.connect(tokio_postgres::NoTls).await.map_err(|error| bad(&error))?;
                self.set_up(client, connection).await
            }
            Err(error) => Err(bad(&error)),
        }
    }

    async fn set_up<S>(
        &self,
        client: Client,
        mut connection: Connection<Socket, S>,
    ) -> ConnectionResult<AsyncPgConnection>
    where
        S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
    {
        if self.prepared_statements {
            return AsyncPgConnection::try_from_client_and_connection(client, connection).await;
        }
        // diesel-async first sends statements of its own, which must all reach the same session.
        // The connection is polled here until diesel-async owns it.
        tokio::select! {
            begun = client.batch_execute("BEGIN") => begun.map_err(|error| bad(&error))?,
            _ = &mut connection => {
                return Err(ConnectionError::BadConnection("the server closed the connection".to_owned()));
            }
        }
        let mut conn = AsyncPgConnection::try_from_client_and_connection(client, connection).await?;
        conn.set_prepared_statement_cache_size(CacheSize::Disabled);
        conn.batch_execute("COMMIT").await.map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }
}

/// The statements that begin a transaction and set its limits, for sessions that do not outlive it.
fn begin_with(limits: &[(&str, u32)]) -> String {
    limits.iter().fold("BEGIN".to_owned(), |mut text, (name, limit)| {
        // Writing to a string does not fail.
        let _written = write!(text, "; SET LOCAL {name} = {limit}");
        text
    })
}

/// The error with the texts of its causes: diesel accepts a single text, and that of the outermost
/// error is not specific.
fn bad(error: &dyn Error) -> ConnectionError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    ConnectionError::BadConnection(text)
}
