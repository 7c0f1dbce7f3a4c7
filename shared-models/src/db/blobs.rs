//! Blobs, their sources, and the links of repositories to them.

mod links;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, JoinOnDsl, NullableExpressionMethods,
    OptionalExtension, QueryDsl, Queryable, Selectable, TextExpressionMethods, deserialize::FromSqlRow,
    dsl::case_when, expression::AsExpression, sql_types::SmallInt, upsert::excluded,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{
    Conn, Db, DbError, columns, execute, from_column, insert_all, load, on, to_column, update_only_if,
};
use crate::schema::{blob_sources, blobs, repositories};
use oci_types::{Digest, Millis, RepositoryName, small_int_column};

pub(super) use links::claim;
pub use links::{NewPending, expire_pending, record_pending, touch_read};

/// A blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes: as received, or else as its sources state it. `None` if they state none or contradict each
    /// other.
    pub size: Option<u64>,
    /// Whether its bytes are stored.
    pub state: BlobState,
}

/// Whether the bytes of a blob are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = SmallInt)]
pub enum BlobState {
    /// They are downloaded when a client requests them.
    OnDemand,
    /// They are verified and durable.
    Stored,
}

small_int_column!(BlobState { OnDemand = 0, Stored = 1 });

/// A repository of an upstream that has a blob.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = blob_sources)]
pub struct BlobSource {
    /// The name of the configured upstream.
    pub upstream: String,
    /// The name of the repository at the upstream.
    pub upstream_name: RepositoryName,
    /// Time until which other sources are preferred, after this one failed.
    pub failed_until: Option<Millis>,
}

/// The columns of a blob.
#[derive(Queryable, Selectable)]
#[diesel(table_name = blobs)]
pub(super) struct Row {
    digest: Digest,
    size: Option<i64>,
    state: BlobState,
}

impl Row {
    /// The blob. `stated` are the distinct sizes that its sources state.
    pub(super) fn into_blob(self, stated: &[i64]) -> BlobRow {
        let Self { digest, size, state } = self;
        let stated = match stated {
            [only] => Some(*only),
            _ => None,
        };
        let size = size.or(stated).map(from_column).filter(|size| digest.admits_size(*size));
        BlobRow { digest, size, state }
    }
}

#[derive(Insertable)]
#[diesel(table_name = blobs, treat_none_as_default_value = false)]
struct NewBlob {
    digest: Digest,
    state: BlobState,
}

#[derive(Insertable)]
#[diesel(table_name = blob_sources, treat_none_as_default_value = false)]
struct NewSource {
    digest: Digest,
    upstream: String,
    upstream_name: RepositoryName,
    size: Option<i64>,
}

/// The blob, regardless of which repositories link it.
///
/// # Errors
/// [`DbError`].
pub async fn find(db: &Db, digest: &Digest) -> Result<Option<BlobRow>, DbError> {
    let digest = digest.clone();
    db.read(move |conn| async move { select(conn, &digest).await }.boxed()).await
}

pub(super) async fn select(conn: &mut Conn, digest: &Digest) -> Result<Option<BlobRow>, DbError> {
    let query = blobs::table.find(digest).select(columns::<Row>());
    let row: Option<Row> = on!(conn, |c| query.first(c)).optional()?;
    let Some(row) = row else { return Ok(None) };
    let stated = if row.size.is_some() { Vec::new() } else { stated_sizes(conn, digest).await? };
    Ok(Some(row.into_blob(&stated)))
}

/// The distinct sizes that the sources of a blob state: at most two of them.
async fn stated_sizes(conn: &mut Conn, digest: &Digest) -> Result<Vec<i64>, DbError> {
    use blob_sources as s;
    let query = s::table
        .filter(s::digest.eq(digest).and(s::size.is_not_null()))
        .select(s::size.assume_not_null())
        .distinct()
        .limit(2);
    Ok(on!(conn, |c| query.load(c))?)
}

