//! Every query on SQLite and on PostgreSQL. Each test has its own database.

mod blobs;
mod cluster;
mod handle;
mod jobs;
mod links;
mod plans;
mod pooler;
mod record;
mod server;
mod tags;
mod tls;

use std::{
    ops::Deref,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::FutureExt;
use tempfile::TempDir;

use super::{
    Db, DbConfig,
    blobs::BlobRow,
    record::{NewManifest, TagCheck},
    repositories::{NewRepository, Repository, RepositoryKey},
};
use crate::{migrate::migrate, test_postgres::TestPostgres};
use oci_types::{Digest, Manifest, Millis, RepositoryName, Tag, manifest::Descriptor};

/// A database and what must outlive it.
pub(crate) struct TestDb {
    pub(crate) db: Db,
    pub(crate) config: DbConfig,
    _folder: Option<TempDir>,
}

impl Deref for TestDb {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

pub(crate) fn sqlite_config(folder: &TempDir) -> DbConfig {
    config(format!("sqlite://{}", folder.path().join("a folder/tidegate.db").display()))
}

pub(crate) fn postgres_config() -> DbConfig {
    static DATABASES: AtomicU32 = AtomicU32::new(0);
    let server = TestPostgres::shared().unwrap();
    let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    config(server.create_database(&name).unwrap())
}

fn config(url: String) -> DbConfig {
    DbConfig { url, max_connections: 5, wait: Duration::from_secs(10), prepared_statements: true }
}

pub(crate) async fn sqlite() -> TestDb {
    let folder = tempfile::tempdir().unwrap();
    migrated(sqlite_config(&folder), Some(folder)).await
}

pub(crate) async fn postgres() -> TestDb {
    migrated(postgres_config(), None).await
}

async fn migrated(config: DbConfig, folder: Option<TempDir>) -> TestDb {
    migrate(&config).await.unwrap();
    TestDb { db: Db::connect(&config).await.unwrap(), config, _folder: folder }
}

/// Runs each test once on each database.
macro_rules! on_both {
    ($($(#[$attribute:meta])* async fn $name:ident($db:ident: TestDb) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn run($db: TestDb) $body

            #[tokio::test(flavor = "multi_thread")]
            async fn over_sqlite() {
                run($crate::db::tests::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn over_postgres() {
                run($crate::db::tests::postgres().await).await;
            }
        }
    )*};
}
pub(crate) use on_both;

pub(crate) fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

/// A check of a tag that began at `began`.
pub(crate) fn check(text: &str, began: i64) -> TagCheck {
    TagCheck { tag: tag(text), began: Millis(began) }
}

/// A repository of the upstream `hub`, with the same name there.
pub(crate) fn repository(text: &str) -> NewRepository {
    NewRepository { name: name(text), repository: of("hub", text) }
}

/// A repository of an upstream.
pub(crate) fn of(upstream: &str, upstream_name: &str) -> Repository {
    Repository::Proxy { upstream: upstream.to_owned(), upstream_name: name(upstream_name) }
}

/// The key of a repository of the upstream `hub`.
pub(crate) fn key(text: &str) -> RepositoryKey {
    of("hub", text).key()
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

pub(crate) fn manifest(json: &str) -> NewManifest {
    NewManifest {
        digest: Digest::sha256(json.as_bytes()),
        parsed: Manifest::parse(json.as_bytes(), None).unwrap(),
        body: json.to_owned().into(),
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

/// An image manifest with the config `config` (10 bytes) and a layer of 1000 bytes for each of `layers`.
pub(crate) fn image(config: &str, layers: &[&str]) -> NewManifest {
    let config = descriptor("application/vnd.oci.image.config.v1+json", &digest(config), 10);
    let layer = |text: &&str| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &digest(text), 1000);
    let layers: Vec<_> = layers.iter().map(layer).collect();
    manifest(&format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(",")))
}

pub(crate) fn index(children: &[&Digest]) -> NewManifest {
    let child = |digest: &&Digest| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":500,
                "platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}}"#
        )
    };
    let children: Vec<_> = children.iter().map(child).collect();
    manifest(&format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(",")))
}

/// The blob, if the repository links it.
pub(crate) async fn linked_blob(db: &Db, repository: &str, digest: &Digest) -> Option<BlobRow> {
    super::links::blob(db, &key(repository), digest).await.unwrap().map(|linked| linked.blob)
}

/// Whether the repository links the manifest.
pub(crate) async fn links_manifest(db: &Db, repository: &str, digest: &Digest) -> bool {
    super::links::manifest(db, &key(repository), digest, false).await.unwrap().proof.is_some()
}

/// The descriptors of a manifest.
pub(crate) async fn descriptors(db: &Db, manifest: &Digest) -> Vec<Descriptor> {
    let manifest = manifest.clone();
    db.read(move |conn| {
        async move { super::manifests::descriptors(conn, &[manifest], usize::MAX).await }.boxed()
    })
    .await
    .unwrap()
}
