//! Manifests and what they name.

use bytes::Bytes;
use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, NullableExpressionMethods, OptionalExtension,
    QueryDsl, dsl::exists, select,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Conn, Db, DbError, insert_all, on};
use crate::schema::{manifest_items, manifests, repositories, repository_manifests};
use oci_types::{
    Digest, Manifest, MediaType, Millis, RepositoryName,
    manifest::{Item, ItemKind, Platform},
};

/// A manifest whose bytes are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// The digest under which it was asked for; its bytes hash to it.
    pub digest: Digest,
    /// What it is served as.
    pub media_type: MediaType,
    /// The bytes, exactly as they came.
    pub body: Bytes,
}

/// A manifest to keep: its bytes were checked against the digest.
#[derive(Debug, Clone)]
pub struct NewManifest {
    /// The digest of `body`.
    pub digest: Digest,
    /// What `body` says.
    pub parsed: Manifest,
    /// The bytes, exactly as they came.
    pub body: Bytes,
}

/// The manifest whose bytes hash to `digest`, through whichever repository it came. Whether a repository may serve it
/// is what [`linked`] tells.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn load(db: &Db, digest: &Digest) -> Result<Option<StoredManifest>, DbError> {
    let digest = digest.clone();
    db.read(move |conn| async move { select_stored(conn, &digest).await }.boxed()).await
}

pub(super) async fn select_stored(
    conn: &mut Conn,
    digest: &Digest,
) -> Result<Option<StoredManifest>, DbError> {
    use manifests as m;
    let query = m::table.filter(m::digest.eq(digest)).select((m::media_type, m::body));
    let row: Option<(String, Vec<u8>)> = on!(conn, |c| query.first(c)).optional()?;
    Ok(row.map(|(media_type, body)| StoredManifest {
        digest: digest.clone(),
        media_type: MediaType::new(&media_type),
        body: body.into(),
    }))
}

/// Whether the bytes are here.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn stored(db: &Db, digest: &Digest) -> Result<bool, DbError> {
    let digest = digest.clone();
    db.read(move |conn| async move { is_stored(conn, &digest).await }.boxed()).await
}

pub(super) async fn is_stored(conn: &mut Conn, digest: &Digest) -> Result<bool, DbError> {
    let query = select(exists(manifests::table.filter(manifests::digest.eq(digest))));
    Ok(on!(conn, |c| query.get_result(c))?)
}

/// Whether the repository may serve this manifest. A child of an index that it may serve counts, even where the bytes
/// are yet to be fetched.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn linked(db: &Db, repository: &RepositoryName, digest: &Digest) -> Result<bool, DbError> {
    let (repository, digest) = (repository.clone(), digest.clone());
    db.read(move |conn| {
        async move {
            use repository_manifests as rm;
            let rows = rm::table
                .inner_join(repositories::table)
                .filter(repositories::name.eq(repository).and(rm::manifest.eq(digest)));
            let query = select(exists(rows));
            Ok(on!(conn, |c| query.get_result(c))?)
        }
        .boxed()
    })
    .await
}

/// What the manifest names, in its order; nothing for one that isn't here.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn items(db: &Db, digest: &Digest) -> Result<Vec<Item>, DbError> {
    let digest = digest.clone();
    db.read(move |conn| async move { items_of(conn, &[digest]).await }.boxed()).await
}

/// The platform that an index names for a manifest; `None` when no index here names one.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn platform_of(db: &Db, digest: &Digest) -> Result<Option<Platform>, DbError> {
    let digest = digest.clone();
    db.read(move |conn| {
        async move {
            use manifest_items as i;
            let query = i::table.filter(i::digest.eq(&digest).and(i::os.is_not_null())).select((
                i::os.assume_not_null(),
                i::architecture.assume_not_null(),
                i::variant,
            ));
            let row: Option<(String, String, Option<String>)> = on!(conn, |c| query.first(c)).optional()?;
            Ok(row.map(|(os, architecture, variant)| Platform { os, architecture, variant }))
        }
        .boxed()
    })
    .await
}

type ItemRow = (i16, Digest, String, i64, Option<String>, Option<String>, Option<String>);

/// What any of these manifests name.
pub(super) async fn items_of(conn: &mut Conn, manifests: &[Digest]) -> Result<Vec<Item>, DbError> {
    use manifest_items as i;
    let query = i::table.filter(i::manifest.eq_any(manifests)).order((i::manifest, i::position)).select((
        i::kind,
        i::digest,
        i::media_type,
        i::size,
        i::os,
        i::architecture,
        i::variant,
    ));
    let rows: Vec<ItemRow> = on!(conn, |c| query.load(c))?;
    rows.into_iter().map(item).collect()
}

/// Keeps the bytes and what they name, unless they are here already.
pub(super) async fn store(conn: &mut Conn, new: &NewManifest, now: Millis) -> Result<(), DbError> {
    use manifests as m;
    let query = diesel::insert_into(m::table)
        .values((
            m::digest.eq(&new.digest),
            m::media_type.eq(new.parsed.media_type.as_str()),
            m::artifact_type.eq(new.parsed.artifact_type.as_deref()),
            m::subject.eq(new.parsed.subject.as_ref()),
            m::config.eq(new.parsed.config.as_ref()),
            m::body.eq(&new.body[..]),
            m::size.eq(i64::try_from(new.body.len()).unwrap_or(i64::MAX)),
            m::created_at.eq(now.0),
        ))
        .on_conflict_do_nothing();
    if on!(conn, |c| query.execute(c))? == 0 {
        return Ok(());
    }
    let rows = (0..).zip(&new.parsed.items).map(|(position, item)| NewItem {
        manifest: new.digest.clone(),
        position,
        kind: kind_number(item.kind),
        digest: item.digest.clone(),
        media_type: item.media_type.as_str().to_owned(),
        size: i64::try_from(item.size).unwrap_or(i64::MAX),
        os: item.platform.as_ref().map(|platform| platform.os.clone()),
        architecture: item.platform.as_ref().map(|platform| platform.architecture.clone()),
        variant: item.platform.as_ref().and_then(|platform| platform.variant.clone()),
    });
    insert_all!(conn, rows.collect(), |rows| diesel::insert_into(manifest_items::table).values(rows));
    Ok(())
}

#[derive(Insertable)]
#[diesel(table_name = manifest_items)]
struct NewItem {
    manifest: Digest,
    position: i32,
    kind: i16,
    digest: Digest,
    media_type: String,
    size: i64,
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

fn item(row: ItemRow) -> Result<Item, DbError> {
    let (kind, digest, media_type, size, os, architecture, variant) = row;
    let platform = os.zip(architecture).map(|(os, architecture)| Platform { os, architecture, variant });
    let kind = match kind {
        0 => ItemKind::Child,
        1 => ItemKind::Config,
        2 => ItemKind::Layer,
        other => return Err(DbError::Broken(format!("{other} is no kind of manifest item"))),
    };
    let size = u64::try_from(size).unwrap_or(0);
    Ok(Item { kind, digest, media_type: MediaType::new(&media_type), size, platform })
}

fn kind_number(kind: ItemKind) -> i16 {
    match kind {
        ItemKind::Child => 0,
        ItemKind::Config => 1,
        ItemKind::Layer => 2,
    }
}
