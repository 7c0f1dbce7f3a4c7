//! Manifests and their descriptors.

use bytes::Bytes;
use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, JoinOnDsl, NullableExpressionMethods,
    OptionalExtension, QueryDsl, Queryable, Selectable, dsl::exists, select,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{
    Conn, Db, DbError, columns, first, from_column, insert_all, load, on, repositories::RepositoryKey,
    to_column,
};
use crate::schema::{manifest_descriptors, manifests, repositories, repository_manifests};
use oci_types::{
    Digest, Manifest, MediaType, Millis,
    manifest::{Descriptor, DescriptorRole, Platform},
};

/// A manifest in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// The digest of `body`.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// The bytes as received.
    pub body: Bytes,
}

/// A manifest to record. Its bytes are verified.
#[derive(Debug, Clone)]
pub struct NewManifest {
    /// The digest of `body`.
    pub digest: Digest,
    /// The parsed fields of `body`.
    pub parsed: Manifest,
    /// The bytes as received.
    pub body: Bytes,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = manifests)]
struct BytesRow {
    media_type: String,
    body: Vec<u8>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = manifest_descriptors)]
struct DescriptorRow {
    role: DescriptorRole,
    digest: Digest,
    media_type: String,
    size: i64,
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

#[derive(Insertable)]
#[diesel(table_name = manifest_descriptors, treat_none_as_default_value = false)]
struct NewDescriptor {
    manifest: Digest,
    position: i32,
    role: DescriptorRole,
    digest: Digest,
    media_type: String,
    size: i64,
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

/// The manifest with this digest, regardless of which repositories link it.
///
/// # Errors
/// [`DbError`].
pub async fn load(db: &Db, digest: &Digest) -> Result<Option<StoredManifest>, DbError> {
    let digest = digest.clone();
    db.read(move |conn| async move { select_stored(conn, &digest).await }.boxed()).await
}

pub(super) async fn select_stored(
    conn: &mut Conn,
    digest: &Digest,
) -> Result<Option<StoredManifest>, DbError> {
    let query = manifests::table.filter(manifests::digest.eq(digest)).select(columns::<BytesRow>());
    let row: Option<BytesRow> = on!(conn, |c| query.first(c)).optional()?;
    Ok(row.map(|BytesRow { media_type, body }| StoredManifest {
        digest: digest.clone(),
        media_type: MediaType::new(&media_type),
        body: body.into(),
    }))
}

/// Whether the bytes of a manifest are in the database.
///
/// # Errors
/// [`DbError`].
pub async fn stored(db: &Db, digest: &Digest) -> Result<bool, DbError> {
    let digest = digest.clone();
    db.read(move |conn| async move { is_stored(conn, &digest).await }.boxed()).await
}

pub(super) async fn is_stored(conn: &mut Conn, digest: &Digest) -> Result<bool, DbError> {
    let query = select(exists(manifests::table.filter(manifests::digest.eq(digest))));
    Ok(on!(conn, |c| query.get_result(c))?)
}

/// Up to `limit` manifests of a repository whose subject is `subject`, in the order of their digests: those that its
/// upstream has confirmed.
///
/// # Errors
/// [`DbError`].
pub async fn referrers(
    db: &Db,
    repository: &RepositoryKey,
    subject: &Digest,
    limit: i64,
) -> Result<Vec<StoredManifest>, DbError> {
    use manifests as m;
    use repository_manifests as rm;
    let query = rm::table
        .inner_join(repositories::table)
        .inner_join(m::table.on(m::digest.eq(rm::manifest)))
        .filter(repositories::key.eq(repository.as_str().to_owned()))
        .filter(rm::confirmed)
        .filter(m::subject.eq(subject.clone()))
        .order(m::digest)
        .limit(limit)
        .select((m::digest, m::media_type, m::body));
    let rows: Vec<(Digest, String, Vec<u8>)> = load!(db, query)?;
    let stored = |(digest, media_type, body): (Digest, String, Vec<u8>)| StoredManifest {
        digest,
        media_type: MediaType::new(&media_type),
        body: body.into(),
    };
    Ok(rows.into_iter().map(stored).collect())
}

/// The platform that an index states for a manifest. `None` if no index in the database states one.
///
/// # Errors
/// [`DbError`].
pub async fn platform_of(db: &Db, digest: &Digest) -> Result<Option<Platform>, DbError> {
    use manifest_descriptors as d;
    let query = d::table.filter(d::digest.eq(digest.clone()).and(d::os.is_not_null())).select((
        d::os.assume_not_null(),
        d::architecture.assume_not_null(),
        d::variant,
    ));
    let row: Option<(String, String, Option<String>)> = first!(db, query)?;
    Ok(row.map(|(os, architecture, variant)| Platform { os, architecture, variant }))
}

/// Up to `limit` descriptors of manifests, in the order of the manifests' digests, then in that of each manifest.
pub(super) async fn descriptors(
    conn: &mut Conn,
    manifests: &[Digest],
    limit: usize,
) -> Result<Vec<Descriptor>, DbError> {
    use manifest_descriptors as d;
    let query = d::table
        .filter(d::manifest.eq_any(manifests))
        .order((d::manifest, d::position))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(columns::<DescriptorRow>());
    let rows: Vec<DescriptorRow> = on!(conn, |c| query.load(c))?;
    Ok(rows.into_iter().map(Descriptor::from).collect())
}

impl From<DescriptorRow> for Descriptor {
    fn from(row: DescriptorRow) -> Self {
        let DescriptorRow { role, digest, media_type, size, os, architecture, variant } = row;
        let platform = os.zip(architecture).map(|(os, architecture)| Platform { os, architecture, variant });
        let size = Some(from_column(size)).filter(|size| digest.admits_size(*size));
        Self { role, digest, media_type: MediaType::new(&media_type), size, platform }
    }
}

/// Inserts the bytes and the descriptors of a manifest, unless they are in the database.
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
            m::created_at.eq(now),
        ))
        .on_conflict_do_nothing();
    if on!(conn, |c| query.execute(c))? == 0 {
        return Ok(());
    }
    let descriptors = (0..).zip(&new.parsed.descriptors);
    let rows = descriptors.map(|(position, descriptor)| new_descriptor(&new.digest, position, descriptor));
    insert_all!(conn, rows.collect(), |rows| diesel::insert_into(manifest_descriptors::table).values(rows));
    Ok(())
}

fn new_descriptor(manifest: &Digest, position: i32, descriptor: &Descriptor) -> NewDescriptor {
    let platform = descriptor.platform.as_ref();
    NewDescriptor {
        manifest: manifest.clone(),
        position,
        role: descriptor.role,
        digest: descriptor.digest.clone(),
        media_type: descriptor.media_type.as_str().to_owned(),
        // 0 represents an unknown size: only empty content has the size 0.
        size: to_column(descriptor.size.unwrap_or_default()),
        os: platform.map(|platform| platform.os.clone()),
        architecture: platform.map(|platform| platform.architecture.clone()),
        variant: platform.and_then(|platform| platform.variant.clone()),
    }
}
