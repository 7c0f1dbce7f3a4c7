//! Recording a manifest that an upstream has confirmed, with all content that it makes readable.

use std::collections::{BTreeMap, BTreeSet};

use diesel::{BoolExpressionMethods, ExpressionMethods, Insertable, upsert::excluded};
use futures::FutureExt;

use super::{Conn, Db, DbError, blobs, insert_all, manifests, repositories, tags};
use crate::schema::repository_manifests;
use oci_types::{
    Digest, Millis,
    manifest::{Descriptor, DescriptorRole, MAX_DESCRIPTORS},
};

pub use super::{
    manifests::NewManifest,
    repositories::NewRepository,
    tags::{TagCheck, TagRow},
};

/// The maximum depth of nested indexes.
const MAX_DEPTH: usize = 3;

/// The maximum number of manifests in one statement.
const LEVEL_CHUNK: usize = 50;

/// The maximum number of manifests and blobs that one manifest links: further ones are confirmed
/// when they are requested.
const MAX_LINKS: usize = 2 * MAX_DESCRIPTORS;

#[derive(Insertable)]
#[diesel(table_name = repository_manifests, treat_none_as_default_value = false)]
struct NewLink {
    repository_id: i64,
    manifest: Digest,
    first_seen_at: Millis,
    confirmed: bool,
}

/// The content that a manifest makes readable through a repository.
#[derive(Default)]
struct Content {
    manifests: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, Option<u64>>,
}

/// Records a manifest in one transaction:
///
/// - its bytes and descriptors;
/// - links of the repository to it, and to all manifests and blobs below it, as far as the bytes of the manifests are in
///   the database;
/// - the blobs that are unknown, as on-demand, and the repository of the upstream as a source of each;
/// - the tag, if there is one, unless a check of it that began later has been recorded.
///
/// Returns the resulting tag.
///
/// # Errors
/// [`DbError`].
pub async fn manifest(
    db: &Db,
    repository: &NewRepository,
    manifest: &NewManifest,
    tag: Option<&TagCheck>,
    now: Millis,
) -> Result<Option<TagRow>, DbError> {
    let (repository, manifest, tag) = (repository.clone(), manifest.clone(), tag.cloned());
    db.transaction(move |conn| {
        async move {
            let repository_id = repositories::ensure(conn, &repository, now).await?;
            manifests::store(conn, &manifest, now).await?;
            let content = content(conn, &manifest.digest, manifest.parsed.descriptors).await?;
            link(conn, repository_id, &repository, content, &manifest.digest, now).await?;
            point(conn, repository_id, tag.as_ref(), &manifest.digest).await
        }
        .boxed()
    })
    .await
}

/// The result of [`adopt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The resulting tag, if there is one.
    pub tag: Option<TagRow>,
}

/// Does the same as [`manifest`] for a manifest whose bytes are in the database. Returns `None`, and records nothing, if they
/// are not.
///
/// # Errors
/// [`DbError`].
pub async fn adopt(
    db: &Db,
    repository: &NewRepository,
    digest: &Digest,
    tag: Option<&TagCheck>,
    now: Millis,
) -> Result<Option<Adopted>, DbError> {
    let (repository, digest, tag) = (repository.clone(), digest.clone(), tag.cloned());
    db.transaction(move |conn| {
        async move {
            if !manifests::is_stored(conn, &digest).await? {
                return Ok(None);
            }
            let repository_id = repositories::ensure(conn, &repository, now).await?;
            let descriptors =
                manifests::descriptors(conn, std::slice::from_ref(&digest), MAX_DESCRIPTORS).await?;
            let content = content(conn, &digest, descriptors).await?;
            link(conn, repository_id, &repository, content, &digest, now).await?;
            let tag = point(conn, repository_id, tag.as_ref(), &digest).await?;
            Ok(Some(Adopted { tag }))
        }
        .boxed()
    })
    .await
}

async fn point(
    conn: &mut Conn,
    repository_id: i64,
    tag: Option<&TagCheck>,
    manifest: &Digest,
) -> Result<Option<TagRow>, DbError> {
    match tag {
        Some(tag) => tags::point(conn, repository_id, tag, manifest).await.map(Some),
        None => Ok(None),
    }
}

/// `root` and the content below it, as far as the bytes of its manifests are in the database, and at most [`MAX_LINKS`].
async fn content(
    conn: &mut Conn,
    root: &Digest,
    mut descriptors: Vec<Descriptor>,
) -> Result<Content, DbError> {
    let mut content = Content::default();
    content.manifests.insert(root.clone());
    for _ in 0..MAX_DEPTH {
        let mut level = Vec::new();
        for descriptor in descriptors.drain(..) {
            if descriptor.is_fetched_blob() {
                content.blobs.entry(descriptor.digest).or_insert(descriptor.size);
            } else if descriptor.role == DescriptorRole::Manifest
                && content.manifests.insert(descriptor.digest.clone())
            {
                level.push(descriptor.digest);
            }
        }
        for some in level.chunks(LEVEL_CHUNK) {
            let links = content.manifests.len() + content.blobs.len() + descriptors.len();
            let room = MAX_LINKS.saturating_sub(links);
            if room == 0 {
                break;
            }
            descriptors.extend(manifests::descriptors(conn, some, room).await?);
        }
    }
    Ok(content)
}

/// Links the content: the root as confirmed, everything below it as claimed.
///
/// Rows are written table by table, and by digest within a table, so that transactions that record overlapping content do not
/// deadlock.
async fn link(
    conn: &mut Conn,
    repository_id: i64,
    repository: &NewRepository,
    content: Content,
    root: &Digest,
    now: Millis,
) -> Result<(), DbError> {
    use repository_manifests as rm;
    let links = content.manifests.into_iter().map(|manifest| NewLink {
        repository_id,
        confirmed: manifest == *root,
        manifest,
        first_seen_at: now,
    });
    insert_all!(
        conn,
        links.collect(),
        |rows| diesel::insert_into(rm::table)
            .values(rows)
            .on_conflict((rm::repository_id, rm::manifest))
            .do_update()
            .set(rm::confirmed.eq(rm::confirmed.or(excluded(rm::confirmed)))),
        if excluded(rm::confirmed).and(rm::confirmed.eq(false))
    );
    let blobs: Vec<_> = content.blobs.into_iter().collect();
    blobs::ensure(conn, &blobs, repository.repository.source()).await?;
    blobs::claim(conn, repository_id, blobs.into_iter().map(|(digest, _)| digest), now).await
}
