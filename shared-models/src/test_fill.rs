//! Fills a database with as much as a registry has after years, for tests and measurements of how it behaves then.
//!
//! The content hangs together as what was pulled: manifests are valid JSON that hashes to its digest and names blobs
//! that are known, with sources and links. Images share base layers, one of them nearly all; one repository has many
//! tags.

use diesel::{Connection, SqliteConnection, connection::SimpleConnection, sql_types::Text};
use diesel_async::SimpleAsyncConnection;

use crate::db::{DbConfig, DbError, Server, sqlite_path};
use oci_types::{Digest, RepositoryName, Tag};

/// How much there is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Blobs, all of them named by manifests. At least three for each of those.
    pub blobs: u64,
    /// Image manifests, each with a tag of its own.
    pub manifests: u64,
    /// Repositories, among which the manifests are dealt out. No more than manifests.
    pub repositories: u64,
    /// Tags that the first repository has besides.
    pub tags: u64,
    /// Tasks: one in four waits for its time, the rest has failed.
    pub tasks: u64,
}

impl Counts {
    /// The name of a repository, counted from 0.
    pub fn repository(&self, number: u64) -> String {
        let number = number % self.repositories;
        format!("filled/team{}/app{number}", number % 100)
    }

    /// A tag, the repository that has it, and a blob that the repository may serve; each of them one of many.
    ///
    /// # Errors
    /// [`DbError::Broken`] never, for these names are valid.
    pub fn tagged(&self, number: u64) -> Result<(RepositoryName, Tag, Digest), DbError> {
        let broken = |error: String| DbError::Broken(error);
        let manifest = number % self.manifests;
        let name = self.repository(manifest % self.repositories);
        let blob = manifest * (self.blobs / self.manifests);
        Ok((
            RepositoryName::parse(&name).map_err(|error| broken(error.to_string()))?,
            Tag::parse(&format!("v{manifest}")).map_err(|error| broken(error.to_string()))?,
            Digest::sha256(format!("blob {blob}").as_bytes()),
        ))
    }
}

/// Fills a database that has the schema and nothing of this yet.
///
/// # Errors
/// [`DbError`], when there is something of this already, or the database doesn't take it.
pub async fn fill(config: &DbConfig, counts: &Counts) -> Result<(), DbError> {
    let counts = *counts;
    match sqlite_path(&config.url).map(str::to_owned) {
        Some(path) => tokio::task::spawn_blocking(move || fill_sqlite(&path, &counts))
            .await
            .map_err(|error| DbError::Broken(error.to_string()))?,
        None => fill_postgres(config, &counts).await,
    }
}

async fn fill_postgres(config: &DbConfig, counts: &Counts) -> Result<(), DbError> {
    let mut conn = Server::new(&config.url, true)?.connect_unlimited().await?;
    conn.batch_execute(
        "SET statement_timeout = 0; SET work_mem = '256MB'; SET synchronous_commit = off;
         CREATE FUNCTION pg_temp.digest_of(text) RETURNS text IMMUTABLE LANGUAGE sql
         AS $$ SELECT 'sha256:' || encode(sha256(convert_to($1, 'UTF8')), 'hex') $$;",
    )
    .await?;
    for statement in statements(counts, "pg_temp.digest_of", "BYTEA") {
        conn.batch_execute(&statement).await?;
    }
    conn.batch_execute("VACUUM ANALYZE").await?;
    Ok(())
}

#[diesel::declare_sql_function]
extern "SQL" {
    /// The digest of a text, in SQLite as in PostgreSQL.
    fn digest_of(text: Text) -> Text;
}

