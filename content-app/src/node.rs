//! What a node does beside serving: it says that it lives, and clears what nobody will take up again.

use std::{collections::HashSet, future::Future, time::Duration};

use oci_types::Millis;
use shared_models::{
    Change, Outage,
    db::{
        DbError, blobs, fills,
        nodes::{self, NodeRow},
    },
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{Content, fills::Context};

/// Between two looks for abandoned partial files.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// A node that was silent for so many heartbeats is dead.
pub(crate) const DEAD_AFTER: u32 = 3;

/// After a heartbeat that was not recorded the next one comes sooner: nobody is sent here until then.
const BEAT_AGAIN: Duration = Duration::from_secs(1);

/// A lease that ran out so long ago is nobody's hint any more.
const EXPIRED_FOR: Duration = Duration::from_secs(10);

/// How the others are to take this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It takes new work.
    Serving,
    /// It finishes what runs.
    Draining,
}

/// Says that this node lives: until `draining` resolves as one that takes new work, then until `stopped` does as one that
/// does not. Then it is no node any more.
pub(crate) async fn run(
    content: &Content,
    draining: impl Future<Output = ()>,
    stopped: impl Future<Output = ()>,
) {
    live(content, Standing::Serving, draining).await;
    live(content, Standing::Draining, stopped).await;
    if let Err(error) = write_reads(content).await {
        tracing::warn!("the times of the last reads were not written: {error}");
    }
    let (db, id) = (&content.fills.context.db, &content.config.node_id);
    if let Err(error) = nodes::remove(db, id).await {
        tracing::warn!(node = id, "the others were not told that this node has ended: {error}");
    }
}

/// Heartbeats, and beside them what may take longer than the time between two.
async fn live(content: &Content, standing: Standing, end: impl Future<Output = ()>) {
    tokio::select! {
        () = end => {}
        () = beat_on(content, standing) => {}
        () = tidy_up(content) => {}
    }
}

async fn beat_on(content: &Content, standing: Standing) {
    let mut heartbeat = interval(content.config.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (outage, node) = (Outage::default(), &content.config.node_id);
    loop {
        heartbeat.tick().await;
        let recorded = beat(content, standing).await;
        match outage.change(&recorded) {
            Some(Change::Began(error)) => tracing::warn!(node, "heartbeats are not recorded: {error}"),
            Some(Change::Ended) => tracing::info!(node, "heartbeats are recorded again"),
            None => {}
        }
        if let Err(error) = recorded {
            tracing::debug!(node, "a heartbeat was not recorded: {error}");
            heartbeat.reset_after(BEAT_AGAIN.min(content.config.heartbeat));
        }
    }
}

async fn tidy_up(content: &Content) {
    let mut often = interval(content.config.heartbeat);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = interval(SWEEP_INTERVAL);
    let (leases, reads) = (Outage::default(), Outage::default());
    loop {
        tokio::select! {
            _ = often.tick() => {
                match leases.change(&remove_expired_leases(content).await) {
                    Some(Change::Began(error)) => {
                        tracing::warn!("leases that ran out cannot be looked for: {error}");
                    }
                    Some(Change::Ended) => tracing::info!("leases that ran out are looked for again"),
                    None => {}
                }
                match reads.change(&write_reads(content).await) {
                    Some(Change::Began(error)) => {
                        tracing::warn!("the times of the last reads are not written: {error}");
                    }
                    Some(Change::Ended) => tracing::info!("the times of the last reads are written again"),
                    None => {}
                }
                let Context { store, metrics, .. } = &*content.fills.context;
                metrics.stored_bytes(store, store.usage().await.bytes);
            }
            _ = sweep.tick() => sweep_partials(content).await,
        }
    }
}

/// The leases that nodes left behind which ended without a word.
async fn remove_expired_leases(content: &Content) -> Result<(), DbError> {
    let leases = fills::remove_expired(&content.fills.context.db, Millis::now().before(EXPIRED_FOR)).await?;
    if leases > 0 {
        tracing::info!(leases, "removed leases of downloads that ended without a word");
    }
    Ok(())
}

async fn write_reads(content: &Content) -> Result<(), DbError> {
    let db = &content.fills.context.db;
    content.reads.write(async |reads| blobs::touch_read(db, reads).await).await
}

async fn beat(content: &Content, standing: Standing) -> Result<(), DbError> {
    let row = NodeRow {
        id: content.config.node_id.clone(),
        public_url: content.config.public_url.clone(),
        internal_url: content.config.internal_url.clone(),
        heartbeat_at: Millis::now(),
        draining: standing == Standing::Draining,
    };
    nodes::heartbeat(&content.fills.context.db, &row).await
}

async fn sweep_partials(content: &Content) {
    let running: HashSet<_> = content.fills.all().iter().map(|fill| fill.digest().clone()).collect();
    match content.fills.context.store.sweep_partials(content.config.partial_max_age, &running).await {
        Ok(swept) => {
            swept.iter().for_each(|digest| tracing::info!(%digest, "removed an abandoned partial download"))
        }
        Err(error) => tracing::warn!("abandoned partial downloads could not be looked for: {error}"),
    }
}
