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

impl NodeRow {
    /// Whether the last heartbeat is at most `max_age` old. One that is as much later than `now` does
    /// not count: the clock was wrong.
    pub fn is_recent(&self, max_age: Duration, now: Millis) -> bool {
        (now.before(max_age)..=now.after(max_age)).contains(&self.heartbeat_at)
    }
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

/// All nodes, by id.
///
/// # Errors
/// [`DbError`].
pub async fn list(db: &Db) -> Result<Vec<NodeRow>, DbError> {
    load!(db, content_nodes::table.order(content_nodes::id).select(columns::<NodeRow>()))
}

/// The maximum age of the last heartbeat of a node that is alive. A heartbeat that could not be
/// recorded, because the database was unavailable, does not count as missed.
pub fn max_heartbeat_age(db: &Db, dead_after: Duration) -> Duration {
    dead_after.saturating_add(db.recent_outage(dead_after))
}

/// The nodes that are alive and not draining, by id.
///
/// # Errors
/// [`DbError`].
pub async fn live(db: &Db, dead_after: Duration, now: Millis) -> Result<Vec<NodeRow>, DbError> {
    let mut nodes = list(db).await?;
    let max_age = max_heartbeat_age(db, dead_after);
    nodes.retain(|node| !node.draining && node.is_recent(max_age, now));
    Ok(nodes)
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

/// Deletes the nodes without a heartbeat since `before`, except those with the ids `alive`. Returns
/// their number.
///
/// # Errors
/// [`DbError`].
pub async fn remove_dead(db: &Db, before: Millis, alive: Vec<String>) -> Result<usize, DbError> {
    use content_nodes as n;
    execute!(db, diesel::delete(n::table.filter(n::heartbeat_at.lt(before)).filter(n::id.ne_all(alive))))
}
