//! From a request to an upstream repository: `?ns=`, prefixes, Docker Hub, filters.

use reqwest::Method;
use tidegate_tests::{
    chaos::{ChaosUpstream, Fault, Rule},
    image::Image,
    world::{Answer, TestWorld},
};

use crate::support::*;

fn message(answer: &Answer) -> String {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    body["errors"][0]["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_leads_to_the_upstream_of_that_host_and_is_confirmed() {
    let (upstream, image) = with_image().await;
    let hosts = "hosts = [\"registry.test\", \"registry.test:5000\"]";
    let world = TestWorld::builder().upstream("up", &upstream, hosts).start().await;
    for ns in ["registry.test", "registry.test:5000", "registry.test%3A5000"] {
        for method in &METHODS {
            for path in [manifest_of("library/x", "1"), blob_of("library/x", &image.config.0)] {
                let answer = world.ask(method, &format!("{path}?ns={ns}")).await;
                assert!(matches!(answer.status.as_u16(), 200 | 307), "{answer:?}");
                assert_eq!(answer.header("oci-namespace"), ns.replace("%3A", ":"));
            }
        }
    }
    let list = world.get("/v2/library/x/tags/list?ns=registry.test").await;
    assert_eq!((list.status.as_u16(), list.header("oci-namespace")), (200, "registry.test"));
    // The same repository as without `?ns=`.
    assert_eq!(world.json("/v2/_catalog").await["repositories"], serde_json::json!([NAME]));
    let without = world.get(&manifest("1")).await;
    assert_image(&Method::GET, &without, &image);
    assert_eq!(without.header("oci-namespace"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefix_of_a_namespace_may_precede_the_name_or_the_api() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, "hosts = [\"up.test\"]").start().await;
    for method in &METHODS {
        for path in [
            "/v2/up/library/x/manifests/1?ns=up.test",
            "/v2/up/library/x/manifests/1?ns=",
            "/up/v2/library/x/manifests/1",
            "/up/v2/library/x/manifests/1?ns=up.test",
        ] {
            assert_image(method, &world.ask(method, path).await, &image);
        }
        let own = format!("/v2/up/library/x/manifests/1?ns={}", world.url("/").authority());
        assert_image(method, &world.ask(method, &own).await, &image);
    }
    for ping in ["/v2/", "/v2/up/", "/v2/up", "/up/v2/", "/up/v2"] {
        assert_eq!(world.get(ping).await.status, 200, "{ping}");
    }
    assert_eq!(world.get("/v2/other/").await.status, 404);
    let blob = world.get(&format!("/up/v2/library/x/blobs/{}", image.config.0)).await;
    assert_eq!(world.get(blob.header("location")).await.body, image.config.1);
    assert_eq!(world.json("/v2/_catalog").await["repositories"], serde_json::json!([NAME]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_ns_is_never_dialled() {
    let (upstream, image) = with_image().await;
    let (stranger, _) = with_image().await;
    let hosts = "hosts = [\"registry.test:5000\"]";
    let world = TestWorld::builder().upstream("up", &upstream, hosts).start().await;
    for ns in [&stranger.host(), "registry.test", "registry.test:443", "", "..", "a%00b", "http://x/"] {
        for method in &METHODS {
            for path in [manifest_of("library/x", "1"), blob_of("library/x", &image.config.0)] {
                let answer = world.ask(method, &format!("{path}?ns={ns}")).await;
                assert_error(method, &answer, 404, "NAME_UNKNOWN");
                assert_eq!(answer.header("oci-namespace"), "");
            }
        }
    }
    assert!(upstream.requests().is_empty());
    assert_nothing_recorded(&world).await;
    // The prefix of a namespace selects it.
    let answer = world.get(&format!("{}?ns={}", manifest("1"), stranger.host())).await;
    assert_image(&Method::GET, &answer, &image);
    assert_eq!(answer.header("oci-namespace"), "");
    assert!(stranger.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_prefix_of_whole_segments_wins() {
    let (short, short_image) = with_image().await;
    let long = ChaosUpstream::start().await;
    let long_image = Image::random(2, &[10]);
    long.put_image(UPSTREAM_NAME, "1", &long_image);
    let world = TestWorld::builder()
        .bare_upstream("short", &short.url(), "")
        .bare_upstream("long", &long.url(), "")
        .namespace("cache", "short", "prefetch = \"none\"")
        .namespace("cache/deep", "long", "prefetch = \"none\"")
        .start()
        .await;
    for method in &METHODS {
        let answer = world.ask(method, &manifest_of("cache/library/x", "1")).await;
        assert_image(method, &answer, &short_image);
        let answer = world.ask(method, &manifest_of("cache/deep/library/x", "1")).await;
        assert_image(method, &answer, &long_image);
        // `cache/deeper` is below `cache` alone, `cache2` below nothing, and a prefix is no repository.
        let answer = world.ask(method, &manifest_of("cache/deeper/library/x", "1")).await;
        assert_error(method, &answer, 404, "MANIFEST_UNKNOWN");
        for name in ["cache2/library/x", "cache", "library/x"] {
            assert_error(method, &world.ask(method, &manifest_of(name, "1")).await, 404, "NAME_UNKNOWN");
        }
    }
    assert_eq!(short.count("*", "/v2/deeper/library/x/"), 1);
    assert_eq!((short.count("*", "cache"), long.count("*", "cache")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_default_takes_what_no_prefix_takes() {
    let (root, image) = with_image().await;
    let (other, _) = with_image().await;
    let world = TestWorld::builder()
        .bare_upstream("root", &root.url(), "")
        .bare_upstream("other", &other.url(), "")
        .namespace("", "root", "prefetch = \"none\"")
        .namespace("other", "other", "prefetch = \"none\"")
        .start()
        .await;
    assert_image(&Method::GET, &world.get(&manifest_of("library/x", "1")).await, &image);
    assert!(other.requests().is_empty());
    assert_image(&Method::GET, &world.get(&manifest_of("other/library/x", "1")).await, &image);
    assert_eq!((root.requests().len(), other.count("HEAD", ""), other.requests().len()), (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_one_segment_is_below_library_on_docker_hub_alone() {
    let (hub, image) = with_image().await;
    let (other, _) = with_image().await;
    let world = TestWorld::builder()
        .bare_upstream("docker.io", &hub.url(), "hosts = [\"docker.io\"]")
        .upstream("other", &other, "")
        .namespace("", "docker.io", "prefetch = \"none\"")
        .namespace("docker.io", "docker.io", "prefetch = \"none\"")
        .start()
        .await;
    let spellings = ["x", "library/x", "docker.io/x", "docker.io/library/x"];
    for name in spellings {
        for method in &METHODS {
            assert_image(method, &world.ask(method, &manifest_of(name, "1")).await, &image);
        }
    }
    for name in ["x", "library/x"] {
        let answer = world.get(&format!("{}?ns=docker.io", manifest_of(name, "1"))).await;
        assert_image(&Method::GET, &answer, &image);
    }
    assert_eq!(hub.requests().len(), 3, "every spelling is one repository");
    assert_eq!(world.json("/v2/_catalog").await["repositories"], serde_json::json!(["docker.io/library/x"]));
    let answer = world.get(&manifest_of("other/x", "1")).await;
    assert_error(&Method::GET, &answer, 404, "MANIFEST_UNKNOWN");
    assert_eq!(other.count("HEAD", "/v2/x/manifests/1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_keep_repositories_out_and_name_the_rule() {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(1, &[10]);
    for name in ["library/x", "secret/deep/x", "team/a", "team/a-test"] {
        upstream.put_image(name, "1", &image);
    }
    let world = TestWorld::builder()
        .bare_upstream("up", &upstream.url(), "hosts = [\"up.test\"]")
        .namespace("excludes", "up", "prefetch = \"none\"\nexclude = [\"secret/**\"]")
        .namespace("both", "up", "prefetch = \"none\"\ninclude = [\"team/*\"]\nexclude = [\"*/*-test\"]")
        .start()
        .await;
    let allowed = ["excludes/library/x", "excludes/team/a-test", "both/team/a"];
    for name in allowed {
        assert_image(&Method::GET, &world.get(&manifest_of(name, "1")).await, &image);
    }
    upstream.clear_requests();
    for (name, rule) in [
        ("excludes/secret/deep/x", "exclude secret/**"),
        ("both/team/a-test", "exclude */*-test"),
        ("both/library/x", "include (no pattern matches)"),
        ("both/team/deep/a", "include (no pattern matches)"),
    ] {
        for method in &METHODS {
            for path in
                [manifest_of(name, "1"), manifest_of(name, &image.digest), blob_of(name, &image.config.0)]
            {
                let answer = world.ask(method, &path).await;
                assert_error(method, &answer, 403, "DENIED");
                assert!(*method == Method::HEAD || message(&answer).contains(rule), "{answer:?}");
            }
        }
        let list = world.get(&format!("/v2/{name}/tags/list")).await;
        assert_error(&Method::GET, &list, 403, "DENIED");
    }
    let by_ns = world.get(&format!("{}?ns=up.test", manifest_of("secret/deep/x", "1"))).await;
    assert_error(&Method::GET, &by_ns, 403, "DENIED");
    assert!(upstream.requests().is_empty());
    assert_eq!(world.rows("repositories"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_prefix_leads_to_a_project_that_mirrors_docker_hub() {
    let upstream = ChaosUpstream::builder().bearer("robot", "secret").start().await;
    let image = Image::random(1, &[1_000]);
    upstream.put_image("hub-proxy/library/x", "1", &image);
    let keys = "hosts = [\"docker.io\"]\nusername = \"robot\"\npassword_file = \"FILE\"";
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "secret\n").unwrap();
    let keys = keys.replace("FILE", password.path().to_str().unwrap());
    let world = TestWorld::builder()
        .bare_upstream("harbor", &upstream.url(), &keys)
        .namespace("", "harbor", "upstream_prefix = \"hub-proxy\"\nexclude = [\"library/secret\"]")
        .namespace("docker.io", "harbor", "upstream_prefix = \"hub-proxy\"\nprefetch = \"none\"")
        .start()
        .await;
    for name in ["x", "library/x", "docker.io/x", "docker.io/library/x"] {
        for method in &METHODS {
            assert_image(method, &world.ask(method, &manifest_of(name, "1")).await, &image);
        }
        let tags = world.json(&format!("/v2/{name}/tags/list")).await;
        assert_eq!(tags["tags"], serde_json::json!(["1"]), "{name}");
        assert_eq!(world.blob(name, &image.config.0).await.body, image.config.1);
    }
    assert_image(&Method::GET, &world.get(&format!("{}?ns=docker.io", manifest_of("x", "1"))).await, &image);
    assert_eq!(world.json("/v2/_catalog").await["repositories"], serde_json::json!(["docker.io/library/x"]));
    assert_eq!(world.rows("repositories"), 1);
    // The job finds its way, too.
    for (digest, bytes) in image.blobs() {
        world.assert_stored(digest, bytes).await;
    }
    let outside = |path: &str| path.starts_with("/v2/") && !path.starts_with("/v2/hub-proxy/library/x/");
    assert!(!upstream.requests().iter().any(|seen| outside(&seen.path)), "{:?}", upstream.requests());
    let excluded = world.get(&manifest_of("secret", "1")).await;
    assert_error(&Method::GET, &excluded, 403, "DENIED");
    assert!(message(&excluded).contains("exclude library/secret"), "{excluded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_below_a_path_is_an_upstream() {
    let upstream = ChaosUpstream::builder().anonymous_bearer().below("/api/docker/remote").start().await;
    let image = Image::random(1, &[1_000]);
    upstream.put_image(UPSTREAM_NAME, "1", &image);
    upstream.put_image(UPSTREAM_NAME, "2", &image);
    let link = format!("</v2/{UPSTREAM_NAME}/tags/list?n=10000&last=1>; rel=\"next\"");
    let first_page = Fault::Status(200, vec![("Link".to_owned(), link)], r#"{"tags":["1"]}"#.into());
    upstream.on(Rule::on("GET", "/tags/list").times(1).then(first_page));
    let world = TestWorld::builder()
        .bare_upstream("up", &format!("{}/api/docker/remote/", upstream.url()), "")
        .namespace("up", "up", "prefetch = \"none\"")
        .start()
        .await;
    for method in &METHODS {
        assert_image(method, &world.ask(method, &manifest("1")).await, &image);
    }
    assert_eq!(world.blob(NAME, &image.config.0).await.body, image.config.1);
    let tags = world.json(&format!("/v2/{NAME}/tags/list")).await;
    assert_eq!(tags["tags"], serde_json::json!(["1", "2"]));
    let paths: Vec<String> = upstream.requests().into_iter().map(|seen| seen.path).collect();
    let below = |path: &String| path == "/token" || path.starts_with("/api/docker/remote/v2/library/x/");
    assert!(paths.iter().all(below), "{paths:?}");
}
