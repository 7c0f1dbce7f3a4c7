//! Maintenance: expired leases, read times, storage metrics, and abandoned partial files.

use std::{collections::HashSet, time::Duration};

use oci_types::Millis;
use shared_models::{
    Change, FailureEdge,
    db::{DbError, blobs, fills as leases},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{fills::Fills, state::State};

/// Interval between two sweeps of abandoned partial files.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// How long an expired lease remains in the database.
const EXPIRED_LEASE_RETENTION: Duration = Duration::from_secs(10);

/// Does maintenance forever.
pub(super) async fn maintenance_loop(state: &State, fills: &Fills) {
    let mut frequent = interval(state.config.node.heartbeat);
    frequent.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = interval(SWEEP_INTERVAL);
    let (lease_outage, read_outage) = (FailureEdge::default(), FailureEdge::default());
    loop {
        tokio::select! {
            _ = frequent.tick() => {
                match lease_outage.change(&delete_expired_leases(state).await) {
                    Some(Change::Began(error)) => tracing::warn!(%error, "failed to delete expired leases"),
                    Some(Change::Ended) => tracing::info!("deletion of expired leases recovered"),
                    None => {}
                }
                match read_outage.change(&write_reads(state).await) {
                    Some(Change::Began(error)) => {
                        tracing::warn!(%error, "failed to write the times of the last reads");
                    }
                    Some(Change::Ended) => tracing::info!("writes of the times of the last reads recovered"),
                    None => {}
                }
                state.metrics.stored_bytes(&state.store, state.store.disk_usage().bytes);
            }
            _ = sweep.tick() => sweep_partials(state, fills).await,
        }
    }
}

/// Deletes the leases of dead nodes.
async fn delete_expired_leases(state: &State) -> Result<(), DbError> {
    let before = Millis::now().before(EXPIRED_LEASE_RETENTION);
    let count = leases::remove_expired(&state.db, before).await?;
    if count > 0 {
        tracing::info!(leases = count, "deleted expired leases");
    }
    Ok(())
}

/// Writes the last-read times of stored blobs.
pub(super) async fn write_reads(state: &State) -> Result<(), DbError> {
    state.reads.flush(|reads| blobs::touch_read(&state.db, reads)).await
}

async fn sweep_partials(state: &State, fills: &Fills) {
    let running: HashSet<_> = fills.list().iter().map(|fill| fill.digest().into()).collect();
    match state.store.sweep_partials(state.config.node.partial_max_age, &running).await {
        Ok(swept) => {
            swept.iter().for_each(|partial| tracing::info!(%partial, "deleted an abandoned partial file"))
        }
        Err(error) => tracing::warn!(%error, "failed to delete abandoned partial files"),
    }
}
