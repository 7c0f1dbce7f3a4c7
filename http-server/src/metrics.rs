//! Request metrics, registered in a registry that is passed in: two services of one process share no global.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: &'static str,
    route: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    service: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: &'static str,
}

/// Counters and times of requests, by service and route.
#[derive(Clone)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    served_bytes: Family<ServiceLabels, Counter>,
}

/// From half a millisecond to a slow upstream.
fn request_histogram() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ])
}

impl HttpMetrics {
    /// Registers `http_requests`, `http_request_seconds` and `served_bytes`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(request_histogram),
            served_bytes: Family::default(),
        };
        registry.register("tidegate_http_requests", "Requests answered", metrics.requests.clone());
        registry.register("tidegate_http_request_seconds", "Time to the first byte", metrics.seconds.clone());
        registry.register(
            "tidegate_served_bytes",
            "Body bytes sent to clients",
            metrics.served_bytes.clone(),
        );
        metrics
    }

    pub(crate) fn answered(&self, service: &'static str, route: &str, code: u16, elapsed: Duration) {
        self.requests.get_or_create(&RequestLabels { service, route: route.to_owned(), code }).inc();
        self.seconds
            .get_or_create(&RouteLabels { service, route: route.to_owned() })
            .observe(elapsed.as_secs_f64());
    }

    pub(crate) fn served(&self, service: &'static str, bytes: u64) {
        self.served_bytes.get_or_create(&ServiceLabels { service }).inc_by(bytes);
    }
}
