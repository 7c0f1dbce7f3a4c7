//! A PostgreSQL server that stops and starts again.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::SimpleAsyncConnection;
use futures::FutureExt;

use super::{TestDb, digest, image, key, linked_blob, links_manifest, migrated, repository, tag};
use crate::{
    db::{Conn, Db, DbConfig, DbError, manifests, on, record, tags},
    test_postgres::TestPostgres,
};
use oci_types::Millis;

fn config(url: String) -> DbConfig {
    DbConfig { url, max_connections: 5, wait: Duration::from_secs(2), prepared_statements: true }
}

async fn start() -> (TestPostgres, TestDb) {
    let server = tokio::task::spawn_blocking(|| TestPostgres::start().unwrap()).await.unwrap();
    let config = config(server.create_database("x").unwrap());
    let db = migrated(config, None).await;
    (server, db)
}

fn numbered(number: usize) -> record::NewManifest {
    image(&format!("config {number}"), &["shared", &format!("own {number}")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_loses_nothing_and_connections_recover() {
    let (server, db) = start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicUsize::new(0));
    // Several tasks record manifests during the test, and keep the results.
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (db, stop, next) = (db.db.clone(), Arc::clone(&stop), Arc::clone(&next));
            tokio::spawn(async move {
                let mut told = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let at = Millis(i64::try_from(number).unwrap());
                    let done = record::manifest(&db, &repository("x"), &numbered(number), None, at).await;
                    if let Err(error) = &done {
                        assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    told.push((number, done.is_ok()));
                }
                told
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.stop().unwrap();
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(1) {
        let asked = Instant::now();
        assert!(matches!(db.ping().await, Err(DbError::Unavailable(_))));
        assert!(asked.elapsed() < Duration::from_secs(3), "the wait for a connection is the limit");
    }
    server.start_again().unwrap();
    let back = Instant::now();
    while db.ping().await.is_err() {
        assert!(back.elapsed() < Duration::from_secs(5), "the server is back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);

    let mut outcomes = [0, 0];
    for writer in writers {
        for (number, recorded) in writer.await.unwrap() {
            outcomes[usize::from(recorded)] += 1;
            let image = numbered(number);
            let stored = manifests::load(&db, &image.digest).await.unwrap().is_some();
            assert!(stored || !recorded, "{number} was said to be recorded");
            // All rows were written or none, even if the response was lost.
            assert_eq!(links_manifest(&db, "x", &image.digest).await, stored, "{number}");
            let own = linked_blob(&db, "x", &digest(&format!("own {number}"))).await;
            assert_eq!(own.is_some(), stored, "{number}");
        }
    }
    assert!(outcomes.iter().all(|count| *count > 10), "{outcomes:?}: failed, recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_running_yet_is_waited_for() {
    let (server, db) = start().await;
    server.stop().unwrap();
    let late = Db::connect(&db.config).await.unwrap();
    let waiting = tokio::spawn(async move {
        crate::migrate::wait_for_schema(&late, Duration::from_secs(30)).await.map(|()| late)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    server.start_again().unwrap();
    waiting.await.unwrap().unwrap().ping().await.unwrap();
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

/// The value of a setting in a transaction like those of queries.
async fn setting(db: &Db, name: &'static str) -> String {
    db.transaction(move |conn| {
        async move {
            use diesel_async::RunQueryDsl;
            let query = sql_query(format!("SELECT current_setting('{name}') AS value"));
            Ok(on!(conn, |c| query.get_result::<Setting>(c))?.value)
        }
        .boxed()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_enforces_limits_and_those_in_the_url_take_precedence() {
    let base = super::postgres_config();
    for prepared_statements in [true, false] {
        let config = DbConfig { prepared_statements, ..base.clone() };
        let db = Db::connect(&config).await.unwrap();
        assert_eq!(setting(&db, "statement_timeout").await, "8s");
        assert_eq!(setting(&db, "lock_timeout").await, "5s");
        assert_eq!(setting(&db, "idle_in_transaction_session_timeout").await, "15s");
        assert_eq!(setting(&db, "application_name").await, "tidegate");
        let url = format!("{}?options=-c%20statement_timeout%3D60s%20-c%20lock_timeout%3D100ms", base.url);
        let db = Db::connect(&DbConfig { url, ..config }).await.unwrap();
        assert_eq!(setting(&db, "statement_timeout").await, "1min");

        let slow = db.write(|conn| {
            async move {
                let Conn::Postgres(conn) = conn else { panic!("it is PostgreSQL") };
                Ok(conn.batch_execute("SET LOCAL statement_timeout = 50; SELECT pg_sleep(20)").await?)
            }
            .boxed()
        });
        let slow = slow.await;
        assert!(matches!(slow, Err(DbError::Unavailable(_))), "{slow:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_unavailable() {
    let db = Db::connect(&super::postgres_config()).await.unwrap();
    let refused = db.transaction(|conn| {
        async move {
            let Conn::Postgres(conn) = conn else { panic!("it is PostgreSQL") };
            Ok(conn.batch_execute("SET LOCAL transaction_read_only = on; CREATE TABLE x ()").await?)
        }
        .boxed()
    });
    let refused = refused.await;
    assert!(matches!(refused, Err(DbError::Unavailable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_prepared_statements_nothing_outlives_a_transaction() {
    let config = DbConfig { prepared_statements: false, max_connections: 1, ..super::postgres_config() };
    let db = migrated(config, None).await;
    record::manifest(&db, &repository("x"), &numbered(1), None, Millis(1)).await.unwrap();
    tags::find(&db, &key("x"), &tag("t")).await.unwrap();
    let left = db.read(|conn| {
        async move {
            use diesel_async::RunQueryDsl;
            let query = sql_query("SELECT count(*)::text AS value FROM pg_prepared_statements");
            Ok(on!(conn, |c| query.get_result::<Setting>(c))?.value)
        }
        .boxed()
    });
    assert_eq!(left.await.unwrap(), "1", "the question itself");
    assert_eq!(setting(&db, "transaction_isolation").await, "read committed");
}
