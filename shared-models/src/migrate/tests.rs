use std::{collections::BTreeMap, time::Duration};

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection as _};
use diesel_migrations::EmbeddedMigrations;
use futures::FutureExt;

use super::{
    Direction, SchemaState, apply, expected_version, known_versions, migrate, state, wait_for_schema,
};
use crate::db::{
    Conn, Db, DbConfig, DbError, blobs,
    jobs::{self, JobState},
    links::{self, Proof},
    on, record,
    repositories::{self, NewRepository, Repository},
    tags,
    tests::{check, descriptors, digest, image, name, of, postgres_config, sqlite_config, tag},
};
use oci_types::{Millis, manifest::DescriptorRole};

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table: String,
    #[diesel(sql_type = Text)]
    column: String,
    #[diesel(sql_type = Text)]
    declared: String,
}

type Columns = BTreeMap<(String, String), String>;

/// The tables and columns of `schema.rs`, with diesel's types mapped by `name`.
fn schema(name: impl Fn(&str) -> &'static str) -> Columns {
    let mut columns = Columns::new();
    let mut table = None;
    for line in include_str!("../schema.rs").lines() {
        let line = line.trim();
        if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            table = Some(name.to_owned());
        } else if let Some((column, declared)) =
            line.trim_end_matches(',').split_once(" -> ").filter(|_| line.ends_with(','))
        {
            let inner = declared.strip_prefix("Nullable<").and_then(|text| text.strip_suffix('>'));
            let null = if inner.is_some() { "null" } else { "not null" };
            let column = (table.clone().unwrap(), column.to_owned());
            columns.insert(column, format!("{} {null}", name(inner.unwrap_or(declared))));
        }
    }
    assert!(columns.len() > 80, "schema.rs was not understood");
    columns
}

async fn columns(db: &Db, query: &'static str) -> Columns {
    let rows: Vec<Column> = db
        .read(move |conn| {
            async move {
                let query = sql_query(query);
                Ok(on!(conn, |c| query.load(c))?)
            }
            .boxed()
        })
        .await
        .unwrap();
    rows.into_iter().map(|row| ((row.table, row.column), row.declared)).collect()
}

/// The tables of SQLite. An auto-increment id must be declared `INTEGER`, which is 64 bits wide in
/// SQLite.
const SQLITE_COLUMNS: &str = r#"
    SELECT t.name AS "table", c.name AS "column",
        CASE WHEN c.pk = 1 AND c.type = 'INTEGER' THEN 'BIGINT' ELSE c.type END
        || CASE c."notnull" WHEN 1 THEN ' not null' ELSE ' null' END AS declared
    FROM sqlite_schema t, pragma_table_info(t.name) c
    WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT LIKE '\_\_diesel%' ESCAPE '\'
"#;

const POSTGRES_COLUMNS: &str = r#"
    SELECT table_name::text AS "table", column_name::text AS "column",
        data_type || CASE is_nullable WHEN 'NO' THEN ' not null' ELSE ' null' END AS declared
    FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name NOT LIKE '\_\_diesel%'
"#;

fn sqlite_type(diesel: &str) -> &'static str {
    match diesel {
        "BigInt" => "BIGINT",
        "Integer" => "INTEGER",
        "SmallInt" => "SMALLINT",
        "Text" => "TEXT",
        "Binary" => "BLOB",
        "Bool" => "BOOLEAN",
        other => panic!("{other} is not of the shared subset"),
    }
}

fn postgres_type(diesel: &str) -> &'static str {
    match diesel {
        "BigInt" => "bigint",
        "Integer" => "integer",
        "SmallInt" => "smallint",
        "Text" => "text",
        "Binary" => "bytea",
        "Bool" => "boolean",
        other => panic!("{other} is not of the shared subset"),
    }
}

/// The versions of the migrations, in order.
const VERSIONS: [&str; 3] = ["00001", "00002", "00003"];

