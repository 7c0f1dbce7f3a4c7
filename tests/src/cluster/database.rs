//! The PostgreSQL database of one cluster.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use shared_models::test_postgres::TestPostgres;

use crate::tcp_proxy::TcpProxy;

/// An empty database, on a real server.
#[derive(Debug)]
pub struct Database {
    server: Arc<TestPostgres>,
    url: String,
}

/// Replaces the clock that sessions of the database read by one that can be stepped.
const CLOCK: &str = r"
CREATE SCHEMA clock;
CREATE TABLE clock.ahead (seconds BIGINT NOT NULL);
INSERT INTO clock.ahead VALUES (0);
CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
    'SELECT pg_catalog.clock_timestamp() + seconds * interval ''1 second'' FROM clock.ahead';
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = public, clock, pg_catalog', current_database());
END $$;
";

/// Whose server a database lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Server {
    /// That of all tests.
    #[default]
    Shared,
    /// One that may be stopped.
    Own,
}

impl Database {
    /// Makes one.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub async fn start(server: Server) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("nodes_{}", MADE.fetch_add(1, Ordering::SeqCst));
        let made = tokio::task::spawn_blocking(move || {
            let server = match server {
                Server::Shared => TestPostgres::shared().unwrap(),
                Server::Own => Arc::new(TestPostgres::start().unwrap()),
            };
            let url = server.create_database(&name).unwrap();
            Self { server, url }
        });
        made.await.unwrap()
    }

    /// Where it is, `postgres://…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its server listens.
    pub(super) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.server.port()).into()
    }

    /// Where it is for clients that come through a proxy before its server.
    pub(super) fn url_through(&self, proxy: &TcpProxy) -> String {
        self.url.replace(&self.address().to_string(), &proxy.address().to_string())
    }

    /// Stops its server as a crash does.
    pub async fn stop(&self) {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || server.stop()).await.unwrap().unwrap();
    }

    /// Starts its server again and returns when it answers.
    pub async fn start_again(&self) {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || server.start_again()).await.unwrap().unwrap();
    }

    /// The texts that a query of one column, called `text`, finds.
    pub async fn texts(&self, query: &str) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Found {
            #[diesel(sql_type = Text)]
            text: String,
        }
        let mut connection = AsyncPgConnection::establish(&self.url).await.unwrap();
        let found: Vec<Found> = sql_query(query).load(&mut connection).await.unwrap();
        found.into_iter().map(|row| row.text).collect()
    }

    /// Gives it a clock that can be stepped. To be called before the processes connect to it.
    pub(super) async fn replace_clock(&self) {
        self.execute(CLOCK).await;
    }

    /// Steps its clock to so many seconds ahead of that of the machine.
    pub async fn step_clock(&self, seconds: i64) {
        self.execute(&format!("UPDATE clock.ahead SET seconds = {seconds}")).await;
    }

    async fn execute(&self, statements: &str) {
        let mut connection = AsyncPgConnection::establish(&self.url).await.unwrap();
        connection.batch_execute(statements).await.unwrap();
    }

    /// How many rows a table has; a condition may follow its name.
    pub async fn rows(&self, table: &str) -> usize {
        let counted = self.texts(&format!("SELECT count(*)::text AS text FROM {table}")).await;
        counted[0].parse().unwrap()
    }
}
