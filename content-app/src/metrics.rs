//! What a content node counts.

use blob_store::BlobStore;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    tier: &'static str,
}

/// Counters and gauges of fills and of what they fill.
#[derive(Clone, Default)]
pub(crate) struct FillMetrics {
    active: Gauge,
    readers: Gauge,
    ended: Family<OutcomeLabels, Counter>,
    resumes: Family<UpstreamLabels, Counter>,
    wrong_bytes: Counter,
    storage_bytes: Family<TierLabels, Gauge>,
}

impl FillMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("tidegate_fills_active", "Downloads that run now", metrics.active.clone());
        registry.register(
            "tidegate_fill_readers",
            "Clients that read a running download",
            metrics.readers.clone(),
        );
        registry.register("tidegate_fills", "Downloads that ended, by outcome", metrics.ended.clone());
        registry.register(
            "tidegate_fill_resumes",
            "Downloads taken up where they broke",
            metrics.resumes.clone(),
        );
        registry.register(
            "tidegate_fill_wrong_bytes",
            "Blobs that did not match their digest",
            metrics.wrong_bytes.clone(),
        );
        registry.register("tidegate_storage_bytes", "Bytes of stored blobs", metrics.storage_bytes.clone());
        metrics
    }

    /// Counts a fill as active until the guard is dropped.
    pub(crate) fn active(&self) -> GaugeGuard {
        GaugeGuard::raise(&self.active)
    }

    /// Counts a reader until the guard is dropped.
    pub(crate) fn reader(&self) -> GaugeGuard {
        GaugeGuard::raise(&self.readers)
    }

    pub(crate) fn ended(&self, outcome: &'static str) {
        self.ended.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(crate) fn resumed(&self, upstream: &str) {
        self.resumes.get_or_create(&UpstreamLabels { upstream: upstream.to_owned() }).inc();
    }

    pub(crate) fn wrong_bytes(&self) {
        self.wrong_bytes.inc();
    }

    /// What lies on this node's disk: all of its storage, or the cache tier before a bucket.
    pub(crate) fn stored_bytes(&self, store: &BlobStore, bytes: u64) {
        let tier = if store.is_shared() { "cache" } else { "local" };
        self.storage_bytes.get_or_create(&TierLabels { tier }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Lowers a gauge again when it is dropped.
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn raise(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
