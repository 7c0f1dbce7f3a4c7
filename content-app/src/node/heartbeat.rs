//! Heartbeats: the row by which registry-api and other nodes find this node.

use std::time::Duration;

use oci_types::Millis;
use shared_models::{
    Change, FailureEdge,
    db::{
        DbError,
        nodes::{self, NodeRow},
    },
};
use tokio::time::{MissedTickBehavior, interval};

use crate::state::State;

/// The delay after a failed heartbeat, where it is shorter than the interval.
const HEARTBEAT_RETRY: Duration = Duration::from_secs(1);

/// Whether this node takes new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeState {
    /// It takes new requests.
    Serving,
    /// It completes the running ones.
    Draining,
}

/// Sends heartbeats forever.
pub(super) async fn heartbeat_loop(state: &State, node_state: NodeState) {
    let mut heartbeat = interval(state.config.node.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (outage, node) = (FailureEdge::default(), &state.config.node_id);
    loop {
        heartbeat.tick().await;
        let sent = send_heartbeat(state, node_state).await;
        match outage.change(&sent) {
            Some(Change::Began(error)) => tracing::warn!(node, %error, "heartbeats are failing"),
            Some(Change::Ended) => tracing::info!(node, "heartbeats recovered"),
            None => {}
        }
        if let Err(error) = sent {
            tracing::debug!(node, %error, "failed to send heartbeat");
            heartbeat.reset_after(HEARTBEAT_RETRY.min(state.config.node.heartbeat));
        }
    }
}

async fn send_heartbeat(state: &State, node_state: NodeState) -> Result<(), DbError> {
    let row = NodeRow {
        id: state.config.node_id.clone(),
        public_url: state.config.public_url.clone(),
        internal_url: state.config.internal_url.clone(),
        heartbeat_at: Millis::now(),
        draining: node_state == NodeState::Draining,
    };
    nodes::heartbeat(&state.db, &row).await
}
