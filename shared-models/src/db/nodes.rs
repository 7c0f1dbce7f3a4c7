//! The content-app processes that are alive.

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl, upsert::excluded};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Db, DbError, on};
use crate::schema::content_nodes;
use oci_types::Millis;

/// A content-app process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name, the same after a restart.
    pub id: String,
    /// Where clients reach it.
    pub public_url: String,
    /// Where the services reach it.
    pub internal_url: String,
    /// When it last said that it lives.
    pub heartbeat_at: Millis,
    /// It finishes what runs and takes nothing new.
    pub draining: bool,
}

#[derive(Insertable)]
#[diesel(table_name = content_nodes)]
struct NewNode {
    id: String,
    public_url: String,
    internal_url: String,
    heartbeat_at: i64,
    draining: bool,
}

/// Writes that the node lives, and where.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn heartbeat(db: &Db, node: &NodeRow) -> Result<(), DbError> {
    let NodeRow { id, public_url, internal_url, heartbeat_at, draining } = node.clone();
    let node = NewNode { id, public_url, internal_url, heartbeat_at: heartbeat_at.0, draining };
    db.write(move |conn| {
        async move {
            use content_nodes as n;
            let query = diesel::insert_into(n::table).values(node).on_conflict(n::id).do_update().set((
                n::public_url.eq(excluded(n::public_url)),
                n::internal_url.eq(excluded(n::internal_url)),
                n::heartbeat_at.eq(excluded(n::heartbeat_at)),
                n::draining.eq(excluded(n::draining)),
            ));
            on!(conn, |c| query.execute(c))?;
            Ok(())
        }
        .boxed()
    })
    .await
}

/// The nodes that were heard of since `since` and aren't draining, by id.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn live(db: &Db, since: Millis) -> Result<Vec<NodeRow>, DbError> {
    db.read(move |conn| {
        async move {
            use content_nodes as n;
            let query = n::table
                .filter(n::heartbeat_at.ge(since.0))
                .filter(n::draining.eq(false))
                .order(n::id)
                .select((n::id, n::public_url, n::internal_url, n::heartbeat_at, n::draining));
            let rows: Vec<(String, String, String, i64, bool)> = on!(conn, |c| query.load(c))?;
            let node = |(id, public_url, internal_url, at, draining)| NodeRow {
                id,
                public_url,
                internal_url,
                heartbeat_at: Millis(at),
                draining,
            };
            Ok(rows.into_iter().map(node).collect())
        }
        .boxed()
    })
    .await
}

/// Where a node's internal API is, also while it drains; `None` for a node that is not known.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn internal_url(db: &Db, id: &str) -> Result<Option<String>, DbError> {
    let id = id.to_owned();
    db.read(move |conn| {
        async move {
            let query = content_nodes::table.find(id).select(content_nodes::internal_url);
            Ok(on!(conn, |c| query.first(c)).optional()?)
        }
        .boxed()
    })
    .await
}

/// Takes a node away that ends in good order.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn remove(db: &Db, id: &str) -> Result<(), DbError> {
    let id = id.to_owned();
    db.write(move |conn| {
        async move {
            let query = diesel::delete(content_nodes::table.find(id));
            on!(conn, |c| query.execute(c))?;
            Ok(())
        }
        .boxed()
    })
    .await
}

/// Takes away the nodes that were not heard of since `before`, and says how many.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn remove_dead(db: &Db, before: Millis) -> Result<u64, DbError> {
    db.write(move |conn| {
        async move {
            let query = diesel::delete(content_nodes::table.filter(content_nodes::heartbeat_at.lt(before.0)));
            let removed = on!(conn, |c| query.execute(c))?;
            Ok(u64::try_from(removed).unwrap_or(u64::MAX))
        }
        .boxed()
    })
    .await
}
