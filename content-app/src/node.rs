//! Background work of a node: heartbeats, maintenance, and the check of its storage.

mod heartbeat;
mod maintenance;
mod readiness;

use std::future::Future;

use shared_models::db::nodes;

use crate::{fills::Fills, state::State};
use heartbeat::{NodeState, heartbeat_loop};
use maintenance::{maintenance_loop, write_reads};

pub(crate) use readiness::with_storage_check;

/// Runs as a serving node until `draining` resolves, then as a draining node until `stopped`
/// resolves, then deregisters.
pub(crate) async fn run(
    state: &State,
    fills: &Fills,
    draining: impl Future<Output = ()>,
    stopped: impl Future<Output = ()>,
) {
    run_as(NodeState::Serving, state, fills, draining).await;
    run_as(NodeState::Draining, state, fills, stopped).await;
    if let Err(error) = write_reads(state).await {
        tracing::warn!(%error, "failed to write the times of the last reads");
    }
    let node = &state.config.node_id;
    if let Err(error) = nodes::remove(&state.db, node).await {
        tracing::warn!(node, %error, "failed to deregister node");
    }
}

/// Runs heartbeats and, concurrently, maintenance, which may take longer than a heartbeat interval.
async fn run_as(node_state: NodeState, state: &State, fills: &Fills, end: impl Future<Output = ()>) {
    tokio::select! {
        () = end => {}
        () = heartbeat_loop(state, node_state) => {}
        () = maintenance_loop(state, fills) => {}
    }
}
