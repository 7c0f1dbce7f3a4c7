//! PostgreSQL: from the configured URL to a connection that is ready for statements.

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

/// What the server is to keep us from: a statement, a wait for a lock, or a transaction whose client is silent, that
/// lasts for ever. In milliseconds; names are those of the server's settings.
const LIMITS: [(&str, u32); 3] =
    [("statement_timeout", 8_000), ("lock_timeout", 5_000), ("idle_in_transaction_session_timeout", 15_000)];

/// A PostgreSQL server, and how to talk to it.
pub(crate) struct Server {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    /// To open a connection all in all: names, TCP, TLS, authentication, settings.
    connect_timeout: Duration,
    /// Named statements may outlive a transaction. Not so behind a pooler that gives each transaction another session.
    prepared_statements: bool,
    limits: Vec<(&'static str, u32)>,
    begin: String,
}

impl Server {
    /// Reads the URL and the certificates that it names.
    ///
    /// # Errors
    /// [`DbError::Config`] for what is not understood or can't be read.
    pub(crate) fn new(url: &str, prepared_statements: bool) -> Result<Self, DbError> {
        let url::Parsed { config, verification } = url::parse(url)?;
        let tls = verification.map(tls::connector).transpose()?;
        let connect_timeout = config.get_connect_timeout().copied().unwrap_or(url::CONNECT_TIMEOUT);
        let options = config.get_options().unwrap_or_default();
        // What the operator set in the URL stands.
        let limits: Vec<_> = LIMITS.into_iter().filter(|(name, _)| !options.contains(name)).collect();
        let begin = if prepared_statements { "BEGIN".to_owned() } else { begin_with(&limits) };
        Ok(Self { config, tls, connect_timeout, prepared_statements, limits, begin })
    }

    /// Whether a session outlives a transaction, so that what is set or prepared in it is found again.
    pub(super) fn keeps_sessions(&self) -> bool {
        self.prepared_statements
    }

    /// What begins a transaction.
    pub(super) fn begin(&self) -> &str {
        &self.begin
    }

    /// A connection for queries, whose statements, waits for locks and idle transactions end in time.
    pub(super) async fn connect(&self) -> ConnectionResult<AsyncPgConnection> {
        let mut conn = self.connect_unlimited().await?;
        if self.prepared_statements {
            let settings: String = self.limits.iter().fold(String::new(), |mut text, (name, limit)| {
                // Writing to a string doesn't fail.
                let _written = write!(text, "SET {name} = {limit};");
                text
            });
            conn.batch_execute(&settings).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(conn)
    }

    /// A connection without limits of ours, for what may take long.
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
            // As libpq: with `prefer`, a failure of TLS is followed by a connection without it.
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
        // diesel-async begins with statements of its own, which are to reach one session. Whoever owns the connection
        // has to drive it until then.
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

/// Without sessions that last, limits are set for a transaction.
fn begin_with(limits: &[(&str, u32)]) -> String {
    limits.iter().fold("BEGIN".to_owned(), |mut text, (name, limit)| {
        // Writing to a string doesn't fail.
        let _written = write!(text, "; SET LOCAL {name} = {limit}");
        text
    })
}

/// What went wrong, with its causes: the outermost text alone says little.
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