async fn up_down_up(config: &DbConfig, query: &'static str, expected: &Columns) {
    let db = Db::connect(config).await.unwrap();
    assert_eq!(migrate(config).await.unwrap(), VERSIONS);
    assert_eq!(&columns(&db, query).await, expected);
    assert!(migrate(config).await.unwrap().is_empty(), "there is nothing left to apply");

    let mut reverted = apply(config, Direction::Down).await.unwrap();
    reverted.reverse();
    assert_eq!(reverted, VERSIONS);
    assert!(columns(&db, query).await.is_empty());

    assert_eq!(migrate(config).await.unwrap(), VERSIONS);
    assert_eq!(&columns(&db, query).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_has_what_the_schema_says_up_down_and_up() {
    let folder = tempfile::tempdir().unwrap();
    up_down_up(&sqlite_config(&folder), SQLITE_COLUMNS, &schema(sqlite_type)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_has_what_the_schema_says_up_down_and_up() {
    up_down_up(&postgres_config(), POSTGRES_COLUMNS, &schema(postgres_type)).await;
}

#[test]
fn both_folders_have_the_same_migrations_and_the_last_is_expected() {
    fn versions<DB: diesel::backend::Backend>(migrations: EmbeddedMigrations) -> Vec<String> {
        let all = diesel::migration::MigrationSource::<DB>::migrations(&migrations).unwrap();
        all.iter().map(|migration| migration.name().to_string()).collect()
    }
    let sqlite = versions::<diesel::sqlite::Sqlite>(super::SQLITE);
    assert_eq!(sqlite, versions::<diesel::pg::Pg>(super::POSTGRES));
    assert!(sqlite.last().unwrap().starts_with(&format!("{}_", expected_version())));
}

/// A database of the first version: two names for one repository of an upstream, and one hosted repository.
const FIRST_VERSION: &str = r#"
    INSERT INTO repositories (id, name, upstream, upstream_name, created_at) VALUES
        (1, 'a/app', 'hub', 'team/app', 1), (2, 'b/app', 'hub', 'team/app', 2), (3, 'own', NULL, NULL, 3),
        (4, 'c/app', 'quay', 'team/app', 4);
    INSERT INTO manifests (digest, media_type, body, size, created_at) VALUES
        ('{m1}', 'application/vnd.oci.image.manifest.v1+json', CAST('1' AS {bytes}), 1, 1),
        ('{m2}', 'application/vnd.oci.image.manifest.v1+json', CAST('2' AS {bytes}), 1, 1);
    INSERT INTO manifest_items (manifest, position, kind, digest, media_type, size) VALUES
        ('{m1}', 0, 1, '{b1}', 'application/vnd.oci.image.config.v1+json', 10);
    INSERT INTO tags (repository_id, name, manifest, moved_at, checked_at) VALUES
        (1, 'both', '{m1}', 1, 10), (2, 'both', '{m2}', 2, 20), (1, 'later', '{m1}', 1, 30), (2, 'later', '{m2}', 2, 20),
        (2, 'second', '{m2}', 2, 2), (3, 'own', '{m1}', 3, 3), (4, 'both', '{m1}', 4, 4);
    INSERT INTO tag_moves (repository_id, name, "to", at, cause) VALUES
        (1, 'both', '{m1}', 1, 0), (2, 'both', '{m2}', 2, 0);
    INSERT INTO repository_manifests (repository_id, manifest, first_seen_at) VALUES
        (1, '{m1}', 1), (2, '{m1}', 2), (2, '{m2}', 2), (3, '{m1}', 3), (4, '{m1}', 4);
    INSERT INTO blobs (digest, size, state, stored_at, last_read_at) VALUES
        ('{b1}', 10, 1, 5, 5), ('{b2}', 20, 0, NULL, NULL), ('{b3}', -1, 0, NULL, NULL);
    INSERT INTO blob_sources (digest, upstream, upstream_name) VALUES
        ('{b1}', 'hub', 'team/app'), ('{b2}', 'hub', 'team/app'), ('{b3}', 'hub', 'team/app');
    INSERT INTO repository_blobs (repository_id, digest, pending, touched_at) VALUES
        (1, '{b1}', FALSE, 1), (2, '{b1}', TRUE, 2), (2, '{b2}', TRUE, 2), (2, '{b3}', FALSE, 2), (3, '{b1}', FALSE, 3);
    INSERT INTO tasks (kind, "key", payload, state, attempts, run_at, error, created_at) VALUES
        ('complete_image', 'queued', '{}', 0, 0, 7, NULL, 7), ('complete_image', 'failed', '{}', 2, 3, 8, 'no', 8);
    INSERT INTO uploads (id, repository_id, "offset", touched_at) VALUES ('u', 2, 0, 2);
"#;

async fn execute(db: &Db, statements: String) {
    let done = db.write(|conn| {
        async move {
            match conn {
                Conn::Postgres(conn) => conn.batch_execute(&statements).await?,
                Conn::Sqlite(conn) => conn.batch_execute(&statements).await?,
            }
            Ok(())
        }
        .boxed()
    });
    done.await.unwrap();
}

async fn a_database_of_the_first_version_keeps_its_content(config: &DbConfig, bytes: &str) {
    let db = Db::connect(config).await.unwrap();
    db.ping().await.unwrap();
    assert_eq!(apply(config, Direction::Next).await.unwrap(), ["00001"]);
    let mut statements = FIRST_VERSION.replace("{bytes}", bytes);
    for text in ["m1", "m2", "b1", "b2", "b3"] {
        statements = statements.replace(&format!("{{{text}}}"), digest(text).as_str());
    }
    execute(&db, statements).await;
    assert_eq!(migrate(config).await.unwrap(), ["00002", "00003"]);

    let (hub, quay) = (of("hub", "team/app").key(), of("quay", "team/app").key());
    let own = Repository::Hosted { name: name("own") }.key();
    let tag_of = async |repository, text| {
        tags::find(&db, repository, &tag(text)).await.unwrap().map(|row| row.manifest)
    };
    // Of two names for one repository, the tag that was checked last is kept.
    assert_eq!(tag_of(&hub, "both").await, Some(digest("m2")));
    assert_eq!(tag_of(&hub, "later").await, Some(digest("m1")));
    assert_eq!(tag_of(&hub, "second").await, Some(digest("m2")));
    assert_eq!(tags::history(&db, &hub, &tag("both"), 9).await.unwrap().len(), 2);
    assert_eq!(
        (tag_of(&quay, "both").await, tag_of(&own, "own").await),
        (Some(digest("m1")), Some(digest("m1")))
    );
    for manifest in ["m1", "m2"] {
        let lookup = links::manifest(&db, &hub, &digest(manifest), true).await.unwrap();
        assert_eq!(lookup.proof, Some(Proof::Confirmed));
        assert_eq!(lookup.stored.unwrap().body.len(), 1);
    }
    assert_eq!(descriptors(&db, &digest("m1")).await[0].role, DescriptorRole::Config);
    // A stated size belongs to its source. A disputed size is unknown.
    for (blob, size) in [("b1", Some(10)), ("b2", Some(20)), ("b3", None)] {
        let linked = links::blob(&db, &hub, &digest(blob)).await.unwrap().unwrap();
        assert_eq!(linked.blob.size, size, "{blob}");
        assert_eq!(blobs::find(&db, &digest(blob)).await.unwrap(), Some(linked.blob), "{blob}");
    }
    assert_eq!(blobs::expire_pending(&db, Millis(99)).await.unwrap(), 1, "a link of b1 was not pending");
    assert!(links::blob(&db, &own, &digest("b1")).await.unwrap().is_some());
    let jobs = jobs::list(&db, 9).await.unwrap();
    let ends: Vec<_> = jobs.iter().map(|job| (job.key.as_str(), job.state, job.ended_at)).collect();
    assert_eq!(ends, [("failed", JobState::Failed, Some(Millis(8))), ("queued", JobState::Queued, None)]);

    // The database works: content is recorded in a migrated repository, and jobs are claimed.
    let new = NewRepository { name: name("b/app"), repository: of("hub", "team/app") };
    record::manifest(&db, &new, &image("config", &["a"]), Some(&check("both", 99)), Millis(99))
        .await
        .unwrap();
    assert_eq!(tags::history(&db, &hub, &tag("both"), 9).await.unwrap().len(), 3);
    let names: Vec<_> = ["b/app", "c/app", "own"].map(name).into();
    assert_eq!(repositories::catalog(&db, None, 9).await.unwrap(), names);
    let claimed = jobs::claim(&db, "complete_image", "w", Duration::from_secs(1), Millis(9)).await.unwrap();
    assert_eq!(claimed.unwrap().key, "queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_first_version_keeps_its_content_over_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    a_database_of_the_first_version_keeps_its_content(&sqlite_config(&folder), "BLOB").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_first_version_keeps_its_content_over_postgres() {
    a_database_of_the_first_version_keeps_its_content(&postgres_config(), "BYTEA").await;
}

#[test]
fn a_schema_is_current_behind_or_refused_with_one_sentence() {
    let versions = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let known = versions("00001 00002 00003");
    for (applied, expected) in [
        ("00001 00002 00003", Ok(SchemaState::Current)),
        ("", Ok(SchemaState::Behind)),
        ("00001 00002", Ok(SchemaState::Behind)),
        ("00001 00003", Err("the migration 00002 of the database is missing")),
        ("00001 00002 00003 00004", Err("the database has the schema version 00004")),
    ] {
        let state = state(&versions(applied), &known);
        match (state, expected) {
            (Ok(state), Ok(expected)) => assert_eq!(state, expected, "{applied}"),
            (Err(DbError::Schema(message)), Err(start)) => {
                assert!(message.as_str().starts_with(start), "{message}");
                assert!(!message.as_str().contains('\n'), "{message}");
            }
            (state, expected) => panic!("{applied}: {state:?} instead of {expected:?}"),
        }
    }
    assert_eq!(known_versions().unwrap(), VERSIONS);
}

async fn a_newer_schema_is_refused_and_left_alone(config: &DbConfig) {
    migrate(config).await.unwrap();
    let db = Db::connect(config).await.unwrap();
    execute(&db, "INSERT INTO __diesel_schema_migrations (version) VALUES ('99999')".to_owned()).await;
    for refused in [migrate(config).await.map(drop), wait_for_schema(&db, Duration::from_secs(60)).await] {
        assert!(matches!(refused, Err(DbError::Schema(_))), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_over_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    a_newer_schema_is_refused_and_left_alone(&sqlite_config(&folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_over_postgres() {
    a_newer_schema_is_refused_and_left_alone(&postgres_config()).await;
}

async fn many_migrate_at_once(config: &DbConfig) {
    let all = (0..5).map(|_| {
        let config = config.clone();
        tokio::spawn(async move { migrate(&config).await })
    });
    let applied = futures::future::join_all(all).await;
    let applied: Vec<_> = applied.into_iter().flat_map(|done| done.unwrap().unwrap()).collect();
    assert_eq!(applied, VERSIONS, "one of them does it");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_migrate_at_once_wait_for_each_other_over_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    many_migrate_at_once(&sqlite_config(&folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_migrate_at_once_wait_for_each_other_over_postgres() {
    many_migrate_at_once(&postgres_config()).await;
}

async fn waiting_ends_with_the_schema(config: &DbConfig) {
    let db = Db::connect(config).await.unwrap();
    let early = wait_for_schema(&db, Duration::ZERO).await;
    assert!(matches!(early, Err(DbError::Unavailable(_))), "{early:?}");
    let waiting = tokio::spawn(async move { wait_for_schema(&db, Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    migrate(config).await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_another_has_migrated_over_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    waiting_ends_with_the_schema(&sqlite_config(&folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_another_has_migrated_over_postgres() {
    waiting_ends_with_the_schema(&postgres_config()).await;
}
