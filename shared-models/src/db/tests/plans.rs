//! No query that a request waits for reads a whole table of a large database. Asserted on the plans
//! that the databases generate for the statements as sent.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use diesel::{
    Connection, QueryableByName, RunQueryDsl,
    connection::{Instrumentation, InstrumentationEvent},
    sql_query,
    sql_types::Text,
};
use futures::FutureExt;

use super::{TestDb, check, descriptors, digest, image, index, name, postgres_config, repository, tag};
use crate::{
    db::{
        Conn, Db, DbConfig, blobs, fills, jobs, links, manifests, nodes, platforms, record, repositories,
        tags, upstream_states,
    },
    migrate::migrate,
    test_postgres::TestPostgres,
    test_seed::{self, Counts},
};
use oci_types::{Digest, Millis};

const COUNTS: Counts =
    Counts { blobs: 50_000, manifests: 5_000, repositories: 1_000, tags: 2_000, jobs: 5_000 };

/// The tables that are large after years. The others have a row for each process, upstream or running download.
const LARGE: [&str; 10] = [
    "blob_sources",
    "blobs",
    "jobs",
    "manifest_descriptors",
    "manifests",
    "repositories",
    "repository_blobs",
    "repository_manifests",
    "tag_moves",
    "tags",
];

/// Runs all queries of client pulls and of periodic background work.
async fn pull(db: &Db, round: u32) {
    let (seeded, known, blob) = COUNTS.tagged(1234);
    let key = seeded.key();
    let row = tags::find(db, &key, &known).await.unwrap().unwrap();
    assert!(links::manifest(db, &key, &row.manifest, true).await.unwrap().proof.is_some());
    assert!(manifests::stored(db, &row.manifest).await.unwrap());
    let stored = manifests::load(db, &row.manifest).await.unwrap().unwrap();
    assert_eq!(Digest::sha256(&stored.body), row.manifest);
    assert_eq!(descriptors(db, &row.manifest).await.len(), 11);
    manifests::platform_of(db, &row.manifest).await.unwrap();
    assert!(links::blob(db, &key, &blob).await.unwrap().is_some());
    assert!(blobs::find(db, &blob).await.unwrap().is_some());
    assert!(!blobs::sources(db, &blob, None, Millis(1)).await.unwrap().is_empty());
    let after = name("seed/team34/app234");
    assert_eq!(repositories::catalog(db, Some(&after), 100).await.unwrap().len(), 100);
    let many = COUNTS.repository(0).key();
    assert_eq!(tags::list(db, &many, Some(&tag("build-1000")), 100).await.unwrap().len(), 100);
    assert_eq!(tags::history(db, &key, &known, 10).await.unwrap().len(), 1);

    let at = Millis(1_800_000_000_000);
    let checked = record::TagCheck { tag: known, began: at };
    let now = tags::mark_checked(db, &key, &checked, &row.manifest).await.unwrap();
    assert_eq!(now.unwrap().checked_at, at);
    let child = image(&format!("config {round}"), &["own", "shared"]);
    let parent = index(&[&child.digest, &row.manifest]);
    for new in [&child, &parent, &child] {
        record::manifest(db, &repository("new/one"), new, Some(&check("t", 1)), at).await.unwrap();
    }
    let adopted = record::adopt(db, &repository("new/two"), &row.manifest, Some(&check("t", 1)), at).await;
    assert!(adopted.unwrap().is_some());
    let pending = blobs::NewPending {
        repository: repository("new/three"),
        digest: blob.clone(),
        size: None,
        now: Millis(1),
    };
    blobs::record_pending(db, &pending).await.unwrap();
    // Nearly every image has the first blob.
    let everywhere = digest("blob 0");
    blobs::touch_read(db, vec![(blob.clone(), at), (everywhere.clone(), at)]).await.unwrap();
    repositories::touch_pulls(db, vec![(key, at)]).await.unwrap();
    assert!(blobs::expire_pending(db, Millis(1_700_000_020_000)).await.unwrap() < 100);
    blobs::mark_evicted(db, &everywhere).await.unwrap();
    blobs::mark_stored(db, &everywhere, 1, at).await.unwrap();
    blobs::demote_source(db, &blob, "seed", &name("library/app1"), at).await.unwrap();

    for key in ["a", "b", "c", "d"] {
        assert!(jobs::enqueue(db, "kind", &format!("{key} {round}"), "{}", Millis(1)).await.unwrap());
    }
    let mut claimed = Vec::new();
    for _ in 0..3 {
        claimed.push(jobs::claim(db, "kind", "me", Duration::from_secs(9), at).await.unwrap().unwrap());
    }
    assert!(!jobs::enqueue(db, "kind", &format!("d {round}"), "{}", Millis(1)).await.unwrap());
    assert_eq!(jobs::renew(db, &claimed[0], "me", at, None).await.unwrap(), jobs::Renewal::Renewed);
    assert!(jobs::finish(db, &claimed[0], "me", jobs::End::Succeeded, at).await.unwrap());
    assert!(jobs::retry(db, &claimed[1], "me", Millis(3_000_000_000_000), "later").await.unwrap());
    assert!(jobs::cancel(db, claimed[2].id, at).await.unwrap());
    jobs::release_all(db, "me").await.unwrap();
    jobs::delete_ended(db, Millis(1_700_000_000_001), 10).await.unwrap();

    assert!(fills::claim(db, &blob, "node", at, Millis(1)).await.unwrap());
    assert!(fills::renew(db, &blob, "node", at, 5).await.unwrap());
    assert!(fills::holder(db, &blob, Millis(1)).await.unwrap().is_some());
    fills::release(db, &blob, "node").await.unwrap();
    nodes::live(db, Duration::from_secs(1), Millis(1)).await.unwrap();
    upstream_states::load_all(db).await.unwrap();
    platforms::list(db, "seed").await.unwrap();
}

