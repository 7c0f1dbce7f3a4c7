//! What a pull costs the upstream registry.

use tidegate_tests::assert_eventually;
use tidegate_tests::chaos::ChaosUpstream;
use tidegate_tests::image::{Format, Image};
use tidegate_tests::process::TidegateProcess;

use super::pull::Client as _;
use super::skopeo::Skopeo;
use super::source::{REPOSITORY, chosen, source};

/// What the upstream was asked since the last time, in alphabetical order.
fn asked(upstream: &ChaosUpstream) -> Vec<String> {
    let seen = upstream.requests().into_iter();
    let mut asked: Vec<String> = seen.map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    upstream.clear_requests();
    asked.sort();
    asked
}

fn configuration(upstream: &ChaosUpstream, tag_ttl: &str) -> String {
    format!("[[upstream]]\nname = 'local'\nurl = '{}'\ntag_ttl = '{tag_ttl}'\n", upstream.url())
}

/// Once the background task that a pull leaves behind has done what it has to do.
async fn rest(tidegate: &TidegateProcess, tasks: usize) {
    assert_eventually!(tidegate.log().matches("job completed").count() == tasks);
}

fn one_each<'a>(image: &'a Image, manifests: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let manifests = manifests.into_iter().map(|digest| format!("GET /v2/{REPOSITORY}/manifests/{digest}"));
    let blobs = image.blobs().map(|(digest, _)| format!("GET /v2/{REPOSITORY}/blobs/{digest}"));
    let mut all: Vec<String> = blobs.chain(manifests).collect();
    all.push(format!("HEAD /v2/{REPOSITORY}/manifests/1"));
    all.sort();
    all
}

#[tokio::test]
async fn an_image_costs_one_head_and_one_get_of_each_part_and_then_nothing_and_then_one_head() {
    let upstream = ChaosUpstream::start().await;
    let index = source(Format::Oci);
    let image = chosen(&index);
    upstream.put_image(REPOSITORY, "1", image);
    let configured = configuration(&upstream, "1h");
    let mut tidegate = TidegateProcess::builder().config(configured).start().await;
    let skopeo = Skopeo::start(&tidegate).await;

    skopeo.pull().await;
    skopeo.assert_copied(image);
    rest(&tidegate, 1).await;
    assert_eq!(asked(&upstream), one_each(image, [image.digest.as_str()]));

    skopeo.remove().await;
    skopeo.pull().await;
    skopeo.assert_copied(image);
    assert_eq!(asked(&upstream), [""; 0]);

    tidegate.terminate();
    assert!(tidegate.wait().await.success());
    tidegate.restart_with(configuration(&upstream, "0")).await;
    skopeo.remove().await;
    skopeo.pull().await;
    skopeo.assert_copied(image);
    assert_eq!(asked(&upstream), [format!("HEAD /v2/{REPOSITORY}/manifests/1")]);
}

#[tokio::test]
async fn an_image_of_an_index_costs_nothing_of_the_others() {
    let upstream = ChaosUpstream::start().await;
    let index = source(Format::Oci);
    let image = chosen(&index);
    upstream.put_index(REPOSITORY, "1", &index);
    let tidegate = TidegateProcess::builder().config(configuration(&upstream, "1h")).start().await;
    let skopeo = Skopeo::start(&tidegate).await;

    skopeo.pull().await;
    skopeo.assert_copied(image);
    rest(&tidegate, 2).await;
    assert_eq!(asked(&upstream), one_each(image, [index.digest.as_str(), image.digest.as_str()]));

    skopeo.remove().await;
    skopeo.pull().await;
    skopeo.assert_copied(image);
    assert_eq!(asked(&upstream), [""; 0]);
}
