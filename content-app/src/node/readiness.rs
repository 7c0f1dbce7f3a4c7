//! The check of the storage for `/readyz`.

use std::sync::Arc;

use blob_store::BlobStore;
use http_server::Readiness;
use shared_models::{Change, FailureEdge};

/// Adds the storage to the checks. An unavailable object store is logged, and the node remains ready: it serves blobs from
/// its own disk and from upstreams.
pub(crate) fn with_storage_check(readiness: Readiness, store: BlobStore) -> Readiness {
    let outage = Arc::new(FailureEdge::default());
    readiness.with(
        "storage",
        Arc::new(move || {
            let (store, outage) = (store.clone(), Arc::clone(&outage));
            Box::pin(async move {
                let ready = store.check().await;
                let available = match &ready {
                    Err(error) if error.is_unavailable() => Err(error),
                    _ => Ok(()),
                };
                match outage.change(&available) {
                    Some(Change::Began(error)) => tracing::warn!(%error, "storage unavailable"),
                    Some(Change::Ended) => tracing::info!("storage available"),
                    None => {}
                }
                match ready {
                    Err(error) if error.is_unavailable() => Ok(()),
                    ready => ready.map_err(|error| error.to_string()),
                }
            })
        }),
    )
}