fn fill_sqlite(path: &str, counts: &Counts) -> Result<(), DbError> {
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute(
        "PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON; PRAGMA cache_size = -262144; PRAGMA temp_store = MEMORY;",
    )?;
    digest_of_utils::register_impl(&mut conn, |text: String| Digest::sha256(text.as_bytes()).to_string())?;
    for statement in statements(counts, "digest_of", "BLOB") {
        conn.batch_execute(&statement)?;
    }
    conn.batch_execute("ANALYZE; PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(())
}

fn statements(counts: &Counts, digest: &str, bytes: &str) -> impl Iterator<Item = String> {
    let values = [
        ("{digest}", digest.to_owned()),
        ("{bytes}", bytes.to_owned()),
        ("{blobs}", counts.blobs.to_string()),
        ("{manifests}", counts.manifests.to_string()),
        ("{repositories}", counts.repositories.to_string()),
        ("{tags}", counts.tags.to_string()),
        ("{tasks}", counts.tasks.to_string()),
        ("{each}", (counts.blobs / counts.manifests).to_string()),
        ("{bases}", (1 + counts.blobs / 1000).to_string()),
    ];
    STATEMENTS.into_iter().map(move |statement| {
        values.iter().fold(statement.to_owned(), |text, (name, value)| text.replace(name, value))
    })
}

/// Both databases take these. Rows are written in the order of their keys, which builds an index fastest.
const STATEMENTS: [&str; 21] = [
    "CREATE TEMPORARY TABLE fill_blob (i INTEGER PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL)",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {blobs})
     INSERT INTO fill_blob SELECT i, {digest}('blob ' || i), 1000 + i % 9000000 FROM n",
    "INSERT INTO blobs (digest, size, state, stored_at, last_read_at)
     SELECT digest, size, CASE WHEN i % 4 = 0 THEN 0 ELSE 1 END, 1700000000000 + i, 1700000000000 + i
     FROM fill_blob ORDER BY digest",
    "INSERT INTO blob_sources (digest, upstream, upstream_name)
     SELECT digest, 'filled', 'library/app' || (i % {repositories}) FROM fill_blob ORDER BY digest",
    // The first item is the config, the second a base layer that many have; then come layers of its own.
    "CREATE TEMPORARY TABLE fill_item (k INTEGER NOT NULL, position INTEGER NOT NULL, blob INTEGER NOT NULL)",
    "WITH RECURSIVE m(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM m WHERE k + 1 < {manifests}),
         p(position) AS (SELECT 0 UNION ALL SELECT position + 1 FROM p WHERE position < {each})
     INSERT INTO fill_item
     SELECT k, position, CASE
         WHEN position = 0 THEN k * {each}
         WHEN position = 1 THEN CASE WHEN k % 3 = 0 THEN 0 ELSE k % {bases} END
         ELSE k * {each} + position - 1 END
     FROM m, p",
    "CREATE TEMPORARY TABLE fill_manifest (k INTEGER PRIMARY KEY, digest TEXT NOT NULL, body TEXT NOT NULL)",
    r#"INSERT INTO fill_manifest
     SELECT k, {digest}(body), body FROM (
         SELECT k, '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":'
             || max(CASE WHEN position = 0 THEN descriptor END) || ',"layers":['
             || string_agg(CASE WHEN position > 0 THEN descriptor END, ',') || ']}' AS body
         FROM (
             SELECT k, position, '{"mediaType":"application/vnd.oci.image.'
                 || CASE WHEN position = 0 THEN 'config.v1+json' ELSE 'layer.v1.tar+gzip' END
                 || '","digest":"' || digest || '","size":' || size || '}' AS descriptor
             FROM fill_item JOIN fill_blob ON blob = i ORDER BY k, position
         ) AS items GROUP BY k
     ) AS bodies"#,
    "INSERT INTO manifests (digest, media_type, config, body, size, created_at)
     SELECT m.digest, 'application/vnd.oci.image.manifest.v1+json', b.digest, CAST(m.body AS {bytes}),
         length(m.body), 1700000000000 + k
     FROM fill_manifest m JOIN fill_blob b ON b.i = k * {each} ORDER BY m.digest",
    "INSERT INTO manifest_items (manifest, position, kind, digest, media_type, size)
     SELECT m.digest, position, CASE WHEN position = 0 THEN 1 ELSE 2 END, b.digest,
         CASE WHEN position = 0 THEN 'application/vnd.oci.image.config.v1+json'
             ELSE 'application/vnd.oci.image.layer.v1.tar+gzip' END, b.size
     FROM fill_item f JOIN fill_manifest m ON m.k = f.k JOIN fill_blob b ON b.i = blob
     ORDER BY m.digest, position",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {repositories})
     INSERT INTO repositories (name, upstream, upstream_name, created_at)
     SELECT 'filled/team' || (i % 100) || '/app' || i, 'filled', 'library/app' || i, 1700000000000 + i FROM n",
    "CREATE TEMPORARY TABLE fill_repository (i INTEGER PRIMARY KEY, id BIGINT NOT NULL)",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {repositories})
     INSERT INTO fill_repository
     SELECT i, id FROM n JOIN repositories ON name = 'filled/team' || (i % 100) || '/app' || i",
    "INSERT INTO repository_manifests (repository_id, manifest, first_seen_at)
     SELECT id, digest, 1700000000000 FROM fill_manifest JOIN fill_repository ON i = k % {repositories}
     ORDER BY id, digest",
    "INSERT INTO repository_blobs (repository_id, digest, pending, touched_at)
     SELECT DISTINCT r.id, b.digest, FALSE, 1700000000000
     FROM fill_item JOIN fill_repository r ON r.i = k % {repositories} JOIN fill_blob b ON b.i = blob
     ORDER BY r.id, b.digest",
    "INSERT INTO repository_blobs (repository_id, digest, pending, touched_at)
     SELECT r.id, b.digest, TRUE, 1700000000000 + b.i
     FROM fill_blob b JOIN fill_repository r ON r.i = (b.i + 1) % {repositories} WHERE b.i % 1000 = 7
     ON CONFLICT DO NOTHING",
    "INSERT INTO tags (repository_id, name, manifest, moved_at, checked_at)
     SELECT id, 'v' || k, digest, 1700000000000, 1700000000000
     FROM fill_manifest JOIN fill_repository ON i = k % {repositories} ORDER BY id, 'v' || k",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {tags})
     INSERT INTO tags (repository_id, name, manifest, moved_at, checked_at)
     SELECT r.id, 'build-' || n.i, m.digest, 1700000000000, 1700000000000
     FROM n JOIN fill_repository r ON r.i = 0 JOIN fill_manifest m ON m.k = 0",
    r#"INSERT INTO tag_moves (repository_id, name, "to", at, cause)
     SELECT repository_id, name, manifest, moved_at, 0 FROM tags"#,
    r#"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {tasks})
     INSERT INTO tasks (kind, "key", payload, state, attempts, run_at, created_at)
     SELECT 'filled', 'key ' || i, '{}', CASE WHEN i % 4 = 0 THEN 0 ELSE 2 END, 0,
         4000000000000 + i, 1700000000000 FROM n"#,
    "DROP TABLE fill_item; DROP TABLE fill_manifest; DROP TABLE fill_repository; DROP TABLE fill_blob",
];
