//! The links of a repository to content, and what each proves.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, OptionalExtension,
    QueryDsl, dsl::exists, select,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{
    Conn, Db, DbError,
    blobs::{self as blob_rows, BlobRow},
    columns,
    manifests::{self as manifest_rows, StoredManifest},
    on,
    repositories::RepositoryKey,
};
use crate::schema::{blob_sources, blobs, repositories, repository_blobs, repository_manifests};
use oci_types::Digest;

/// What a link of a repository to content proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The upstream of the repository has confirmed the content for it.
    Confirmed,
    /// A manifest of the repository names the content.
    Claimed {
        /// Whether the bytes came from another upstream, or may be fetched from one.
        from_other_upstream: bool,
    },
}

/// A blob that a repository links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedBlob {
    /// The blob. Its size is as received, or else as the upstream of the repository states it.
    pub blob: BlobRow,
    /// What the link proves.
    pub proof: Proof,
}

/// A manifest by digest, with the link of a repository to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestLookup {
    /// What the link of the repository proves; `None` without a link.
    pub proof: Option<Proof>,
    /// The bytes, whichever repository they were recorded for. `None` if they are not stored or
    /// were not requested.
    pub stored: Option<StoredManifest>,
}

/// The blob, if the repository links it, pending or not.
///
/// # Errors
/// [`DbError`].
pub async fn blob(
    db: &Db,
    repository: &RepositoryKey,
    digest: &Digest,
) -> Result<Option<LinkedBlob>, DbError> {
    let (repository, digest) = (repository.clone(), digest.clone());
    db.read(move |conn| {
        async move {
            use blob_sources as s;
            use repository_blobs as rb;
            let own_source = s::digest
                .eq(rb::digest)
                .and(s::upstream.nullable().eq(repositories::upstream))
                .and(s::upstream_name.nullable().eq(repositories::upstream_name));
            let query = rb::table
                .inner_join(repositories::table)
                .inner_join(blobs::table)
                .left_join(s::table.on(own_source))
                .filter(repositories::key.eq(repository.as_str()))
                .filter(rb::digest.eq(&digest))
                .select((
                    columns::<blob_rows::Row>(),
                    s::size.nullable(),
                    rb::confirmed,
                    repositories::upstream,
                ));
            let found: Option<(blob_rows::Row, Option<i64>, bool, Option<String>)> =
                on!(conn, |c| query.first(c)).optional()?;
            let Some((row, stated, confirmed, upstream)) = found else { return Ok(None) };
            let proof = match confirmed {
                true => Proof::Confirmed,
                false => {
                    Proof::Claimed { from_other_upstream: has_other_source(conn, &digest, upstream).await? }
                }
            };
            Ok(Some(LinkedBlob { blob: row.into_blob(stated.as_slice()), proof }))
        }
        .boxed()
    })
    .await
}

/// The link of the repository to a manifest, and with `with_bytes` the bytes of the manifest.
///
/// # Errors
/// [`DbError`].
pub async fn manifest(
    db: &Db,
    repository: &RepositoryKey,
    digest: &Digest,
    with_bytes: bool,
) -> Result<ManifestLookup, DbError> {
    let (repository, digest) = (repository.clone(), digest.clone());
    db.read(move |conn| {
        async move {
            use repository_manifests as rm;
            let query = rm::table
                .inner_join(repositories::table)
                .filter(repositories::key.eq(repository.as_str()))
                .filter(rm::manifest.eq(&digest))
                .select((rm::confirmed, repositories::upstream));
            let found: Option<(bool, Option<String>)> = on!(conn, |c| query.first(c)).optional()?;
            let proof = match found {
                None => None,
                Some((true, _)) => Some(Proof::Confirmed),
                Some((false, upstream)) => {
                    let confirmed = is_confirmed_by(conn, &digest, upstream).await?;
                    Some(Proof::Claimed { from_other_upstream: !confirmed })
                }
            };
            let stored = if with_bytes { manifest_rows::select_stored(conn, &digest).await? } else { None };
            Ok(ManifestLookup { proof, stored })
        }
        .boxed()
    })
    .await
}

/// Whether a blob has a source at another upstream.
async fn has_other_source(
    conn: &mut Conn,
    digest: &Digest,
    upstream: Option<String>,
) -> Result<bool, DbError> {
    use blob_sources as s;
    let other = s::table.filter(s::digest.eq(digest)).filter(s::upstream.ne(upstream.unwrap_or_default()));
    let query = select(exists(other));
    Ok(on!(conn, |c| query.get_result(c))?)
}

/// Whether the upstream has confirmed a manifest for any of its repositories. If so, the bytes are
/// those of the upstream.
async fn is_confirmed_by(
    conn: &mut Conn,
    digest: &Digest,
    upstream: Option<String>,
) -> Result<bool, DbError> {
    use repository_manifests as rm;
    let confirmed = rm::table
        .inner_join(repositories::table)
        .filter(rm::manifest.eq(digest).and(rm::confirmed))
        .filter(repositories::upstream.eq(upstream));
    let query = select(exists(confirmed));
    Ok(on!(conn, |c| query.get_result(c))?)
}
