//! Two processes migrate one database at once.

use tidegate_tests::{
    cluster::{Database, Server},
    process::tidegate,
};

/// Everything that migrations make: columns, indexes and constraints, and which migrations ran.
const SCHEMA: [&str; 4] = [
    "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || \
     coalesce(' ' || collation_name, '') AS text FROM information_schema.columns \
     WHERE table_schema = 'public' ORDER BY 1",
    "SELECT indexdef AS text FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) AS text FROM pg_constraint \
     WHERE connamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT version AS text FROM __diesel_schema_migrations ORDER BY 1",
];

async fn schema(database: &Database) -> Vec<String> {
    let mut found = Vec::new();
    for query in SCHEMA {
        let part = database.texts(query).await;
        assert!(!part.is_empty(), "{query}");
        found.extend(part);
    }
    found
}

async fn migrate(database: &Database) -> String {
    let folder = tempfile::tempdir().unwrap();
    let tool = tidegate().args(["migrate", "--data-dir"]).arg(folder.path());
    tool.env("TIDEGATE_DATABASE__URL", database.url()).succeed().await.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrators_at_once_both_succeed_and_one_of_them_migrates() {
    let alone = Database::start(Server::Shared).await;
    migrate(&alone).await;
    let expected = schema(&alone).await;
    for _ in 0..5 {
        let database = Database::start(Server::Shared).await;
        let (one, two) = tokio::join!(migrate(&database), migrate(&database));
        assert_eq!(schema(&database).await, expected);
        let applied = [&one, &two].iter().filter(|said| said.starts_with("applied ")).count();
        assert_eq!(applied, 1, "{one:?} {two:?}");
    }
}
