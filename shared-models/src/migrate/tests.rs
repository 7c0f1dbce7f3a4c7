use std::{collections::BTreeMap, time::Duration};

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::RunQueryDsl;
use diesel_migrations::EmbeddedMigrations;
use futures::FutureExt;

use super::{Direction, apply, expected_version, migrate, wait_for_schema};
use crate::db::{
    Db, DbConfig, DbError, on,
    tests::{postgres_config, sqlite_config},
};

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

/// Tables and columns as `schema.rs` has them, with the type that `name` makes of diesel's.
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

/// The tables of SQLite; an id that numbers itself must be declared `INTEGER` and is 64 bits wide all the same.
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
const VERSIONS: [&str; 2] = ["00001", "00002"];

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
