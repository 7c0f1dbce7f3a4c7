//! The content-app processes that are alive.

use std::time::Duration;

use diesel::{AsChangeset, ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable};

use super::{Db, DbError, columns, execute, first, load};
use crate::schema::content_nodes;
use oci_types::Millis;

/// A content-app process.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = content_nodes)]
pub struct NodeRow {
    /// Its name, the same after a restart.
    pub id: String,
    /// The base URL for clients.
    pub public_url: String,
    /// The base URL of its internal API.
    pub internal_url: String,
    /// The time of its last heartbeat.
    pub heartbeat_at: Millis,
    /// Whether it accepts no new work.
    pub draining: bool,
}

/// Records a heartbeat.
///
/// # Errors
/// [`DbError`].
pub async fn heartbeat(db: &Db, node: &NodeRow) -> Result<(), DbError> {
    use content_nodes as n;
    let node = node.clone();
    let upsert = diesel::insert_into(n::table).values(node.clone()).on_conflict(n::id).do_update().set(node);
    execute!(db, upsert)?;
    Ok(())
}

/// The nodes whose last heartbeat is at most `dead_after` old and that are not draining, by id. A
/// heartbeat that could not be recorded, because the database was unavailable, does not count as
/// missed. A node whose heartbeat is later than `now` is dead: its clock was wrong.
///
/// # Errors
/// [`DbError`].
pub async fn live(db: &Db, dead_after: Duration, now: Millis) -> Result<Vec<NodeRow>, DbError> {
    use content_nodes as n;
    let since = now.before(dead_after.saturating_add(db.recent_outage(dead_after)));
    let query = n::table
        .filter(n::heartbeat_at.ge(since))
        .filter(n::heartbeat_at.le(now.after(dead_after)))
        .filter(n::draining.eq(false))
        .order(n::id)
        .select(columns::<NodeRow>());
    load!(db, query)
}

/// The base URL of the internal API of a node, also while it drains. `None` for an unknown node.
///
/// # Errors
/// [`DbError`].
pub async fn internal_url(db: &Db, id: &str) -> Result<Option<String>, DbError> {
    first!(db, content_nodes::table.find(id.to_owned()).select(content_nodes::internal_url))
}

/// Deletes a node that has ended.
///
/// # Errors
/// [`DbError`].
pub async fn remove(db: &Db, id: &str) -> Result<(), DbError> {
    execute!(db, diesel::delete(content_nodes::table.find(id.to_owned())))?;
    Ok(())
}

/// Deletes the nodes without a heartbeat since `before`. Returns their number.
///
/// # Errors
/// [`DbError`].
pub async fn remove_dead(db: &Db, before: Millis) -> Result<usize, DbError> {
    execute!(db, diesel::delete(content_nodes::table.filter(content_nodes::heartbeat_at.lt(before))))
}
