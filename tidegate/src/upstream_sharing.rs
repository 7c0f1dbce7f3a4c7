//! Tells other processes what upstreams told this one, and learns what they told the others: an upstream that turned
//! one away is spared the rest. It goes through the database.

use std::{collections::HashMap, time::Duration};

use oci_types::Millis;
use shared_models::{
    Change, Outage,
    db::{
        Db, DbError,
        upstream_states::{self, UpstreamStateRow},
    },
};
use tokio::time::{MissedTickBehavior, interval};
use upstream_client::{Upstream, UpstreamSnapshot};

/// Between two looks for what is new here.
const TELL: Duration = Duration::from_millis(500);

/// How many of these pass between two looks for what is new elsewhere.
const LEARN_EVERY: u32 = 4;

/// Tells and learns for as long as it is polled; of no upstreams, nothing. Without the database each process goes by what
/// it sees itself.
pub(crate) async fn run(db: &Db, upstreams: &[Upstream]) {
    if upstreams.is_empty() {
        return std::future::pending().await;
    }
    let mut told = Told::default();
    let mut ticks = interval(TELL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tick, outage) = (0_u32, Outage::default());
    loop {
        ticks.tick().await;
        let learns = tick.is_multiple_of(LEARN_EVERY);
        tick = tick.wrapping_add(1);
        let news: Vec<_> = upstreams.iter().filter(|upstream| told.lacks(upstream)).collect();
        if news.is_empty() && !learns {
            continue;
        }
        let shared = share(db, upstreams, &news, &mut told).await;
        match outage.change(&shared) {
            Some(Change::Began(error)) => tracing::warn!(%error, "the states of upstreams cannot be shared"),
            Some(Change::Ended) => tracing::info!("the states of upstreams are shared again"),
            None => {}
        }
    }
}

/// When that was observed which was told last of each upstream.
#[derive(Default)]
struct Told(HashMap<String, Millis>);

impl Told {
    fn lacks(&self, upstream: &Upstream) -> bool {
        let observed_at = upstream.snapshot().map(|snapshot| snapshot.observed_at);
        observed_at.is_some_and(|at| self.0.get(upstream.name()) != Some(&at))
    }
}

/// Learns first, so that what is told then has in it what the others told.
async fn share(db: &Db, upstreams: &[Upstream], news: &[&Upstream], told: &mut Told) -> Result<(), DbError> {
    let rows: HashMap<_, _> =
        upstream_states::load_all(db).await?.into_iter().map(|row| (row.name.clone(), row)).collect();
    for upstream in upstreams {
        if let Some(row) = rows.get(upstream.name()) {
            upstream.merge(&snapshot(row));
        }
    }
    for upstream in news {
        let Some(snapshot) = upstream.snapshot() else { continue };
        let row = row(upstream.name(), &snapshot, rows.get(upstream.name()));
        if upstream_states::save(db, &row).await? {
            told.0.insert(row.name, snapshot.observed_at);
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

/// The row to write where `known` is there, which the snapshot has merged: so it is no older.
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
