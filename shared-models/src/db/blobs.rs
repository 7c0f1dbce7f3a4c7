//! Blobs: what is known of them, where they come from, and through which repositories they are readable.

mod links;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, IntoSql, OptionalExtension, QueryDsl,
    dsl::case_when,
    sql_types::{BigInt, Nullable},
    upsert::excluded,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Conn, Db, DbError, insert_all, on, update_only_if};
use crate::schema::{blob_sources, blobs, repositories, repository_blobs};
use oci_types::{Digest, Millis, RepositoryName};

pub(super) use links::confirm;
pub use links::{NewPending, expire_pending, record_pending, touch_read};

/// A blob known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes: as received when stored, else as a manifest or upstream claims it.
    pub size: Option<u64>,
    /// Whether its bytes are here.
    pub state: BlobState,
}

/// Whether a blob's bytes are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// They are fetched when somebody asks.
    OnDemand,
    /// They were verified and are durable.
    Stored,
}

/// A repository of an upstream that has the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobSource {
    /// The configured upstream.
    pub upstream: String,
    /// The repository there.
    pub upstream_name: RepositoryName,
    /// It failed, and is asked again only after this, or when nothing else is left.
    pub failed_until: Option<Millis>,
}

const ON_DEMAND: i16 = 0;
const STORED: i16 = 1;

/// The size of a blob of which different sizes were said.
const DISPUTED: i64 = -1;

pub(super) type Row = (Digest, Option<i64>, i16);

/// The blob, when the repository links it (pending or not), in one indexed query.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn linked(
    db: &Db,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<BlobRow>, DbError> {
    let (repository, digest) = (repository.clone(), digest.clone());
    db.read(move |conn| {
        async move {
            let query = repository_blobs::table
                .inner_join(repositories::table)
                .inner_join(blobs::table)
                .filter(repositories::name.eq(repository))
                .filter(repository_blobs::digest.eq(digest))
                .select((blobs::digest, blobs::size, blobs::state));
            let row: Option<Row> = on!(conn, |c| query.first(c)).optional()?;
            row.map(blob).transpose()
        }
        .boxed()
    })
    .await
}

/// The blob, through whichever repository.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn find(db: &Db, digest: &Digest) -> Result<Option<BlobRow>, DbError> {
    let digest = digest.clone();
    db.read(move |conn| {
        async move {
            let query = blobs::table.find(digest).select((blobs::digest, blobs::size, blobs::state));
            let row: Option<Row> = on!(conn, |c| query.first(c)).optional()?;
            row.map(blob).transpose()
        }
        .boxed()
    })
    .await
}

/// Where the blob can be fetched: those that never failed first, then by when they may be asked again.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn sources(db: &Db, digest: &Digest) -> Result<Vec<BlobSource>, DbError> {
    let digest = digest.clone();
    db.read(move |conn| {
        async move {
            use blob_sources as s;
            let query = s::table
                .filter(s::digest.eq(digest))
                .order((s::upstream, s::upstream_name))
                .select((s::upstream, s::upstream_name, s::failed_until));
            let rows: Vec<(String, RepositoryName, Option<i64>)> = on!(conn, |c| query.load(c))?;
            let source = |(upstream, upstream_name, until): (_, _, Option<i64>)| BlobSource {
                upstream,
                upstream_name,
                failed_until: until.map(Millis),
            };
            let mut sources: Vec<_> = rows.into_iter().map(source).collect();
            sources.sort_by_key(|source| source.failed_until);
            Ok(sources)
        }
        .boxed()
    })
    .await
}

/// Says that the bytes are here: only after they were verified and are durable. The size is what was received. Doing it
/// again changes nothing.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn mark_stored(db: &Db, digest: &Digest, size: u64, now: Millis) -> Result<(), DbError> {
    let digest = digest.clone();
    db.write(move |conn| {
        async move {
            let upsert = diesel::insert_into(blobs::table)
                .values((
                    blobs::digest.eq(&digest),
                    blobs::size.eq(size_number(size)),
                    blobs::state.eq(STORED),
                    blobs::stored_at.eq(now.0),
                    blobs::last_read_at.eq(now.0),
                ))
                .on_conflict(blobs::digest)
                .do_update()
                .set((
                    blobs::size.eq(excluded(blobs::size)),
                    blobs::state.eq(STORED),
                    blobs::stored_at.eq(excluded(blobs::stored_at)),
                    blobs::last_read_at.eq(excluded(blobs::last_read_at)),
                ));
            let query = update_only_if(upsert, blobs::state.ne(STORED));
            on!(conn, |c| query.execute(c))?;
            Ok(())
        }
        .boxed()
    })
    .await
}

