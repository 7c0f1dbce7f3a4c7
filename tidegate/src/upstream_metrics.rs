//! Metrics of requests to upstreams.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use upstream_client::Observer;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    upstream: String,
    method: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
}

/// Counters of requests to upstreams and of received bytes.
#[derive(Default)]
pub(crate) struct UpstreamMetrics {
    requests: Family<RequestLabels, Counter>,
    bytes: Family<UpstreamLabels, Counter>,
}

impl UpstreamMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "tidegate_upstream_requests",
            "Requests to upstreams; code 0: no response",
            metrics.requests.clone(),
        );
        registry.register("tidegate_upstream_bytes", "Body bytes from upstreams", metrics.bytes.clone());
        metrics
    }
}

impl Observer for UpstreamMetrics {
    fn request_completed(&self, upstream: &str, method: &str, code: u16) {
        let labels = RequestLabels { upstream: upstream.to_owned(), method: method.to_owned(), code };
        self.requests.get_or_create(&labels).inc();
    }

    fn bytes_received(&self, upstream: &str, count: u64) {
        self.bytes.get_or_create(&UpstreamLabels { upstream: upstream.to_owned() }).inc_by(count);
    }
}
