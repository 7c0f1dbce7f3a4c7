//! The course that every client takes: cold, and then warm with the upstream registry gone.

use tidegate_tests::assert_eventually;
use tidegate_tests::image::Index;
use tidegate_tests::process::TidegateProcess;
use tidegate_tests::real_registry::RealRegistry;

use super::source::{REPOSITORY, chosen};

/// A client with a store of its own.
pub(super) trait Client: Sized {
    /// What stands behind `[[upstream]]` and its URL in the configuration of Tidegate.
    const CONFIGURATION: &str;

    /// What the upstream registry has as [`REPOSITORY`]`:1`.
    fn source() -> Index;

    /// A client that will pull through this Tidegate.
    async fn start(tidegate: &TidegateProcess) -> Self;

    /// Pulls the image by its tag.
    async fn pull(&self);

    /// Asserts that its store holds the image, byte for byte.
    async fn check(&self, index: &Index);

    /// Removes the image from its store, and asserts that nothing of it is left there.
    async fn remove(&self);
}

/// Pulls cold, stops the upstream registry, and pulls again while the tag is fresh.
pub(super) async fn cold_then_warm<C: Client>() {
    let tidegate = pull_twice::<C>("1h").await;
    assert_eq!(manifests(&tidegate, "stale").await, 0);
    assert_ne!(manifests(&tidegate, "hit").await, 0);
}

/// Pulls cold, stops the upstream registry, and pulls again although the tag should be checked.
pub(super) async fn cold_then_stale<C: Client>() {
    let tidegate = pull_twice::<C>("0").await;
    assert_ne!(manifests(&tidegate, "stale").await, 0);
}

async fn pull_twice<C: Client>(tag_ttl: &str) -> TidegateProcess {
    let mut upstream = RealRegistry::start().await;
    let index = C::source();
    upstream.push_index(REPOSITORY, "1", &index).await;
    let configuration =
        format!("[[upstream]]\nurl = '{}'\ntag_ttl = '{tag_ttl}'\n{}", upstream.url(), C::CONFIGURATION);
    let tidegate = TidegateProcess::builder().config(configuration).start().await;
    let client = C::start(&tidegate).await;
    let blobs = u64::try_from(chosen(&index).blobs().count()).unwrap();

    client.pull().await;
    client.check(&index).await;
    assert_eventually!(blobs_served(&tidegate).await == blobs, "each blob is served once");

    client.remove().await;
    upstream.stop();
    client.pull().await;
    client.check(&index).await;
    assert_eventually!(blobs_served(&tidegate).await == 2 * blobs, "each blob is served once more");
    tidegate
}

/// How many whole blobs were sent to clients.
async fn blobs_served(tidegate: &TidegateProcess) -> u64 {
    tidegate.metric("tidegate_http_requests_total", &["service=\"content-app\"", "code=\"200\""]).await
}

async fn manifests(tidegate: &TidegateProcess, outcome: &str) -> u64 {
    let outcome = format!("outcome=\"{outcome}\"");
    tidegate.metric("tidegate_pulls_total", &["kind=\"manifest\"", &outcome]).await
}
