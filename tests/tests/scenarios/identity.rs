//! Which requests share a repository: those that lead to the same repository of the same upstream, and no others.

use reqwest::Method;
use tidegate_tests::{
    chaos::{ChaosUpstream, Fault, Rule},
    image::Image,
    world::{TestWorld, WorldBuilder},
};

use crate::support::*;

/// Two upstreams with one repository name each, and different images under one tag.
struct Upstreams {
    hub: ChaosUpstream,
    corp: ChaosUpstream,
    hub_image: Image,
    corp_image: Image,
}

impl Upstreams {
    /// The repository of the hub and that of the other one.
    async fn start(hub_name: &str, corp_name: &str) -> Self {
        let (hub, corp) = (ChaosUpstream::start().await, ChaosUpstream::start().await);
        let (hub_image, corp_image) = (Image::random(1, &[500]), Image::random(2, &[600]));
        hub.put_image(hub_name, "1", &hub_image);
        corp.put_image(corp_name, "1", &corp_image);
        Self { hub, corp, hub_image, corp_image }
    }

    /// The root namespace leads to the hub, and `prefix` to the other upstream.
    fn world(&self, prefix: &str) -> WorldBuilder {
        TestWorld::builder()
            .bare_upstream("docker.io", &self.hub.url(), "hosts = [\"docker.io\"]")
            .bare_upstream("corp", &self.corp.url(), "hosts = [\"corp.test\"]")
            .namespace("", "docker.io", "prefetch = \"none\"")
            .namespace(prefix, "corp", "prefetch = \"none\"")
    }

