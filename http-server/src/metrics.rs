//! Request metrics. The caller passes the registry, so that there is no global state.

use std::{cell::RefCell, rc::Rc};

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

/// Counters and durations of requests, by service and route.
#[derive(Clone)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    served_bytes: Family<ServiceLabels, Counter>,
}

/// Buckets from 0.5 ms to the duration of a request to a slow upstream.
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
}

/// The counters of a response, by service, route and status code.
pub(crate) struct Counters {
    service: &'static str,
    route: String,
    code: u16,
    pub(crate) requests: Counter,
    pub(crate) seconds: Histogram,
    pub(crate) served_bytes: Counter,
}

/// The counters that one worker has used, cached so that labels are not looked up for every
/// request.
pub(crate) struct WorkerCounters {
    metrics: HttpMetrics,
    known: RefCell<Vec<Rc<Counters>>>,
}

impl WorkerCounters {
    pub(crate) fn new(metrics: HttpMetrics) -> Self {
        Self { metrics, known: RefCell::default() }
    }

    pub(crate) fn of(&self, service: &'static str, route: &str, code: u16) -> Rc<Counters> {
        let mut known = self.known.borrow_mut();
        let is_it = |one: &&Rc<Counters>| one.code == code && one.route == route && one.service == service;
        if let Some(counters) = known.iter().find(is_it) {
            return Rc::clone(counters);
        }
        let route = route.to_owned();
        let request = RequestLabels { service, route: route.clone(), code };
        let seconds = RouteLabels { service, route: route.clone() };
        let counters = Rc::new(Counters {
            service,
            route,
            code,
            requests: self.metrics.requests.get_or_create_owned(&request),
            seconds: self.metrics.seconds.get_or_create_owned(&seconds),
            served_bytes: self.metrics.served_bytes.get_or_create_owned(&ServiceLabels { service }),
        });
        known.push(Rc::clone(&counters));
        counters
    }
}