async fn execute(db: &Db, statements: &'static str) {
    let done = db.write(move |conn| {
        async move {
            let Conn::Postgres(conn) = conn else { panic!("it is PostgreSQL") };
            Ok(diesel_async::SimpleAsyncConnection::batch_execute(&mut **conn, statements).await?)
        }
        .boxed()
    });
    done.await.unwrap();
}

/// The plans that a server has logged, each with its statement.
fn logged(log: &str) -> Vec<String> {
    let mut plans: Vec<String> = Vec::new();
    for line in log.lines() {
        if line.contains("plan:") {
            plans.push(String::new());
        }
        if let Some(plan) = plans.last_mut().filter(|_| line.starts_with('\t')) {
            plan.push_str(line);
            plan.push('\n');
        }
    }
    plans
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_reads_no_large_table_as_a_whole() {
    let server = tokio::task::spawn_blocking(|| TestPostgres::start().unwrap()).await.unwrap();
    let config = DbConfig { url: server.create_database("x").unwrap(), ..postgres_config() };
    migrate(&config).await.unwrap();
    test_seed::seed(&config, &COUNTS).await.unwrap();
    let plain = Db::connect(&config).await.unwrap();
    execute(
        &plain,
        "ALTER DATABASE x SET session_preload_libraries = 'auto_explain';
         ALTER DATABASE x SET auto_explain.log_min_duration = 0;
         ALTER DATABASE x SET auto_explain.log_nested_statements = on;",
    )
    .await;
    // PostgreSQL plans the first executions of a prepared statement for their values, and may then
    // use one generic plan for all values.
    let modes = [
        "ALTER DATABASE x SET plan_cache_mode = force_custom_plan",
        "ALTER DATABASE x SET plan_cache_mode = force_generic_plan",
    ];
    for (round, mode) in (0..).zip(modes) {
        execute(&plain, mode).await;
        let before = server.log().unwrap().len();
        pull(&Db::connect(&config).await.unwrap(), round).await;
        let log = server.log().unwrap();
        let plans = logged(&log[before..]);
        assert!(plans.len() > 100, "{} plans were logged", plans.len());
        for plan in plans {
            for table in LARGE {
                let whole = plan.lines().any(|line| {
                    let mut words = line.split_whitespace().skip_while(|word| *word != "Seq");
                    words.next().is_some() && words.next() == Some("Scan") && words.nth(1) == Some(table)
                });
                assert!(!whole, "{mode}: {table} is read as a whole:\n{plan}");
            }
        }
    }
}

/// Records the statements of a connection.
#[derive(Clone, Default)]
pub(super) struct Statements(Arc<Mutex<Vec<String>>>);

impl Statements {
    /// Records those of a SQLite database from now on.
    pub(super) async fn of(config: &DbConfig) -> (Db, Self) {
        let db = Db::connect(&DbConfig { max_connections: 1, ..config.clone() }).await.unwrap();
        let kept = Self::default();
        for access in [super::super::Access::Read, super::super::Access::Write] {
            let kept = kept.clone();
            let keep = db.run(access, move |conn| {
                async move {
                    let Conn::Sqlite(conn) = conn else { panic!("it is SQLite") };
                    conn.spawn_blocking(move |conn| {
                        conn.set_instrumentation(kept);
                        Ok(())
                    })
                    .await?;
                    Ok(())
                }
                .boxed()
            });
            keep.await.unwrap();
        }
        (db, kept)
    }

    /// Those since the last call.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Instrumentation for Statements {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            self.0.lock().unwrap().push(query.to_string());
        }
    }
}

#[derive(QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_reads_no_large_table_as_a_whole() {
    let test = super::sqlite().await;
    test_seed::seed(&test.config, &COUNTS).await.unwrap();
    let (db, kept) = Statements::of(&test.config).await;
    pull(&db, 0).await;
    let mut statements = kept.take();
    statements.sort();
    statements.dedup_by_key(|statement| statement.split("-- binds").next().map(str::to_owned));
    statements.retain(|statement| !statement.starts_with("BEGIN") && !statement.starts_with("COMMIT"));
    assert!(statements.len() > 45, "{} statements were kept", statements.len());

    // In a default installation, the database is never analyzed.
    for analyzed in [true, false] {
        let TestDb { config, .. } = &test;
        let mut conn =
            diesel::SqliteConnection::establish(crate::db::sqlite_path(&config.url).unwrap()).unwrap();
        if !analyzed {
            sql_query("DELETE FROM sqlite_stat1").execute(&mut conn).unwrap();
            conn = diesel::SqliteConnection::establish(crate::db::sqlite_path(&config.url).unwrap()).unwrap();
        }
        for statement in &statements {
            let query = sql_query(format!("EXPLAIN QUERY PLAN {statement}"));
            let steps: Vec<Step> =
                query.load(&mut conn).unwrap_or_else(|error| panic!("{statement}: {error}"));
            for Step { detail } in steps {
                let scanned = detail.strip_prefix("SCAN ").and_then(|rest| rest.split_whitespace().next());
                let whole = scanned.is_some_and(|table| LARGE.contains(&table));
                assert!(!whole, "analyzed {analyzed}: {detail}\n{statement}");
                let sorted = detail.contains("ORDER BY")
                    && statement.contains("FROM `tags`")
                    && statement.contains("LIMIT");
                assert!(!sorted, "analyzed {analyzed}: {detail}\n{statement}");
            }
        }
    }
}
