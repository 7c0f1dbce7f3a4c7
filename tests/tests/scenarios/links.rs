//! Signed links to content: who may read a blob, and for how long.

use std::{fs, sync::Arc, time::Duration};

use internal_api::{LinkKey, LinkKeys};
use oci_types::{Digest, Millis, RepositoryName};
use reqwest::Method;
use tempfile::TempDir;
use tidegate_tests::{chaos::ChaosUpstream, image::Image, world::TestWorld};
use url::Position;

use crate::support::*;

fn key(id: &str) -> LinkKey {
    let byte = id.bytes().next().unwrap();
    LinkKey::new(id, &[byte; 32]).unwrap()
}

/// A folder with key files `a`, `b`, `c`, of which the configuration names some.
fn dir_with_keys() -> TempDir {
    let dir = TempDir::with_prefix("tdg-").unwrap();
    for id in ["a", "b", "c"] {
        fs::write(dir.path().join(id), hex::encode([id.as_bytes()[0]; 32])).unwrap();
    }
    dir
}

async fn world(upstream: &ChaosUpstream, dir: TempDir, ids: &[&str]) -> TestWorld {
    let path = |id: &str| dir.path().join(id).display().to_string();
    let keys: Vec<_> = ids.iter().map(|id| format!("{{ id = \"{id}\", file = \"{}\" }}", path(id))).collect();
    let sections = format!("[content]\nlink_keys = [{}]", keys.join(", "));
    TestWorld::builder().upstream("up", upstream, "").sections(&sections).in_dir(dir).start().await
}

/// A link for [`NAME`], or another repository, signed with one key and running out after, or before, now.
fn signed(id: &str, repository: &str, digest: &str, expires: Millis) -> String {
    let (repository, digest) = (RepositoryName::parse(repository).unwrap(), Digest::parse(digest).unwrap());
    Arc::new(LinkKeys::new(key(id), Vec::new())).sign(&repository, &digest, expires)
}

fn in_an_hour() -> Millis {
    Millis::now().after(Duration::from_secs(3600))
}

