//! What all nodes should know of an upstream.

use diesel::{ExpressionMethods, QueryDsl, upsert::excluded};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Db, DbError, on, update_only_if};
use crate::schema::upstream_states;
use oci_types::Millis;

/// The state of an upstream as one node saw it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamStateRow {
    /// The configured upstream.
    pub name: String,
    /// When the node saw this. A row of an earlier moment never replaces one of a later.
    pub observed_at: Millis,
    /// Until when it isn't asked, for it failed again and again.
    pub circuit_open_until: Option<Millis>,
    /// When it lets itself be asked again, after a 429.
    pub retry_at: Option<Millis>,
    /// Its rate limit, in requests.
    pub limit: Option<i64>,
    /// What is left of it.
    pub remaining: Option<i64>,
    /// When the limit starts anew.
    pub reset_at: Option<Millis>,
}

/// Writes the state over what was there, unless that was seen later; false where it was.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn save(db: &Db, state: &UpstreamStateRow) -> Result<bool, DbError> {
    let state = state.clone();
    db.write(move |conn| {
        async move {
            use upstream_states as s;
            let upsert = diesel::insert_into(s::table)
                .values((
                    s::name.eq(&state.name),
                    s::observed_at.eq(state.observed_at.0),
                    s::circuit_open_until.eq(state.circuit_open_until.map(|at| at.0)),
                    s::retry_at.eq(state.retry_at.map(|at| at.0)),
                    s::limit.eq(state.limit),
                    s::remaining.eq(state.remaining),
                    s::reset_at.eq(state.reset_at.map(|at| at.0)),
                ))
                .on_conflict(s::name)
                .do_update()
                .set((
                    s::observed_at.eq(excluded(s::observed_at)),
                    s::circuit_open_until.eq(excluded(s::circuit_open_until)),
                    s::retry_at.eq(excluded(s::retry_at)),
                    s::limit.eq(excluded(s::limit)),
                    s::remaining.eq(excluded(s::remaining)),
                    s::reset_at.eq(excluded(s::reset_at)),
                ));
            let query = update_only_if(upsert, s::observed_at.le(excluded(s::observed_at)));
            Ok(on!(conn, |c| query.execute(c))? == 1)
        }
        .boxed()
    })
    .await
}

/// All states, by name.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn load_all(db: &Db) -> Result<Vec<UpstreamStateRow>, DbError> {
    type Row = (String, i64, Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
    db.read(|conn| {
        async move {
            use upstream_states as s;
            let query = s::table.order(s::name).select((
                s::name,
                s::observed_at,
                s::circuit_open_until,
                s::retry_at,
                s::limit,
                s::remaining,
                s::reset_at,
            ));
            let rows: Vec<Row> = on!(conn, |c| query.load(c))?;
            let state = |(name, observed_at, open, retry, limit, remaining, reset): Row| UpstreamStateRow {
                name,
                observed_at: Millis(observed_at),
                circuit_open_until: open.map(Millis),
                retry_at: retry.map(Millis),
                limit,
                remaining,
                reset_at: reset.map(Millis),
            };
            Ok(rows.into_iter().map(state).collect())
        }
        .boxed()
    })
    .await
}
