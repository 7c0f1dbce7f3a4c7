//! HTTP proxies between Tidegate and its upstreams: which requests go through which one.

use std::fs;

use reqwest::{Method, StatusCode};
use tempfile::TempDir;
use tidegate_tests::{
    assert_eventually,
    chaos::ChaosUpstream,
    http_proxy::HttpProxy,
    s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY},
    world::{TestWorld, WorldBuilder},
};

use crate::support::*;

/// A host that only the proxy can resolve.
const HOST: &str = "registry.example.com";

/// An upstream at [`HOST`], with these keys, and the proxy that leads there.
async fn behind(upstream: &ChaosUpstream, keys: &str) -> (HttpProxy, WorldBuilder) {
    let proxy = HttpProxy::start().await;
    proxy.resolve(&format!("{HOST}:80"), upstream.host().parse().unwrap());
    let keys = keys.replace("PROXY", &proxy.url());
    let builder = TestWorld::builder().bare_upstream("up", &format!("http://{HOST}"), &keys);
    (proxy, builder)
}

fn targets(proxy: &HttpProxy) -> Vec<String> {
    proxy.requests().into_iter().map(|request| request.target).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_environment_leads_to_upstreams_and_not_to_this_process() {
    let (upstream, image) = with_image().await;
    let (proxy, builder) = behind(&upstream, "").await;
    let with_login = proxy.url().replace("http://", "http://robot:secret@");
    let world = builder.namespace("up", "up", "").variable("http_proxy", &with_login).start().await;
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
    assert_eq!(world.blob(NAME, &image.config.0).await.body, image.config.1);
    // The job that completes the image requests it from content-app.
    for (digest, bytes) in image.blobs() {
        world.assert_stored(digest, bytes).await;
    }
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| request.target.starts_with("http://registry.example.com/v2/")));
    // robot:secret
    let login = Some("Basic cm9ib3Q6c2VjcmV0".to_owned());
    assert!(requests.iter().all(|request| request.authorization == login), "{requests:?}");
    assert_eq!(requests.len(), upstream.requests().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_an_upstream_counts_before_those_of_the_environment() {
    let (upstream, image) = with_image().await;
    let (proxy, builder) = behind(&upstream, "proxy = \"PROXY\"").await;
    let other = HttpProxy::start().await;
    let world = builder
        .namespace("up", "up", "prefetch = \"none\"")
        .variable("HTTP_PROXY", &other.url())
        .variable("NO_PROXY", HOST)
        .start()
        .await;
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
    assert!(!proxy.requests().is_empty() && other.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_has_no_proxy_where_it_or_no_proxy_says_so() {
    let (upstream, _) = with_image().await;
    for (keys, no_proxy) in [("proxy = \"none\"", ""), ("", "example.com"), ("", "*")] {
        let (proxy, builder) = behind(&upstream, keys).await;
        let world = builder
            .namespace("up", "up", "prefetch = \"none\"")
            .variable("ALL_PROXY", &proxy.url())
            .variable("NO_PROXY", no_proxy)
            .start()
            .await;
        // The name cannot be resolved without the proxy.
        assert_error(&Method::GET, &world.get(&manifest("1")).await, 502, "UNKNOWN");
        assert_eq!(targets(&proxy), [""; 0], "{keys} {no_proxy}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_object_store_has_the_proxy_of_the_environment_unless_it_has_its_own() {
    for (own, expected) in [("", [true, false]), ("proxy = \"OWN\"", [false, true])] {
        let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
        let (environment, storage) = (HttpProxy::start().await, HttpProxy::start().await);
        let dir = TempDir::with_prefix("tdg-").unwrap();
        let [access, secret] = ["access", "secret"].map(|name| dir.path().join(name));
        fs::write(&access, ACCESS_KEY).unwrap();
        fs::write(&secret, SECRET_KEY).unwrap();
        for proxy in [&environment, &storage] {
            proxy.resolve("objects.example.com:80", bucket.address());
        }
        let sections = format!(
            "[storage]\nkind = \"s3\"\nredirect = false\nbucket = {BUCKET:?}\n\
             endpoint = \"http://objects.example.com\"\n\
             access_key_file = {access:?}\nsecret_key_file = {secret:?}\n{}",
            own.replace("OWN", &storage.url())
        );
        let builder = TestWorld::builder().upstream("up", &upstream, "").sections(&sections).in_dir(dir);
        let world = builder.variable("HTTP_PROXY", &environment.url()).start().await;
        world.get(&manifest("1")).await;
        let digest = &image.layers[0].digest;
        assert_eq!(world.blob(NAME, digest).await.status, StatusCode::OK);
        let stored = format!("SELECT digest AS text FROM blobs WHERE state = 1 AND digest = '{digest}'");
        assert_eventually!(world.texts(&stored) == [digest.as_str()]);
        let used = [&environment, &storage].map(|proxy| !proxy.requests().is_empty());
        assert_eq!(used, expected, "{own}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_proxy_is_a_502_that_names_it_and_is_not_repeated() {
    for (status, reason) in [
        (407, "requires a login, or refused the configured one"),
        (403, "refused the connection to registry.example.com"),
        (503, "refused the connection to registry.example.com"),
    ] {
        let proxy = HttpProxy::start().await;
        proxy.refuse(status);
        let login = proxy.url().replace("http://", "http://robot:secret@");
        let keys = format!("proxy = \"{login}\"\nbreaker_failures = 1");
        let world = TestWorld::builder()
            .bare_upstream("up", "https://registry.example.com", &keys)
            .namespace("up", "up", "")
            .start()
            .await;
        for tag in ["1", "2", "3"] {
            let answer = world.get(&manifest(tag)).await;
            assert_error(&Method::GET, &answer, 502, "UNKNOWN");
            let body = String::from_utf8(answer.body.to_vec()).unwrap();
            assert!(body.contains(&format!("the proxy {} {reason}", proxy.host())), "{body}");
            assert!(!body.contains("secret"), "{body}");
        }
        assert_eq!(targets(&proxy), ["registry.example.com:443"; 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_sends_a_login_that_the_proxy_refuses_once() {
    let (upstream, image) = with_image().await;
    let (proxy, builder) = behind(&upstream, "proxy = \"PROXY\"").await;
    let world = builder.namespace("up", "up", "prefetch = \"none\"").start().await;
    world.get(&manifest("1")).await;
    proxy.refuse(407);
    let before = proxy.requests().len();
    let answer = world.blob(NAME, &image.config.0).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
    assert_eq!(proxy.requests().len(), before + 1);
}