/// An upstream with two repositories, and one blob of each stored here.
async fn with_two_repositories() -> (ChaosUpstream, TestWorld, [Image; 2]) {
    let (upstream, image) = with_image().await;
    let other = Image::random(2, &[500]);
    upstream.put_image("library/other", "1", &other);
    let world = world(&upstream, dir_with_keys(), &["a"]).await;
    for (name, image) in [(NAME, &image), ("up/library/other", &other)] {
        world.get(&manifest_of(name, "1")).await;
        world.blob(name, &image.config.0).await;
        world.assert_stored(&image.config.0, &image.config.1).await;
    }
    (upstream, world, [image, other])
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_unaltered_link_opens_a_blob() {
    let (upstream, world, [image, other]) = with_two_repositories().await;
    let (digest, layer) = (&image.config.0, &image.layers[0].digest);
    let good = signed("a", NAME, digest, in_an_hour());
    for method in &METHODS {
        assert_eq!(world.ask(method, &good).await.status, 200);
        assert_eq!(world.ask(method, &format!("{good}&utm=1")).await.status, 200);
    }
    upstream.clear_requests();
    let (path, query) = good.split_once('?').unwrap();
    let with_query = |query: &str| format!("{path}?{query}");
    let replaced = |from: &str, to: &str| good.replace(from, to);
    let last = if good.ends_with('0') { '1' } else { '0' };
    let a_minute_ago = Millis::now().before(Duration::from_secs(60));
    for (what, link) in [
        ("no query", path.to_owned()),
        ("expired", signed("a", NAME, digest, a_minute_ago)),
        ("signature altered", format!("{}{last}", &good[..good.len() - 1])),
        ("signature cut", good[..good.len() - 2].to_owned()),
        ("signature empty", with_query(&format!("{}sig=", query.split("sig=").next().unwrap()))),
        ("expiry put off", replaced("expires=", "expires=9")),
        ("expiry no number", replaced("expires=", "expires=x")),
        ("another repository", replaced(NAME, "up/library/other")),
        ("a repository that is none", replaced(NAME, "up/library/..")),
        ("another digest", replaced(digest, layer)),
        ("a digest of another repository", replaced(digest, &other.config.0)),
        ("a digest that is none", replaced(digest, "sha256:0")),
        ("unknown key", signed("b", NAME, digest, in_an_hour())),
        ("key renamed", replaced("key=a", "key=b")),
        ("key renamed to its own", signed("b", NAME, digest, in_an_hour()).replace("key=b", "key=a")),
        ("signed twice", format!("{good}&sig=0")),
        ("two expiries", format!("{good}&expires=99999999999")),
        ("not utf-8", format!("{good}&key=%ff")),
    ] {
        for method in &METHODS {
            let answer = world.ask(method, &link).await;
            assert_eq!(answer.status, 403, "{what}");
            assert_error(method, &answer, 403, "DENIED");
            assert!(!String::from_utf8_lossy(&answer.body).contains("expire"), "{what}: {answer:?}");
        }
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_link_opens_no_cold_blob_either() {
    let (upstream, world, [image, _]) = with_two_repositories().await;
    let cold = &image.layers[1].digest;
    upstream.clear_requests();
    let expired = signed("a", NAME, cold, Millis::now().before(Duration::from_secs(1)));
    assert_error(&Method::GET, &world.get(&expired).await, 403, "DENIED");
    assert!(upstream.requests().is_empty());
    let whole = world.get(&signed("a", NAME, cold, in_an_hour())).await;
    assert!(whole.body == image.layers[1].bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_blob_that_nobody_has_is_not_found() {
    let (upstream, world, [image, _]) = with_two_repositories().await;
    upstream.clear_requests();
    let unknown = signed("a", NAME, &image.digest.replace("sha256:", "sha256:00")[..71], in_an_hour());
    for method in &METHODS {
        assert_error(method, &world.ask(method, &unknown).await, 404, "BLOB_UNKNOWN");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_lives_as_long_as_configured() {
    let (upstream, image) = with_image().await;
    let sections = "[content]\nlink_lifetime = \"7m\"";
    let world = TestWorld::builder().upstream("up", &upstream, "").sections(sections).start().await;
    world.get(&manifest("1")).await;
    let before = Millis::now();
    let link = world.content_url(NAME, &image.config.0).await;
    let expires = link.split("expires=").nth(1).unwrap().split('&').next().unwrap();
    let lives = expires.parse::<i64>().unwrap() - before.0 / 1000;
    assert!((419..=422).contains(&lives), "{lives}");
}

/// The path and query of a link to a blob.
async fn link(world: &TestWorld, digest: &str) -> String {
    let url = world.url(&world.content_url(NAME, digest).await);
    url[Position::BeforePath..].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_a_broken_link() {
    let (upstream, image) = with_image().await;
    let digest = &image.config.0;
    let mut dir = dir_with_keys();
    let mut old = String::new();
    for (ids, signer, old_holds) in
        [(&["a"][..], "a", true), (&["a", "b"], "a", true), (&["b", "a"], "b", true), (&["b"], "b", false)]
    {
        let world = world(&upstream, dir, ids).await;
        world.get(&manifest("1")).await;
        let link = link(&world, digest).await;
        assert!(link.contains(&format!("key={signer}&")), "{ids:?}: {link}");
        assert_eq!(world.get(&link).await.body, image.config.1, "{ids:?}");
        if old.is_empty() {
            old = link;
        }
        assert_eq!(world.get(&old).await.status, if old_holds { 200 } else { 403 }, "{ids:?}");
        dir = world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_begin_with_the_public_url_if_it_is_set() {
    let (upstream, image) = with_image().await;
    let sections = "[api]\npublic_url = \"https://registry.example.com/\"";
    let world = TestWorld::builder().upstream("up", &upstream, "").sections(sections).start().await;
    let digest = &image.config.0;
    let answer = world.get(&format!("/v2/{NAME}/blobs/{digest}")).await;
    let expected = format!("https://registry.example.com/content/v1/{NAME}/blobs/{digest}?");
    assert!(answer.header("location").starts_with(&expected), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_made_on_first_run_outlives_a_restart() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    let link = link(&world, &image.config.0).await;
    let dir = world.stop().await;
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "").start().await;
    assert_eq!(world.get(&link).await.body, image.config.1);
    let stranger = TestWorld::start(&upstream).await;
    let answer = stranger.get(&link).await;
    assert_error(&Method::GET, &answer, 403, "DENIED");
    assert!(String::from_utf8_lossy(&answer.body).contains("with other link keys than this one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_internal_api_takes_no_link_and_no_stranger() {
    let (upstream, world, [image, _]) = with_two_repositories().await;
    upstream.clear_requests();
    let cold = &image.layers[1].digest;
    let path = format!("/internal/v1/fills/{cold}");
    let keys = LinkKeys::new(key("b"), Vec::new());
    let own = LinkKeys::new(key("a"), Vec::new());
    let long_ago = Millis::now().before(Duration::from_secs(61));
    for (what, signature) in [
        ("none", String::new()),
        ("another key", keys.sign_request("POST", &path, Millis::now())),
        ("another method", own.sign_request("GET", &path, Millis::now())),
        ("another path", own.sign_request("POST", "/internal/v1/fills", Millis::now())),
        ("too old", own.sign_request("POST", &path, long_ago)),
    ] {
        let request = world.client().post(format!("{}{path}", world.internal()));
        let answer = world.send(request.header("Tidegate-Signature", signature)).await;
        assert_eq!(answer.status, 403, "{what}");
    }
    assert_eq!(world.internal_get("/internal/v1/fills").await.status, 403);
    assert!(upstream.requests().is_empty());
    let signature = own.sign_request("POST", &path, Millis::now());
    let request = world.client().post(format!("{}{path}", world.internal()));
    world.send(request.header("Tidegate-Signature", signature)).await;
    world.assert_stored(cold, &image.layers[1].bytes).await;
    // It is on the internal listener alone.
    assert_eq!(world.ask(&Method::POST, &path).await.status, 405);
    assert_eq!(world.get("/metrics").await.status, 404);
}
