//! Recording what upstream has confirmed: a manifest with everything that becomes readable through it.

use std::collections::{BTreeMap, BTreeSet};

use diesel::{BoolExpressionMethods, ExpressionMethods, Insertable, upsert::excluded};
use futures::FutureExt;

use super::{Conn, Db, DbError, blobs, insert_all, manifests, repositories, tags, update_only_if};
use crate::schema::repository_manifests;
use oci_types::{
    Digest, Millis,
    manifest::{Item, ItemKind, MAX_ITEMS},
};

pub use super::{
    manifests::NewManifest,
    repositories::NewRepository,
    tags::{TagCheck, TagRow},
};

/// How many levels of indexes are followed below a manifest.
const MAX_DEPTH: usize = 3;

/// How many manifests are asked for in one statement.
const LEVEL_CHUNK: usize = 500;

#[derive(Insertable)]
#[diesel(table_name = repository_manifests)]
struct NewLink {
    repository_id: i64,
    manifest: Digest,
    first_seen_at: i64,
    confirmed: bool,
}

/// What becomes readable through a repository with a manifest.
#[derive(Default)]
struct Content {
    manifests: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, Option<u64>>,
}

/// Records a manifest in one transaction: its bytes and what it names; the links of the repository to it, to its
/// children and to its blobs (those that were pending are no longer), also to what is named by children whose bytes are
/// here; its blobs as on-demand with size and source, where they aren't known; and the tag, if there is one, unless a
/// check of it that began later has been recorded: then the tag stays where that has seen it. Returns the tag as it is
/// then.
///
/// # Errors
/// [`DbError::Conflict`] when the repository is one without upstream; [`DbError`], as every query.
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
            let content = content(conn, &manifest.digest, manifest.parsed.items).await?;
            link(conn, repository_id, &repository, content, &manifest.digest, now).await?;
            point(conn, repository_id, tag.as_ref(), &manifest.digest).await
        }
        .boxed()
    })
    .await
}

/// What [`adopt`] recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The tag as it is then, where there is one.
    pub tag: Option<TagRow>,
}

/// Does what [`manifest`] does, for a manifest whose bytes are here already, by any repository. `None`, and nothing is
/// recorded, when they are not.
///
/// # Errors
/// As [`manifest`].
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
            let items = manifests::items_of(conn, std::slice::from_ref(&digest)).await?;
            let content = content(conn, &digest, items).await?;
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

/// Everything below `root`, as far as the bytes of its children are here.
async fn content(conn: &mut Conn, root: &Digest, mut items: Vec<Item>) -> Result<Content, DbError> {
    let mut content = Content::default();
    content.manifests.insert(root.clone());
    for _ in 0..MAX_DEPTH {
        let mut level = Vec::new();
        for item in items.drain(..) {
            if item.is_fetched_blob() {
                content.blobs.entry(item.digest).or_insert(Some(item.size));
            } else if item.kind == ItemKind::Child
                && content.manifests.len() <= MAX_ITEMS
                && content.manifests.insert(item.digest.clone())
            {
                level.push(item.digest);
            }
        }
        for some in level.chunks(LEVEL_CHUNK) {
            items.extend(manifests::items_of(conn, some).await?);
        }
    }
    Ok(content)
}

/// Links the content: the root as confirmed, everything below it as claimed.
///
/// Rows are written table by table in one order and within a table by digest, so that no two who record overlapping
/// content wait for each other in a ring.
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
        first_seen_at: now.0,
    });
    insert_all!(conn, links.collect(), |rows| update_only_if(
        diesel::insert_into(rm::table)
            .values(rows)
            .on_conflict((rm::repository_id, rm::manifest))
            .do_update()
            .set(rm::confirmed.eq(true)),
        excluded(rm::confirmed).and(rm::confirmed.eq(false)),
    ));
    let blobs: Vec<_> = content.blobs.into_iter().collect();
    blobs::ensure(conn, &blobs, &repository.upstream, &repository.upstream_name).await?;
    blobs::confirm(conn, repository_id, blobs.into_iter().map(|(digest, _)| digest), now).await
}
