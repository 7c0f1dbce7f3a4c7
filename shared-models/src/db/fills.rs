//! Leases of running downloads: one node fetches a blob at a time.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, upsert::excluded};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Db, DbError, on, update_only_if};
use crate::schema::fills;
use oci_types::{Digest, Millis};

/// Who fetches a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillRow {
    /// The node.
    pub node_id: String,
    /// Until when it is believed, unless it renews.
    pub lease_until: Millis,
    /// How many bytes from the start it has.
    pub offset: u64,
}

/// Takes the lease until `until`; false when another node holds it. Taking one's own again works, so that a node that
/// came back goes on with what it had begun. The offset of a lease that ran out stays, as a hint.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn claim(
    db: &Db,
    digest: &Digest,
    node: &str,
    until: Millis,
    now: Millis,
) -> Result<bool, DbError> {
    let (digest, node) = (digest.clone(), node.to_owned());
    db.write(move |conn| {
        async move {
            let upsert = diesel::insert_into(fills::table)
                .values((
                    fills::digest.eq(&digest),
                    fills::node_id.eq(&node),
                    fills::lease_until.eq(until.0),
                    fills::offset.eq(0),
                ))
                .on_conflict(fills::digest)
                .do_update()
                .set((
                    fills::node_id.eq(excluded(fills::node_id)),
                    fills::lease_until.eq(excluded(fills::lease_until)),
                ));
            let query = update_only_if(
                upsert,
                fills::lease_until.le(now.0).or(fills::node_id.eq(excluded(fills::node_id))),
            );
            Ok(on!(conn, |c| query.execute(c))? == 1)
        }
        .boxed()
    })
    .await
}

/// Keeps the lease until `until` and says how far the download is; false when the lease is another's by now.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn renew(
    db: &Db,
    digest: &Digest,
    node: &str,
    until: Millis,
    offset: u64,
) -> Result<bool, DbError> {
    let (digest, node) = (digest.clone(), node.to_owned());
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    db.write(move |conn| {
        async move {
            let query = diesel::update(fills::table.find(digest))
                .filter(fills::node_id.eq(node))
                .set((fills::lease_until.eq(until.0), fills::offset.eq(offset)));
            Ok(on!(conn, |c| query.execute(c))? == 1)
        }
        .boxed()
    })
    .await
}

/// Gives the lease back, where it is the node's.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn release(db: &Db, digest: &Digest, node: &str) -> Result<(), DbError> {
    let (digest, node) = (digest.clone(), node.to_owned());
    db.write(move |conn| {
        async move {
            let query = diesel::delete(fills::table.find(digest)).filter(fills::node_id.eq(node));
            on!(conn, |c| query.execute(c))?;
            Ok(())
        }
        .boxed()
    })
    .await
}

/// Who holds the lease now.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn holder(db: &Db, digest: &Digest, now: Millis) -> Result<Option<FillRow>, DbError> {
    let digest = digest.clone();
    db.read(move |conn| {
        async move {
            let query = fills::table.find(digest).filter(fills::lease_until.gt(now.0)).select((
                fills::node_id,
                fills::lease_until,
                fills::offset,
            ));
            let row: Option<(String, i64, i64)> = on!(conn, |c| query.first(c)).optional()?;
            Ok(row.map(|(node_id, until, offset)| FillRow {
                node_id,
                lease_until: Millis(until),
                offset: u64::try_from(offset).unwrap_or(0),
            }))
        }
        .boxed()
    })
    .await
}

/// Takes away the leases that ran out before `before`, and says how many.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn remove_expired(db: &Db, before: Millis) -> Result<u64, DbError> {
    db.write(move |conn| {
        async move {
            let query = diesel::delete(fills::table.filter(fills::lease_until.lt(before.0)));
            let removed = on!(conn, |c| query.execute(c))?;
            Ok(u64::try_from(removed).unwrap_or(u64::MAX))
        }
        .boxed()
    })
    .await
}
