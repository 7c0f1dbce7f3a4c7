//! Seeds a database with as many rows as a registry has after years of use, for tests and
//! measurements.
//!
//! The content is consistent: manifests are valid JSON with the digest of their bytes, and name known blobs with sources and
//! links. Images share base layers, one of which nearly all have; one repository has many tags.

use diesel::{Connection, SqliteConnection, connection::SimpleConnection, sql_types::Text};
use diesel_async::SimpleAsyncConnection;

use crate::db::{DbConfig, DbError, Server, repositories::Repository, sqlite_path};
use oci_types::{Digest, RepositoryName, Tag};

/// The numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Blobs. Each is in a manifest; at least three for each manifest.
    pub blobs: u64,
    /// Image manifests, each with a tag of its own.
    pub manifests: u64,
    /// Repositories, at most as many as manifests.
    pub repositories: u64,
    /// Further tags of the first repository.
    pub tags: u64,
    /// Jobs: a quarter is queued, the others have failed.
    pub jobs: u64,
}

impl Counts {
    /// A repository, counted from 0.
    pub fn repository(&self, number: u64) -> Repository {
        let number = number % self.repositories;
        #[expect(clippy::unwrap_used, reason = "the name is valid")]
        let upstream_name = RepositoryName::parse(&format!("library/app{number}")).unwrap();
        Repository::Proxy { upstream: "seed".to_owned(), upstream_name }
    }

    /// A repository, one of its tags, and a blob that it links.
    #[expect(clippy::unwrap_used, reason = "the tag is valid")]
    pub fn tagged(&self, number: u64) -> (Repository, Tag, Digest) {
        let manifest = number % self.manifests;
        let blob = manifest * (self.blobs / self.manifests);
        (
            self.repository(manifest % self.repositories),
            Tag::parse(&format!("v{manifest}")).unwrap(),
            Digest::sha256(format!("blob {blob}").as_bytes()),
        )
    }
}

/// Seeds a migrated, empty database.
///
/// # Errors
/// [`DbError`].
pub async fn seed(config: &DbConfig, counts: &Counts) -> Result<(), DbError> {
    let counts = *counts;
    match sqlite_path(&config.url).map(str::to_owned) {
        Some(path) => tokio::task::spawn_blocking(move || seed_sqlite(&path, &counts))
            .await
            .map_err(|error| DbError::broken(error.to_string()))?,
        None => seed_postgres(config, &counts).await,
    }
}

async fn seed_postgres(config: &DbConfig, counts: &Counts) -> Result<(), DbError> {
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

fn seed_sqlite(path: &str, counts: &Counts) -> Result<(), DbError> {
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
        ("{jobs}", counts.jobs.to_string()),
        ("{each}", (counts.blobs / counts.manifests).to_string()),
        ("{bases}", (1 + counts.blobs / 1000).to_string()),
    ];
    STATEMENTS.into_iter().map(move |statement| {
        values.iter().fold(statement.to_owned(), |text, (name, value)| text.replace(name, value))
    })
}

