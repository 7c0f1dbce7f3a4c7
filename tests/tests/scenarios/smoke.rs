//! One image, cold and warm.

use reqwest::StatusCode;
use tidegate_tests::{chaos::ChaosUpstream, image::Image, world::TestWorld};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_cold_and_then_warm_without_upstream() {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(1, &[100, 300_000, 5_000_000]);
    upstream.put_image("library/x", "1", &image);
    let world = TestWorld::start(&upstream).await;

    for round in ["cold", "warm"] {
        let manifest = world.get("/v2/up/library/x/manifests/1").await;
        assert_eq!(manifest.status, StatusCode::OK, "{manifest:?}");
        assert_eq!(manifest.body, image.manifest);
        for (digest, bytes) in image.blobs() {
            let blob = world.blob("up/library/x", digest).await;
            assert_eq!(blob.status, StatusCode::OK);
            assert!(blob.body == *bytes, "{round} {digest}");
            world.assert_stored(digest, bytes).await;
        }
        let seen: Vec<_> = upstream.requests().iter().map(|seen| seen.method.clone()).collect();
        assert_eq!(seen.iter().filter(|method| *method == "HEAD").count(), 1, "{round}");
        assert_eq!(seen.len(), 2 + image.blobs().count(), "{round}");
    }
}
