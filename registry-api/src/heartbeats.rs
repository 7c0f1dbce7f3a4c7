//! The heartbeats of content nodes, as this process observes them.
//!
//! A heartbeat is a time of the clock that processes share. After a step of that clock, processes follow at different
//! moments, and a heartbeat may appear old or ahead. Whether one has changed between two reads depends on no clock.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use oci_types::Millis;
use shared_models::db::nodes::NodeRow;

/// The heartbeats of all nodes at the last read.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats {
    read_at: Option<Instant>,
    nodes: HashMap<String, Heartbeat>,
}

#[derive(Debug)]
struct Heartbeat {
    time: Millis,
    /// A moment before it was sent, if one is known: that of the last read that did not have it.
    sent_after: Option<Instant>,
}

impl Heartbeats {
    /// Records the nodes that a query which began at `read_at` has returned. One that began before an earlier one has no
    /// effect.
    pub(crate) fn observe(&mut self, nodes: &[NodeRow], read_at: Instant) {
        if self.read_at.is_some_and(|last| last > read_at) {
            return;
        }
        let heartbeat = |node: &NodeRow| {
            let sent_after = match self.nodes.get(&node.id) {
                Some(known) if known.time == node.heartbeat_at => known.sent_after,
                _ => self.read_at,
            };
            (node.id.clone(), Heartbeat { time: node.heartbeat_at, sent_after })
        };
        self.nodes = nodes.iter().map(heartbeat).collect();
        self.read_at = Some(read_at);
    }

    /// Whether the last heartbeat of a node is known to be at most `max_age` old.
    pub(crate) fn is_recent(&self, id: &str, max_age: Duration, now: Instant) -> bool {
        let sent_after = self.nodes.get(id).and_then(|heartbeat| heartbeat.sent_after);
        sent_after.is_some_and(|sent_after| now.saturating_duration_since(sent_after) <= max_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(15);

    fn node(id: &str, heartbeat_at: i64) -> NodeRow {
        NodeRow {
            id: id.to_owned(),
            public_url: String::new(),
            internal_url: String::new(),
            heartbeat_at: Millis(heartbeat_at),
            draining: false,
        }
    }

    #[test]
    fn a_heartbeat_that_has_changed_is_at_most_as_old_as_the_read_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heartbeats = Heartbeats::default();
        let mut is_recent = |seconds, nodes: &[NodeRow]| {
            heartbeats.observe(nodes, at(seconds));
            heartbeats.is_recent("a", MAX_AGE, at(seconds))
        };
        for (seconds, heartbeat_at, expected) in [
            // Before the first read, it may have been sent at any time.
            (0, 500, false),
            (5, 500, false),
            // Sent after 5 s, whatever time it has: by a clock that is ahead, or behind.
            (10, 900_000, true),
            (12, 100, true),
            (25, 100, true),
            (26, 100, false),
            // Sent after 26 s, and possibly then.
            (41, 101, true),
            (60, 102, false),
        ] {
            assert_eq!(is_recent(seconds, &[node("a", heartbeat_at)]), expected, "{seconds}");
        }
        // A node that was not there at the last read.
        assert!(!is_recent(61, &[]));
        assert!(is_recent(62, &[node("a", 102)]));
        // Read before the last one.
        assert!(is_recent(50, &[node("a", 1)]));
        assert!(is_recent(76, &[node("a", 102)]));
        assert!(!is_recent(77, &[node("a", 102)]));
    }
}