/// Statements that run on both databases. Rows are written in key order, which is the fastest way
/// to build an index.
const STATEMENTS: [&str; 21] = [
    "CREATE TEMPORARY TABLE seed_blob (i INTEGER PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL)",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {blobs})
     INSERT INTO seed_blob SELECT i, {digest}('blob ' || i), 1000 + i % 9000000 FROM n",
    "INSERT INTO blobs (digest, size, state, stored_at, last_read_at)
     SELECT digest, CASE WHEN i % 4 = 0 THEN NULL ELSE size END, CASE WHEN i % 4 = 0 THEN 0 ELSE 1 END, 1700000000000 + i, 1700000000000 + i
     FROM seed_blob ORDER BY digest",
    "INSERT INTO blob_sources (digest, upstream, upstream_name, size)
     SELECT digest, 'seed', 'library/app' || (i % {repositories}), size FROM seed_blob ORDER BY digest",
    // The first item is the config, the second a base layer that many have; then come layers of its own.
    "CREATE TEMPORARY TABLE seed_item (k INTEGER NOT NULL, position INTEGER NOT NULL, blob INTEGER NOT NULL)",
    "WITH RECURSIVE m(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM m WHERE k + 1 < {manifests}),
         p(position) AS (SELECT 0 UNION ALL SELECT position + 1 FROM p WHERE position < {each})
     INSERT INTO seed_item
     SELECT k, position, CASE
         WHEN position = 0 THEN k * {each}
         WHEN position = 1 THEN CASE WHEN k % 3 = 0 THEN 0 ELSE k % {bases} END
         ELSE k * {each} + position - 1 END
     FROM m, p",
    "CREATE TEMPORARY TABLE seed_manifest (k INTEGER PRIMARY KEY, digest TEXT NOT NULL, body TEXT NOT NULL)",
    r#"INSERT INTO seed_manifest
     SELECT k, {digest}(body), body FROM (
         SELECT k, '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":'
             || max(CASE WHEN position = 0 THEN descriptor END) || ',"layers":['
             || string_agg(CASE WHEN position > 0 THEN descriptor END, ',') || ']}' AS body
         FROM (
             SELECT k, position, '{"mediaType":"application/vnd.oci.image.'
                 || CASE WHEN position = 0 THEN 'config.v1+json' ELSE 'layer.v1.tar+gzip' END
                 || '","digest":"' || digest || '","size":' || size || '}' AS descriptor
             FROM seed_item JOIN seed_blob ON blob = i ORDER BY k, position
         ) AS items GROUP BY k
     ) AS bodies"#,
    "INSERT INTO manifests (digest, media_type, config, body, size, created_at)
     SELECT m.digest, 'application/vnd.oci.image.manifest.v1+json', b.digest, CAST(m.body AS {bytes}),
         length(m.body), 1700000000000 + k
     FROM seed_manifest m JOIN seed_blob b ON b.i = k * {each} ORDER BY m.digest",
    "INSERT INTO manifest_descriptors (manifest, position, role, digest, media_type, size)
     SELECT m.digest, position, CASE WHEN position = 0 THEN 1 ELSE 2 END, b.digest,
         CASE WHEN position = 0 THEN 'application/vnd.oci.image.config.v1+json'
             ELSE 'application/vnd.oci.image.layer.v1.tar+gzip' END, b.size
     FROM seed_item f JOIN seed_manifest m ON m.k = f.k JOIN seed_blob b ON b.i = blob
     ORDER BY m.digest, position",
    r#"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {repositories})
     INSERT INTO repositories ("key", name, upstream, upstream_name, created_at)
     SELECT 'seed@library/app' || i, 'seed/team' || (i % 100) || '/app' || i, 'seed', 'library/app' || i,
         1700000000000 + i FROM n"#,
    "CREATE TEMPORARY TABLE seed_repository (i INTEGER PRIMARY KEY, id BIGINT NOT NULL)",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {repositories})
     INSERT INTO seed_repository
     SELECT i, id FROM n JOIN repositories ON name = 'seed/team' || (i % 100) || '/app' || i",
    "INSERT INTO repository_manifests (repository_id, manifest, first_seen_at)
     SELECT id, digest, 1700000000000 FROM seed_manifest JOIN seed_repository ON i = k % {repositories}
     ORDER BY id, digest",
    "INSERT INTO repository_blobs (repository_id, digest, pending, touched_at)
     SELECT DISTINCT r.id, b.digest, FALSE, 1700000000000
     FROM seed_item JOIN seed_repository r ON r.i = k % {repositories} JOIN seed_blob b ON b.i = blob
     ORDER BY r.id, b.digest",
    "INSERT INTO repository_blobs (repository_id, digest, pending, touched_at)
     SELECT r.id, b.digest, TRUE, 1700000000000 + b.i
     FROM seed_blob b JOIN seed_repository r ON r.i = (b.i + 1) % {repositories} WHERE b.i % 1000 = 7
     ON CONFLICT DO NOTHING",
    "INSERT INTO tags (repository_id, name, manifest, moved_at, checked_at)
     SELECT id, 'v' || k, digest, 1700000000000, 1700000000000
     FROM seed_manifest JOIN seed_repository ON i = k % {repositories} ORDER BY id, 'v' || k",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {tags})
     INSERT INTO tags (repository_id, name, manifest, moved_at, checked_at)
     SELECT r.id, 'build-' || n.i, m.digest, 1700000000000, 1700000000000
     FROM n JOIN seed_repository r ON r.i = 0 JOIN seed_manifest m ON m.k = 0",
    r#"INSERT INTO tag_moves (repository_id, name, "to", at, cause)
     SELECT repository_id, name, manifest, moved_at, 0 FROM tags"#,
    r#"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {jobs})
     INSERT INTO jobs (kind, "key", payload, state, attempts, run_at, created_at, ended_at)
     SELECT 'seed', 'key ' || i, '{}', CASE WHEN i % 4 = 0 THEN 0 ELSE 2 END, 0, 4000000000000 + i, 1700000000000,
         CASE WHEN i % 4 = 0 THEN NULL ELSE 1700000000000 + i END FROM n"#,
    "DROP TABLE seed_item; DROP TABLE seed_manifest; DROP TABLE seed_repository; DROP TABLE seed_blob",
];