    /// Asserts that each of two paths with `{}` in place of the endpoint sees its own image and nothing of the other's.
    async fn assert_separate(&self, world: &TestWorld, hub: &str, corp: &str) {
        let path = |pattern: &str, endpoint: &str| pattern.replace("{}", endpoint);
        for _ in 0..2 {
            for (pattern, own, other) in
                [(hub, &self.hub_image, &self.corp_image), (corp, &self.corp_image, &self.hub_image)]
            {
                for method in &METHODS {
                    assert_image(method, &world.ask(method, &path(pattern, "manifests/1")).await, own);
                    let by_digest = path(pattern, &format!("manifests/{}", own.digest));
                    assert_image(method, &world.ask(method, &by_digest).await, own);
                    let of_other = path(pattern, &format!("manifests/{}", other.digest));
                    assert_error(method, &world.ask(method, &of_other).await, 404, "MANIFEST_UNKNOWN");
                    let of_other = path(pattern, &format!("blobs/{}", other.config.0));
                    assert_error(method, &world.ask(method, &of_other).await, 404, "BLOB_UNKNOWN");
                }
                let redirect = world.get(&path(pattern, &format!("blobs/{}", own.config.0))).await;
                let blob = world.get(redirect.header("location")).await;
                assert!(blob.body == own.config.1);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_and_without_ns_is_two_repositories() {
    let upstreams = Upstreams::start("internal/app", "app").await;
    let world = upstreams.world("internal").start().await;
    let (hub, corp) = ("/v2/internal/app/{}?ns=docker.io", "/v2/internal/app/{}");
    upstreams.assert_separate(&world, hub, corp).await;
    // `?ns=` of the other upstream leads to the repository of the prefix.
    assert_image(&Method::GET, &world.get("/v2/app/manifests/1?ns=corp.test").await, &upstreams.corp_image);
    assert_eq!(world.rows("repositories"), 2);
    assert_eq!(world.json("/v2/_catalog").await["repositories"], serde_json::json!(["internal/app"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_named_library_does_not_share_repositories_with_docker_hub() {
    let upstreams = Upstreams::start("library/app", "app").await;
    let world = upstreams.world("library").start().await;
    upstreams.assert_separate(&world, "/v2/app/{}", "/v2/library/app/{}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_below_two_prefixes_of_an_upstream_is_two_repositories() {
    let upstream = ChaosUpstream::start().await;
    let images = [Image::random(1, &[500]), Image::random(2, &[600])];
    for (project, image) in ["hub", "ghcr"].iter().zip(&images) {
        upstream.put_image(&format!("{project}/app/x"), "1", image);
    }
    let world = TestWorld::builder()
        .bare_upstream("harbor", &upstream.url(), "")
        .namespace("docker.io", "harbor", "upstream_prefix = \"hub\"\nprefetch = \"none\"")
        .namespace("ghcr.io", "harbor", "upstream_prefix = \"ghcr\"\nprefetch = \"none\"")
        .start()
        .await;
    for _ in 0..2 {
        for (prefix, own, other) in
            [("docker.io", &images[0], &images[1]), ("ghcr.io", &images[1], &images[0])]
        {
            let name = format!("{prefix}/app/x");
            for method in &METHODS {
                assert_image(method, &world.ask(method, &manifest_of(&name, "1")).await, own);
                let of_other = world.ask(method, &manifest_of(&name, &other.digest)).await;
                assert_error(method, &of_other, 404, "MANIFEST_UNKNOWN");
                let of_other = world.ask(method, &blob_of(&name, &other.config.0)).await;
                assert_error(method, &of_other, 404, "BLOB_UNKNOWN");
            }
            assert_eq!(world.blob(&name, &own.config.0).await.body, own.config.1);
        }
    }
    assert_eq!(world.rows("repositories"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_404_and_a_tag_list_of_one_repository_say_nothing_of_the_other() {
    let upstreams = Upstreams::start("internal/app", "app").await;
    upstreams.hub.put_image("internal/app", "only-hub", &upstreams.hub_image);
    upstreams.corp.put_image("app", "only-corp", &upstreams.corp_image);
    let world = upstreams.world("internal").start().await;
    let hub = |path: &str| format!("/v2/internal/app/{path}?ns=docker.io");
    let corp = |path: &str| format!("/v2/internal/app/{path}");
    for _ in 0..2 {
        assert_error(&Method::GET, &world.get(&hub("manifests/only-corp")).await, 404, "MANIFEST_UNKNOWN");
        assert_error(&Method::GET, &world.get(&corp("manifests/only-hub")).await, 404, "MANIFEST_UNKNOWN");
        assert_image(&Method::GET, &world.get(&hub("manifests/only-hub")).await, &upstreams.hub_image);
        assert_image(&Method::GET, &world.get(&corp("manifests/only-corp")).await, &upstreams.corp_image);
        let tags = async |path: String| world.json(&path).await["tags"].clone();
        assert_eq!(tags(hub("tags/list")).await, serde_json::json!(["1", "only-hub"]));
        assert_eq!(tags(corp("tags/list")).await, serde_json::json!(["1", "only-corp"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_for_one_name_are_not_joined_across_upstreams() {
    let upstreams = Upstreams::start("internal/app", "app").await;
    for upstream in [&upstreams.hub, &upstreams.corp] {
        upstream.on(Rule::on("*", "/manifests/").then(Fault::Delay(std::time::Duration::from_millis(300))));
    }
    let world = upstreams.world("internal").start().await;
    let (hub, corp) = tokio::join!(
        world.get("/v2/internal/app/manifests/1?ns=docker.io"),
        world.get("/v2/internal/app/manifests/1"),
    );
    assert_image(&Method::GET, &hub, &upstreams.hub_image);
    assert_image(&Method::GET, &corp, &upstreams.corp_image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_moved_to_another_upstream_serves_nothing_of_the_previous_one() {
    let upstreams = Upstreams::start("app", "app").await;
    let world = |upstream: &ChaosUpstream, name: &str| {
        TestWorld::builder().bare_upstream(name, &upstream.url(), "tag_ttl = \"0\"").namespace(
            "apps",
            name,
            "prefetch = \"none\"",
        )
    };
    let before = world(&upstreams.hub, "hub").start().await;
    assert_image(&Method::GET, &before.get("/v2/apps/app/manifests/1").await, &upstreams.hub_image);
    before.blob("apps/app", &upstreams.hub_image.config.0).await;
    let dir = before.stop().await;
    // The new upstream is not available: what is stored came from the previous one.
    upstreams.corp.stop();
    let after = world(&upstreams.corp, "corp").in_dir(dir).start().await;
    let image = &upstreams.hub_image;
    for path in [
        "manifests/1".to_owned(),
        format!("manifests/{}", image.digest),
        format!("blobs/{}", image.config.0),
        "tags/list".to_owned(),
    ] {
        let answer = after.get(&format!("/v2/apps/app/{path}")).await;
        assert!(matches!(answer.status.as_u16(), 502..=504), "{path} {answer:?}");
    }
    // A move back finds everything again.
    let dir = after.stop().await;
    upstreams.hub.stop();
    let back = world(&upstreams.hub, "hub").in_dir(dir).start().await;
    assert_image(&Method::GET, &back.get("/v2/apps/app/manifests/1").await, image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes_the_image_of_the_upstream_that_was_requested() {
    let upstreams = Upstreams::start("internal/app", "app").await;
    let world = TestWorld::builder()
        .bare_upstream("docker.io", &upstreams.hub.url(), "hosts = [\"docker.io\"]")
        .bare_upstream("corp", &upstreams.corp.url(), "")
        .namespace("", "docker.io", "")
        .namespace("internal", "corp", "")
        .start()
        .await;
    world.get("/v2/internal/app/manifests/1?ns=docker.io").await;
    for (digest, bytes) in upstreams.hub_image.blobs() {
        world.assert_stored(digest, bytes).await;
    }
    assert!(upstreams.corp.requests().is_empty());
}
