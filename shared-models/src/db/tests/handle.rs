use std::time::Duration;

use futures::FutureExt;
use tokio::sync::oneshot;

use super::{TestDb, check, digest, image, key, linked_blob, name, on_both, repository, sqlite_config, tag};
use crate::db::{Db, DbConfig, DbError, blobs, record, tags};
use oci_types::Millis;

fn config(url: &str) -> DbConfig {
    DbConfig {
        url: url.to_owned(),
        max_connections: 1,
        wait: Duration::from_millis(300),
        prepared_statements: true,
    }
}

on_both! {
    async fn a_write_completes_after_its_caller_is_dropped(db: TestDb) {
        let image = image("config", &["a"]);
        {
            let (repository, tag) = (repository("x"), check("t", 1));
            let write = record::manifest(&db, &repository, &image, Some(&tag), Millis(1));
            tokio::select! {
                biased;
                () = async { tokio::task::yield_now().await } => {}
                written = write => drop(written.unwrap()),
            }
        }
        let mut tries = 0;
        while tags::find(&db, &key("x"), &tag("t")).await.unwrap().is_none() {
            tries += 1;
            assert!(tries < 500);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(linked_blob(&db, "x", &digest("a")).await.is_some());
    }

    async fn queries_run_from_a_single_threaded_runtime_as_on_an_actix_worker(db: TestDb) {
        let db = db.db.clone();
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                blobs::mark_stored(&db, &digest("a"), 1, Millis(1)).await.unwrap();
                blobs::find(&db, &digest("a")).await.unwrap()
            })
        });
        assert!(tokio::task::spawn_blocking(|| worker.join().unwrap()).await.unwrap().is_some());
    }

    async fn a_connection_that_does_not_become_free_in_time_is_unavailable(db: TestDb) {
        let one = Db::connect(&DbConfig { max_connections: 1, wait: Duration::from_secs(2), ..db.config.clone() })
            .await
            .unwrap();
        let (release, held) = oneshot::channel::<()>();
        let (taken, is_taken) = oneshot::channel();
        let holder = one.clone();
        let holding = tokio::spawn(async move {
            holder
                .transaction(move |_| {
                    async move {
                        taken.send(()).unwrap();
                        held.await.unwrap();
                        Ok(())
                    }
                    .boxed()
                })
                .await
        });
        is_taken.await.unwrap();
        let refused = blobs::mark_stored(&one, &digest("a"), 1, Millis(1)).await;
        assert!(matches!(refused, Err(DbError::Unavailable(_))), "{refused:?}");
        release.send(()).unwrap();
        holding.await.unwrap().unwrap();
        blobs::mark_stored(&one, &digest("a"), 1, Millis(1)).await.unwrap();
    }

    async fn a_transaction_that_fails_or_panics_leaves_nothing_behind(db: TestDb) {
        for panics in [false, true] {
            let failed: Result<(), DbError> = db
                .transaction(move |conn| {
                    async move {
                        blobs::ensure(conn, &[(digest("a"), None)], Some(("hub", &name("x")))).await?;
                        assert!(!panics, "a defect");
                        Err(DbError::conflict("no".to_owned()))
                    }
                    .boxed()
                })
                .await;
            assert!(failed.is_err());
            assert_eq!(blobs::find(&db, &digest("a")).await.unwrap(), None);
            blobs::mark_stored(&db, &digest("b"), 1, Millis(1)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_unavailable_and_an_unsupported_url_is_invalid_configuration() {
    let away = Db::connect(&config("postgres://nobody@127.0.0.1:1/x")).await.unwrap();
    assert!(matches!(away.ping().await, Err(DbError::Unavailable(_))));
    for url in ["mysql://x", "", "sqlite://", "sqlite::memory:"] {
        assert!(matches!(Db::connect(&config(url)).await, Err(DbError::Config(_))), "{url}");
    }
    let unopened = Db::connect(&config("sqlite:///proc/nothing/x.db")).await;
    assert!(matches!(unopened, Err(DbError::Unavailable(_))), "{unopened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_replaced() {
    let db = super::postgres().await;
    db.ping().await.unwrap();
    let other = Db::connect(&db.config).await.unwrap();
    other
        .write(|conn| {
            async move {
                use diesel_async::RunQueryDsl;
                let kill = diesel::sql_query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                );
                crate::db::on!(conn, |c| kill.execute(c))?;
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    // The first query may still get the closed connection.
    let mut tries = 0;
    while let Err(error) = db.ping().await {
        assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
        tries += 1;
        assert!(tries < 100);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_sqlite_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = sqlite_config(&folder);
    crate::migrate::migrate(&config).await.unwrap();
    // Two handles share only the file, as two processes do.
    let handles = [Db::connect(&config).await.unwrap(), Db::connect(&config).await.unwrap()];
    let write = |number: usize| {
        let db = handles[number % 2].clone();
        async move {
            let image = image(&format!("config {number}"), &["shared", &format!("own {number}")]);
            record::manifest(&db, &repository("x"), &image, Some(&check("t", 1)), Millis(1)).await
        }
    };
    for result in futures::future::join_all((0..60).map(|number| tokio::spawn(write(number)))).await {
        result.unwrap().unwrap();
    }
    for db in &handles {
        assert!(linked_blob(db, "x", &digest("own 59")).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_that_was_removed_or_replaced_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let config = sqlite_config(&folder);
    let db = Db::connect(&config).await.unwrap();
    db.ping().await.unwrap();
    let file = folder.path().join("a folder/tidegate.db");
    let (aside, said) = (file.with_extension("aside"), async || match db.ping().await {
        Err(DbError::Unavailable(reason)) => reason,
        other => panic!("{other:?}"),
    });
    std::fs::rename(&file, &aside).unwrap();
    assert!(said().await.as_str().contains("tidegate.db not found"), "{}", said().await);
    std::fs::copy(&aside, &file).unwrap();
    assert!(said().await.as_str().contains("was replaced by another file"), "{}", said().await);
    std::fs::rename(&aside, &file).unwrap();
    db.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_that_is_not_a_database_fails_the_ping() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::connect(&sqlite_config(&folder)).await.unwrap();
    std::fs::write(folder.path().join("a folder/tidegate.db"), [b'x'; 8192]).unwrap();
    assert!(db.ping().await.is_err());
}
