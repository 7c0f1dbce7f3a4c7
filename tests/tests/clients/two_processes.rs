//! registry-api and content-app as two processes over one SQLite file and one data folder.

use tidegate_tests::image::{Format, Image};
use tidegate_tests::process::{TidegateProcess, tidegate};
use tidegate_tests::real_registry::RealRegistry;

use super::pull::Client as _;
use super::skopeo::Skopeo;
use super::source::{REPOSITORY, chosen, source};

#[tokio::test]
async fn skopeo_pulls_through_two_processes() {
    let mut upstream = RealRegistry::start().await;
    let index = source(Format::Oci);
    let image: &Image = chosen(&index);
    upstream.push_index(REPOSITORY, "1", &index).await;
    let data = tempfile::tempdir().unwrap();
    let local = format!("local={}", upstream.url());

    let migrated = tidegate().arg("migrate").arg("--data-dir").arg(data.path()).succeed().await;
    assert!(migrated.stdout.starts_with("applied "), "{migrated:?}");
    let again = tidegate().arg("migrate").arg("--data-dir").arg(data.path()).succeed().await;
    assert!(again.stdout.starts_with("the schema is up to date: version "), "{again:?}");

    let service = |mode| TidegateProcess::builder().args([mode, "--upstream", &local]).data_dir(data.path());
    let api = service("registry-api").start().await;
    let content = service("content-app").start().await;

    let skopeo = Skopeo::start(&api).await;
    skopeo.pull().await;
    skopeo.assert_copied(image);
    upstream.stop();
    skopeo.remove().await;
    skopeo.pull().await;
    skopeo.assert_copied(image);

    let blobs = u64::try_from(image.blobs().count()).unwrap();
    let stored = ["outcome=\"stored\""];
    assert_eq!(content.metric("tidegate_fills_total", &stored).await, blobs);
    assert_eq!(api.metric("tidegate_fills_total", &stored).await, 0);
    for mut process in [api, content] {
        process.terminate();
        assert!(process.wait().await.success());
    }
}