/// The sources of a blob: first those that are not demoted at `now`, then the others by the end of
/// their demotion. Among equal sources, the repository that clients call `requested` is first.
///
/// # Errors
/// [`DbError`].
pub async fn sources(
    db: &Db,
    digest: &Digest,
    requested: Option<&RepositoryName>,
    now: Millis,
) -> Result<Vec<BlobSource>, DbError> {
    use blob_sources as s;
    use repositories as r;
    let key = s::upstream.concat("@").concat(s::upstream_name);
    let query = s::table
        .left_join(r::table.on(r::key.eq(key)))
        .filter(s::digest.eq(digest.clone()))
        .order((s::upstream, s::upstream_name))
        .select((columns::<BlobSource>(), r::name.nullable()));
    let mut sources: Vec<(BlobSource, Option<RepositoryName>)> = load!(db, query)?;
    sources.sort_by_key(|(source, name)| {
        let demoted_until = source.failed_until.filter(|until| *until > now);
        (demoted_until, requested.is_none_or(|requested| name.as_ref() != Some(requested)))
    });
    Ok(sources.into_iter().map(|(source, _)| source).collect())
}

/// Records that the bytes of a blob are stored: they must be verified and durable. `size` is the number of received bytes.
/// Repeating it has no effect.
///
/// # Errors
/// [`DbError`].
pub async fn mark_stored(db: &Db, digest: &Digest, size: u64, now: Millis) -> Result<(), DbError> {
    use blobs as b;
    let upsert = diesel::insert_into(b::table)
        .values((
            b::digest.eq(digest.clone()),
            b::size.eq(to_column(size)),
            b::state.eq(BlobState::Stored),
            b::stored_at.eq(now),
            b::last_read_at.eq(now),
        ))
        .on_conflict(b::digest)
        .do_update()
        .set((
            b::size.eq(excluded(b::size)),
            b::state.eq(excluded(b::state)),
            b::stored_at.eq(excluded(b::stored_at)),
            b::last_read_at.eq(excluded(b::last_read_at)),
        ));
    execute!(db, update_only_if(upsert, b::state.ne(BlobState::Stored)))?;
    Ok(())
}

/// Records that the bytes of a blob are no longer stored. They are downloaded at the next request.
///
/// # Errors
/// [`DbError`].
pub async fn mark_evicted(db: &Db, digest: &Digest) -> Result<(), DbError> {
    let query = diesel::update(blobs::table.find(digest.clone()))
        .filter(blobs::state.eq(BlobState::Stored))
        .set((blobs::state.eq(BlobState::OnDemand), blobs::stored_at.eq(None::<Millis>)));
    execute!(db, query)?;
    Ok(())
}

/// Records that other sources are preferred to this one until `until`, and clears the size that it
/// stated.
///
/// # Errors
/// [`DbError`].
pub async fn demote_source(
    db: &Db,
    digest: &Digest,
    upstream: &str,
    upstream_name: &RepositoryName,
    until: Millis,
) -> Result<(), DbError> {
    use blob_sources as s;
    let key = (digest.clone(), upstream.to_owned(), upstream_name.clone());
    let query = diesel::update(s::table.find(key)).set((s::failed_until.eq(until), s::size.eq(None::<i64>)));
    execute!(db, query)?;
    Ok(())
}

/// Inserts unknown blobs as on-demand, and the source of each blob with the size that it states, in
/// the order of the digests. If one source states several sizes, the last one is used.
pub(super) async fn ensure(
    conn: &mut Conn,
    new: &[(Digest, Option<u64>)],
    source: Option<(&str, &RepositoryName)>,
) -> Result<(), DbError> {
    let row = |(digest, _): &(Digest, _)| NewBlob { digest: digest.clone(), state: BlobState::OnDemand };
    let rows: Vec<NewBlob> = new.iter().map(row).collect();
    insert_all!(conn, rows, |rows| diesel::insert_into(blobs::table).values(rows).on_conflict_do_nothing());
    let Some((upstream, upstream_name)) = source else { return Ok(()) };
    let row = |(digest, size): &(Digest, Option<u64>)| NewSource {
        digest: digest.clone(),
        upstream: upstream.to_owned(),
        upstream_name: upstream_name.clone(),
        size: size.filter(|size| digest.admits_size(*size)).map(to_column),
    };
    let rows: Vec<NewSource> = new.iter().map(row).collect();
    use blob_sources as s;
    insert_all!(
        conn,
        rows,
        |rows| diesel::insert_into(s::table)
            .values(rows)
            .on_conflict((s::digest, s::upstream, s::upstream_name))
            .do_update()
            .set(s::size.eq(case_when(excluded(s::size).is_not_null(), excluded(s::size)).otherwise(s::size))),
        if excluded(s::size).is_not_null().and(s::size.is_null().or(s::size.ne(excluded(s::size))))
    );
    Ok(())
}
