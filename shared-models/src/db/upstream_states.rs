//! Upstream state shared between processes.

use diesel::{AsChangeset, ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, upsert::excluded};

use super::{Db, DbError, columns, execute, load, update_only_if};
use crate::schema::upstream_states;
use oci_types::Millis;

/// The state of an upstream as one process observed it.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = upstream_states, treat_none_as_null = true)]
pub struct UpstreamStateRow {
    /// The name of the configured upstream.
    pub name: String,
    /// When the process observed this state. An earlier observation never replaces a later one.
    pub observed_at: Millis,
    /// Time until which the circuit is open, after repeated failures.
    pub circuit_open_until: Option<Millis>,
    /// The end of `Retry-After`, after a 429.
    pub retry_at: Option<Millis>,
    /// The rate limit, in requests.
    pub limit: Option<i64>,
    /// The remaining requests of the rate limit.
    pub remaining: Option<i64>,
    /// When the rate limit is reset.
    pub reset_at: Option<Millis>,
}

/// Records a state. Returns false if the recorded one was observed later.
///
/// # Errors
/// [`DbError`].
pub async fn save(db: &Db, state: &UpstreamStateRow) -> Result<bool, DbError> {
    use upstream_states as s;
    let state = state.clone();
    let upsert =
        diesel::insert_into(s::table).values(state.clone()).on_conflict(s::name).do_update().set(state);
    Ok(execute!(db, update_only_if(upsert, s::observed_at.le(excluded(s::observed_at))))? == 1)
}

/// All states, by name.
///
/// # Errors
/// [`DbError`].
pub async fn load_all(db: &Db) -> Result<Vec<UpstreamStateRow>, DbError> {
    load!(db, upstream_states::table.order(upstream_states::name).select(columns::<UpstreamStateRow>()))
}
