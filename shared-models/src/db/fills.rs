//! Leases of running downloads: one node downloads a blob at a time.

use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl, Queryable, Selectable, upsert::excluded};

use super::{Db, DbError, columns, execute, first, to_column, update_only_if};
use crate::schema::fills;
use oci_types::{Digest, Millis, time::MAX_CLOCK_ERROR};

/// The lease of a download.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = fills)]
pub struct FillRow {
    /// The node that holds the lease.
    pub node_id: String,
    /// When the lease ends unless it is renewed.
    pub lease_until: Millis,
    /// The number of bytes from the start that are present.
    #[diesel(deserialize_as = i64)]
    pub offset: u64,
}

/// Acquires the lease until `until`. Returns false if another node holds it. A node can acquire its own lease again, and
/// continues its download after a restart. The offset of an expired lease remains as a hint.
///
/// # Errors
/// [`DbError`].
pub async fn claim(
    db: &Db,
    digest: &Digest,
    node: &str,
    until: Millis,
    now: Millis,
) -> Result<bool, DbError> {
    use fills as f;
    let upsert = diesel::insert_into(f::table)
        .values((
            f::digest.eq(digest.clone()),
            f::node_id.eq(node.to_owned()),
            f::lease_until.eq(until),
            f::offset.eq(0),
        ))
        .on_conflict(f::digest)
        .do_update()
        .set((f::node_id.eq(excluded(f::node_id)), f::lease_until.eq(excluded(f::lease_until))));
    // A lease that ends much later than any new one was acquired with a clock that was ahead.
    let longest = until.after(MAX_CLOCK_ERROR.saturating_add(now.age(until)));
    let available =
        f::lease_until.le(now).or(f::node_id.eq(excluded(f::node_id))).or(f::lease_until.gt(longest));
    Ok(execute!(db, update_only_if(upsert, available))? == 1)
}

/// Renews the lease until `until`, with the progress of the download. Returns false if another node has acquired it.
///
/// # Errors
/// [`DbError`].
pub async fn renew(
    db: &Db,
    digest: &Digest,
    node: &str,
    until: Millis,
    offset: u64,
) -> Result<bool, DbError> {
    let query = diesel::update(fills::table.find(digest.clone()))
        .filter(fills::node_id.eq(node.to_owned()))
        .set((fills::lease_until.eq(until), fills::offset.eq(to_column(offset))));
    Ok(execute!(db, query)? == 1)
}

/// Releases the lease, if the node holds it.
///
/// # Errors
/// [`DbError`].
pub async fn release(db: &Db, digest: &Digest, node: &str) -> Result<(), DbError> {
    let query = diesel::delete(fills::table.find(digest.clone())).filter(fills::node_id.eq(node.to_owned()));
    execute!(db, query)?;
    Ok(())
}

/// The lease of a download, unless it has expired.
///
/// # Errors
/// [`DbError`].
pub async fn holder(db: &Db, digest: &Digest, now: Millis) -> Result<Option<FillRow>, DbError> {
    let query = fills::table
        .filter(fills::digest.eq(digest.clone()))
        .filter(fills::lease_until.gt(now))
        .select(columns::<FillRow>());
    first!(db, query)
}

/// Deletes the leases that expired before `before`. Returns their number.
///
/// # Errors
/// [`DbError`].
pub async fn remove_expired(db: &Db, before: Millis) -> Result<usize, DbError> {
    execute!(db, diesel::delete(fills::table.filter(fills::lease_until.lt(before))))
}
