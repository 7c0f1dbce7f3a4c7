//! The metrics of registry-api.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry as MetricRegistry,
};
use shared_models::db::jobs::JobState;
use upstream_client::UpstreamStatus;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PullLabels {
    upstream: String,
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    kind: String,
    state: &'static str,
}

/// Counters of pulls, and gauges of upstreams and jobs.
#[derive(Clone, Default)]
pub(crate) struct ApiMetrics {
    pulls: Family<PullLabels, Counter>,
    remaining: Family<UpstreamLabels, Gauge>,
    circuit_open: Family<UpstreamLabels, Gauge>,
    jobs: Family<JobLabels, Gauge>,
}

impl ApiMetrics {
    pub(crate) fn register(registry: &mut MetricRegistry) -> Self {
        let metrics = Self::default();
        registry.register("tidegate_pulls", "Pulls by upstream and outcome", metrics.pulls.clone());
        registry.register(
            "tidegate_upstream_ratelimit_remaining",
            "Requests that the upstream still allows",
            metrics.remaining.clone(),
        );
        registry.register(
            "tidegate_upstream_circuit_open",
            "1 while the circuit of the upstream is open",
            metrics.circuit_open.clone(),
        );
        registry.register("tidegate_tasks", "Jobs by kind and state", metrics.jobs.clone());
        metrics
    }

    pub(crate) fn count_pull(&self, upstream: &str, kind: &'static str, outcome: &'static str) {
        self.pulls.get_or_create(&PullLabels { upstream: upstream.to_owned(), kind, outcome }).inc();
    }

    pub(crate) fn set_upstream(&self, name: &str, status: &UpstreamStatus) {
        let labels = UpstreamLabels { upstream: name.to_owned() };
        self.circuit_open.get_or_create(&labels).set(i64::from(status.circuit_open_for.is_some()));
        if let Some(remaining) = status.rate_limit.as_ref().and_then(|limit| limit.remaining) {
            self.remaining.get_or_create(&labels).set(i64::try_from(remaining).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn set_jobs(&self, counts: &[(String, JobState, i64)]) {
        self.jobs.clear();
        for (kind, state, count) in counts {
            self.jobs.get_or_create(&JobLabels { kind: kind.clone(), state: state_name(*state) }).set(*count);
        }
    }
}

/// The state of a job in metrics and in the admin API.
pub(crate) fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Failed => "failed",
        JobState::Succeeded => "succeeded",
        JobState::Cancelled => "cancelled",
    }
}