/// Says that the bytes are no longer here; they are fetched again when somebody asks.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn mark_evicted(db: &Db, digest: &Digest) -> Result<(), DbError> {
    let digest = digest.clone();
    db.write(move |conn| {
        async move {
            let query = diesel::update(blobs::table.find(digest))
                .filter(blobs::state.eq(STORED))
                .set((blobs::state.eq(ON_DEMAND), blobs::stored_at.eq(None::<i64>)));
            on!(conn, |c| query.execute(c))?;
            Ok(())
        }
        .boxed()
    })
    .await
}

/// Sets a source behind all others until `until`.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn set_aside_source(
    db: &Db,
    digest: &Digest,
    upstream: &str,
    upstream_name: &RepositoryName,
    until: Millis,
) -> Result<(), DbError> {
    let key = (digest.clone(), upstream.to_owned(), upstream_name.clone());
    db.write(move |conn| {
        async move {
            let query =
                diesel::update(blob_sources::table.find(key)).set(blob_sources::failed_until.eq(until.0));
            on!(conn, |c| query.execute(c))?;
            Ok(())
        }
        .boxed()
    })
    .await
}

/// Makes the blobs known as on-demand, where they aren't known, each with this source. In the order of their digests.
///
/// A size is a claim until the bytes were received. A claim that the digest does not admit is no claim; two that differ make
/// the size unknown for good: a manifest with a wrong size in it must not keep everybody else from the blob.
pub(super) async fn ensure(
    conn: &mut Conn,
    new: &[(Digest, Option<u64>)],
    upstream: &str,
    upstream_name: &RepositoryName,
) -> Result<(), DbError> {
    let rows: Vec<NewBlob> = new
        .iter()
        .map(|(digest, size)| NewBlob {
            digest: digest.clone(),
            size: size.filter(|size| digest.admits_size(*size)).map(size_number),
            state: ON_DEMAND,
        })
        .collect();
    insert_all!(conn, rows, |rows| update_only_if(
        diesel::insert_into(blobs::table).values(rows).on_conflict(blobs::digest).do_update().set(
            blobs::size.eq(case_when(blobs::size.is_null(), excluded(blobs::size))
                .otherwise(DISPUTED.into_sql::<Nullable<BigInt>>()))
        ),
        blobs::state.eq(ON_DEMAND).and(excluded(blobs::size).is_not_null()).and(
            blobs::size.is_null().or(blobs::size.ne(DISPUTED).and(blobs::size.ne(excluded(blobs::size))))
        ),
    ));
    let sources: Vec<NewSource> = new
        .iter()
        .map(|(digest, _)| NewSource {
            digest: digest.clone(),
            upstream: upstream.to_owned(),
            upstream_name: upstream_name.clone(),
        })
        .collect();
    insert_all!(conn, sources, |rows| diesel::insert_into(blob_sources::table)
        .values(rows)
        .on_conflict_do_nothing());
    Ok(())
}

#[derive(Insertable)]
#[diesel(table_name = blobs)]
struct NewBlob {
    digest: Digest,
    size: Option<i64>,
    state: i16,
}

#[derive(Insertable)]
#[diesel(table_name = blob_sources)]
struct NewSource {
    digest: Digest,
    upstream: String,
    upstream_name: RepositoryName,
}

pub(super) fn blob((digest, size, state): Row) -> Result<BlobRow, DbError> {
    let state = match state {
        ON_DEMAND => BlobState::OnDemand,
        STORED => BlobState::Stored,
        other => return Err(DbError::Broken(format!("{other} is no state of a blob"))),
    };
    let size = size.and_then(|size| u64::try_from(size).ok()).filter(|size| digest.admits_size(*size));
    Ok(BlobRow { digest, size, state })
}

fn size_number(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
