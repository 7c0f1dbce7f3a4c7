//! The metrics of a content node.

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

/// The metrics of fills and of the storage.
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
        registry.register("tidegate_fills_active", "Fills that run", metrics.active.clone());
        registry.register(
            "tidegate_fill_readers",
            "Clients that read running fills",
            metrics.readers.clone(),
        );
        registry.register("tidegate_fills", "Fills that ended, by outcome", metrics.ended.clone());
        registry.register(
            "tidegate_fill_resumes",
            "Downloads that resumed at an offset, by upstream",
            metrics.resumes.clone(),
        );
        registry.register(
            "tidegate_fill_wrong_bytes",
            "Blobs that did not match their digest",
            metrics.wrong_bytes.clone(),
        );
        registry.register(
            "tidegate_storage_bytes",
            "Bytes of stored blobs on the local disk, by tier",
            metrics.storage_bytes.clone(),
        );
        metrics
    }

    /// Counts a fill until the guard is dropped.
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

    /// Sets the bytes on the local disk: the storage, or the cache tier of an object store.
    pub(crate) fn stored_bytes(&self, store: &BlobStore, bytes: u64) {
        let tier = if store.is_shared() { "cache" } else { "local" };
        self.storage_bytes.get_or_create(&TierLabels { tier }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Decrements a gauge when it is dropped.
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
