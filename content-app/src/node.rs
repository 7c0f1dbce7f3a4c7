//! What a node does beside serving: it says that it lives, and clears what nobody will take up again.

use std::{collections::HashSet, future::Future, time::Duration};

use shared_models::{
    Millis,
    db::{
        blobs,
        nodes::{self, NodeRow},
    },
};
use tokio::time::{MissedTickBehavior, interval};

use crate::Content;

/// Between two looks for abandoned partial files.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// Runs until `shutdown` resolves, then tells the others that this node takes no new work.
pub(crate) async fn run(content: &Content, shutdown: impl Future<Output = ()>) {
    let mut heartbeat = interval(content.config.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = interval(SWEEP_INTERVAL);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = heartbeat.tick() => {
                beat(content, false).await;
                write_reads(content).await;
                content.fills.context.metrics.stored_bytes(content.fills.context.store.usage().await.bytes);
            }
            _ = sweep.tick() => sweep_partials(content).await,
        }
    }
    beat(content, true).await;
    write_reads(content).await;
}

async fn write_reads(content: &Content) {
    let db = &content.fills.context.db;
    if let Err(error) = content.reads.write(async |reads| blobs::touch_read(db, reads).await).await {
        tracing::warn!("the times of the last reads were not written: {error}");
    }
}

async fn beat(content: &Content, draining: bool) {
    let row = NodeRow {
        id: content.config.node_id.clone(),
        public_url: content.config.public_url.clone(),
        internal_url: content.config.internal_url.clone(),
        heartbeat_at: Millis::now(),
        draining,
    };
    if let Err(error) = nodes::heartbeat(&content.fills.context.db, &row).await {
        tracing::warn!(node = row.id, "the heartbeat was not recorded: {error}");
    }
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
