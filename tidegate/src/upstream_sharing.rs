//! Shares the state of upstreams between processes through the database: an open circuit or a rate limit that one process
//! observes spares the others their requests.

use std::{collections::HashMap, time::Duration};

use oci_types::Millis;
use shared_models::{
    Change, FailureEdge,
    db::{
        Db, DbError,
        upstream_states::{self, UpstreamStateRow},
    },
};
use tokio::time::{MissedTickBehavior, interval};
use upstream_client::{Upstream, UpstreamSnapshot};

/// The interval between two checks for state to publish.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(500);

/// The number of these intervals between two reads of the state that other processes have published.
const PUBLISHES_PER_POLL: u32 = 4;

/// Publishes and polls until it is dropped. While the database is unavailable, each process uses its own observations.
pub(crate) async fn run(db: &Db, upstreams: &[Upstream]) {
    if upstreams.is_empty() {
        return std::future::pending().await;
    }
    let mut published = Published::default();
    let mut ticks = interval(PUBLISH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outage = FailureEdge::default();
    for tick in (0..PUBLISHES_PER_POLL).cycle() {
        ticks.tick().await;
        let unpublished: Vec<_> = upstreams.iter().filter(|upstream| !published.has(upstream)).collect();
        if unpublished.is_empty() && tick != 0 {
            continue;
        }
        match outage.change(&exchange(db, upstreams, &unpublished, &mut published).await) {
            Some(Change::Began(error)) => tracing::warn!(%error, "failed to share the state of upstreams"),
            Some(Change::Ended) => tracing::info!("sharing of upstream state resumed"),
            None => {}
        }
    }
}

/// The observation times of the published states, by upstream.
#[derive(Default)]
struct Published(HashMap<String, Millis>);

impl Published {
    /// Whether the current state of an upstream is published, if there is any.
    fn has(&self, upstream: &Upstream) -> bool {
        let observed_at = upstream.snapshot().map(|snapshot| snapshot.observed_at);
        observed_at.is_none_or(|at| self.0.get(upstream.name()) == Some(&at))
    }
}

/// Polls first, so that the published state includes that of other processes.
async fn exchange(
    db: &Db,
    upstreams: &[Upstream],
    unpublished: &[&Upstream],
    published: &mut Published,
) -> Result<(), DbError> {
    let rows: HashMap<_, _> =
        upstream_states::load_all(db).await?.into_iter().map(|row| (row.name.clone(), row)).collect();
    for upstream in upstreams {
        if let Some(row) = rows.get(upstream.name()) {
            upstream.merge(&snapshot(row));
        }
    }
    for upstream in unpublished {
        let Some(snapshot) = upstream.snapshot() else { continue };
        let row = row(upstream.name(), &snapshot, rows.get(upstream.name()));
        if upstream_states::save(db, &row).await? {
            published.0.insert(row.name, snapshot.observed_at);
        }
    }
    Ok(())
}

fn snapshot(row: &UpstreamStateRow) -> UpstreamSnapshot {
    UpstreamSnapshot {
        observed_at: row.observed_at,
        circuit_open_until: row.circuit_open_until,
        retry_at: row.retry_at,
        limit: row.limit.and_then(|limit| u64::try_from(limit).ok()),
        remaining: row.remaining.and_then(|remaining| u64::try_from(remaining).ok()),
        reset_at: row.reset_at,
    }
}

/// The row of a state. `known` is the current row, which is merged into the state: the new row is no older.
fn row(name: &str, snapshot: &UpstreamSnapshot, known: Option<&UpstreamStateRow>) -> UpstreamStateRow {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    UpstreamStateRow {
        name: name.to_owned(),
        observed_at: known.map_or(snapshot.observed_at, |known| known.observed_at.max(snapshot.observed_at)),
        circuit_open_until: snapshot.circuit_open_until,
        retry_at: snapshot.retry_at,
        limit: snapshot.limit.map(number),
        remaining: snapshot.remaining.map(number),
        reset_at: snapshot.reset_at,
    }
}
