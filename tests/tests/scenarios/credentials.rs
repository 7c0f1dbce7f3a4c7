//! Upstream credentials: to whom they are shown, and to whom never.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use tempfile::TempDir;
use tidegate_tests::{
    chaos::{ChaosBuilder, ChaosUpstream, Fault, Rule, Seen},
    http_proxy::HttpProxy,
    image::Image,
    world::{TestWorld, WorldBuilder},
};

use crate::support::*;

/// Keys of an upstream that is logged in to; the password lies in a file of the world's folder.
fn login(dir: &TempDir, username: &str, password: &str) -> String {
    let file = dir.path().join(format!("{username}.password"));
    std::fs::write(&file, format!("{password}\n")).unwrap();
    format!("username = \"{username}\"\npassword_file = \"{}\"\nbreaker_failures = 1000", file.display())
}

fn dir() -> TempDir {
    TempDir::with_prefix("tdg-").unwrap()
}

async fn filled(builder: ChaosBuilder, image: &Image) -> ChaosUpstream {
    let upstream = builder.start().await;
    upstream.put_image(UPSTREAM_NAME, "1", image);
    upstream
}

fn world(dir: TempDir) -> WorldBuilder {
    TestWorld::builder().in_dir(dir)
}

/// Whether any header of these requests has one of these texts in it.
fn shows(seen: &[Seen], secrets: &[&str]) -> bool {
    let shown = |text: &str| secrets.iter().any(|secret| text.contains(secret));
    seen.iter().any(|seen| shown(&seen.query) || seen.headers.iter().any(|(_, value)| shown(value)))
}

/// The URL of an upstream as one of the internet, and the proxy that it is reached through: no address shows where it is.
async fn public(upstream: &ChaosUpstream) -> (HttpProxy, String) {
    let proxy = HttpProxy::start().await;
    proxy.resolve("registry.example.com:80", upstream.host().parse().unwrap());
    (proxy, "http://registry.example.com".to_owned())
}

/// The key of an upstream behind a proxy.
fn key(proxy: &HttpProxy) -> String {
    format!("proxy = \"{}\"", proxy.url())
}

async fn pull_all(world: &TestWorld, name: &str, image: &Image) {
    assert_image(&Method::GET, &world.get(&manifest_of(name, "1")).await, image);
    for (digest, bytes) in image.blobs() {
        assert!(world.blob(name, digest).await.body == *bytes, "{name} {digest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_of_one_upstream_never_reaches_another() {
    let (one, two, three) = (Image::random(1, &[10]), Image::random(2, &[10]), Image::random(3, &[10]));
    let bearer = filled(ChaosUpstream::builder().bearer("alice", "wonder-land"), &one).await;
    let basic = filled(ChaosUpstream::builder().basic("bob", "builder-pass"), &two).await;
    let open = filled(ChaosUpstream::builder(), &three).await;
    let dir = dir();
    let (alice, bob) = (login(&dir, "alice", "wonder-land"), login(&dir, "bob", "builder-pass"));
    let world = world(dir)
        .upstream("bearer", &bearer, &alice)
        .upstream("basic", &basic, &bob)
        .upstream("open", &open, "")
        .start()
        .await;
    for (name, image) in [("bearer", &one), ("basic", &two), ("open", &three), ("bearer", &one)] {
        pull_all(&world, &format!("{name}/library/x"), image).await;
    }
    let alice = STANDARD.encode("alice:wonder-land");
    let bob = STANDARD.encode("bob:builder-pass");
    let tokens: Vec<_> = bearer
        .requests()
        .iter()
        .filter_map(|seen| seen.header("authorization")?.strip_prefix("Bearer ").map(str::to_owned))
        .collect();
    assert_eq!((bearer.token_requests(), tokens.len()), (1, 4), "HEAD, GET, two blobs");
    assert!(shows(&bearer.requests(), &[&alice]) && !shows(&bearer.requests(), &[&bob, "builder-pass"]));
    assert!(shows(&basic.requests(), &[&bob]));
    assert!(!shows(&basic.requests(), &[&alice, "wonder-land", "Bearer", &tokens[0]]));
    assert!(open.requests().iter().all(|seen| seen.header("authorization").is_none()));
    // The password goes to the token service alone.
    let with_password =
        bearer.requests().into_iter().filter(|seen| shows(std::slice::from_ref(seen), &[&alice]));
    assert!(with_password.into_iter().all(|seen| seen.path == "/token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_is_open_to_clients_whose_upstream_login_is_right_and_to_no_other() {
    let image = Image::random(1, &[10]);
    let upstream = filled(ChaosUpstream::builder().bearer("alice", "right"), &image).await;
    let dir = dir();
    let (right, wrong) = (login(&dir, "alice", "right"), login(&dir, "mallory", "wrong"));
    let world = world(dir)
        .upstream("right", &upstream, &right)
        .upstream("wrong", &upstream, &wrong)
        .upstream("none", &upstream, "")
        .start()
        .await;
    pull_all(&world, "right/library/x", &image).await;
    for name in ["wrong/library/x", "none/library/x"] {
        for method in &METHODS {
            for path in
                [manifest_of(name, "1"), manifest_of(name, &image.digest), blob_of(name, &image.config.0)]
            {
                assert_error(method, &world.ask(method, &path).await, 403, "DENIED");
            }
        }
        let list = world.get(&format!("/v2/{name}/tags/list")).await;
        assert_error(&Method::GET, &list, 403, "DENIED");
    }
    assert_eq!(world.rows("repositories"), 1);
    // Nothing that a client sends is passed on.
    let request = world.request(Method::GET, &manifest_of("none/library/x", "1"));
    let request = request.basic_auth("alice", Some("right")).header("cookie", "session=secret-cookie");
    assert_error(&Method::GET, &world.send(request).await, 403, "DENIED");
    assert!(!shows(&upstream.requests(), &["secret-cookie"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_a_private_repository_is_forbidden_without_a_link() {
    let image = Image::random(1, &[10]);
    let upstream = filled(ChaosUpstream::builder().basic("alice", "right"), &image).await;
    let dir = dir();
    let right = login(&dir, "alice", "right");
    let world = world(dir).upstream("up", &upstream, &right).start().await;
    pull_all(&world, NAME, &image).await;
    for (digest, _) in image.blobs() {
        for method in &METHODS {
            let answer = world.ask(method, &format!("/content/v1/{NAME}/blobs/{digest}")).await;
            assert_error(method, &answer, 403, "DENIED");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_on_another_host_gets_no_request_unless_it_is_allowed() {
    let image = Image::random(1, &[10]);
    let issuer = ChaosUpstream::builder().bearer("alice", "right").start().await;
    let realm = format!("{}/token", issuer.url());
    let builder = ChaosUpstream::builder().bearer("alice", "right").realm_override(&realm).tokens_of(&issuer);
    let upstream = filled(builder, &image).await;
    let dir = dir();
    let (proxy, url) = public(&upstream).await;
    let right = format!("{}\n{}", login(&dir, "alice", "right"), key(&proxy));
    let private = format!("{right}\nallow_private = true");
    let listed = format!("{right}\nrealms = [\"{}\"]", issuer.host());
    let both = format!("{private}\nrealms = [\"{}\"]", issuer.host());
    let mut builder = world(dir);
    for (name, keys) in
        [("not-listed", &right), ("private", &private), ("listed", &listed), ("allowed", &both)]
    {
        builder = builder.bare_upstream(name, &url, keys).namespace(name, name, "prefetch = \"none\"");
    }
    let world = builder.start().await;
    for name in ["not-listed", "private", "listed"] {
        for method in &METHODS {
            let answer = world.ask(method, &manifest_of(&format!("{name}/library/x"), "1")).await;
            assert_error(method, &answer, 502, "UNKNOWN");
        }
        assert!(issuer.requests().is_empty(), "{name}");
    }
    pull_all(&world, "allowed/library/x", &image).await;
    assert_eq!(issuer.token_requests(), 1);
    assert!(shows(&issuer.requests(), &[&STANDARD.encode("alice:right")]));
    assert!(!shows(&upstream.requests(), &[&STANDARD.encode("alice:right")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_carries_no_authorization() {
    for scheme in ["basic", "bearer"] {
        let image = Image::random(1, &[10_000]);
        let builder = ChaosUpstream::builder();
        let builder = if scheme == "basic" {
            builder.basic("alice", "right")
        } else {
            builder.bearer("alice", "right")
        };
        let upstream = filled(builder, &image).await;
        let cdn = ChaosUpstream::start().await;
        for (digest, bytes) in image.blobs() {
            cdn.put_file(&format!("/files/{digest}"), bytes.clone());
            let there = format!("{}/files/{digest}?sig=1", cdn.url());
            upstream.on(Rule::on("*", &format!("/blobs/{digest}")).then(Fault::RedirectTo(there)));
        }
        let dir = dir();
        // Both are at a loopback address: without `allow_private`.
        let right = login(&dir, "alice", "right");
        let world = world(dir).upstream("up", &upstream, &right).start().await;
        pull_all(&world, NAME, &image).await;
        assert_eq!(cdn.requests().len(), 2);
        for seen in cdn.requests() {
            assert!(seen.header("authorization").is_none() && seen.header("cookie").is_none(), "{seen:?}");
            assert_eq!(seen.header("accept-encoding"), Some("identity"));
            assert_eq!(seen.query, "sig=1");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_a_public_upstream_to_a_private_address_is_refused_and_not_followed() {
    let (upstream, image) = with_image().await;
    let inside = ChaosUpstream::start().await;
    inside.put_file("/latest/meta-data", image.config.1.clone());
    let (proxy, url) = public(&upstream).await;
    let keys = format!("{ALWAYS_CHECKED}\n{}", key(&proxy));
    let world = TestWorld::builder()
        .bare_upstream("up", &url, &keys)
        .namespace("up", "up", "prefetch = \"none\"")
        .start()
        .await;
    let port = inside.host().split_once(':').unwrap().1.to_owned();
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433"] {
        upstream.clear_rules();
        let there = format!("http://{host}:{port}/latest/meta-data");
        upstream.on(Rule::on("*", "/v2/").then(Fault::RedirectTo(there)));
        for method in &METHODS {
            for path in [manifest("1"), manifest(&image.digest), blob(&image.config.0)] {
                let answer = world.ask(method, &path).await;
                assert_eq!(answer.status, 502, "{host} {path} {answer:?}");
            }
        }
    }
    for there in
        ["ftp://127.0.0.1/x", "file:///etc/passwd", "", "//", "http://169.254.169.254/latest", "gopher:x"]
    {
        upstream.clear_rules();
        upstream.on(Rule::on("*", "/v2/").then(Fault::RedirectTo(there.to_owned())));
        let answer = world.get(&manifest("1")).await;
        assert_eq!(answer.status, 502, "{there} {answer:?}");
    }
    assert!(inside.requests().is_empty());
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_ten_times_and_no_more() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    let (digest, bytes) = (&image.config.0, &image.config.1);
    upstream.put_file("/hop-10/", bytes.clone());
    upstream.on(Rule::on("GET", digest).then(Fault::RedirectTo("/hop-1/".to_owned())));
    for hop in 1..10 {
        let next = format!("/hop-{}/", hop + 1);
        upstream.on(Rule::on("GET", &format!("/hop-{hop}/")).then(Fault::RedirectTo(next)));
    }
    assert_eq!(world.blob(NAME, digest).await.body, *bytes);
    upstream.clear_rules();
    upstream.clear_requests();
    upstream.on(Rule::on("*", "/v2/").then(Fault::RedirectTo("/v2/again".to_owned())));
    assert_error(&Method::GET, &world.get(&manifest("2")).await, 502, "UNKNOWN");
    assert_eq!(upstream.requests().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_kept_until_it_expires_or_is_refused() {
    let image = Image::random(1, &[10]);
    let upstream = filled(ChaosUpstream::builder().bearer("alice", "right").expires_in(3600), &image).await;
    let dir = dir();
    let keys = format!("{}\ntag_ttl = \"0\"", login(&dir, "alice", "right"));
    let world = world(dir).upstream("up", &upstream, &keys).start().await;
    for _ in 0..5 {
        assert_eq!(world.get(&manifest("1")).await.status, 200);
    }
    assert_eq!(upstream.token_requests(), 1);
    upstream.revoke_tokens();
    upstream.clear_requests();
    let answer = world.get(&manifest("1")).await;
    assert_eq!(answer.header("cache-status"), "tidegate; fwd=stale; fwd-status=304");
    assert_eq!(upstream.token_requests(), 1);
    assert_eq!(upstream.count("HEAD", ""), 2, "refused, and again with a new token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_that_fails_is_an_upstream_that_fails() {
    let image = Image::random(1, &[10]);
    let upstream = filled(ChaosUpstream::builder().bearer("alice", "right"), &image).await;
    let dir = dir();
    let keys = format!("{}\nanswer_timeout = \"500ms\"", login(&dir, "alice", "right"));
    let world =
        world(dir).upstream("up", &upstream, &keys).sections("[api]\nnegative_ttl = \"0\"").start().await;
    for (fault, status) in [
        (Fault::Empty(500), 502),
        (Fault::Empty(404), 502),
        (Fault::Status(200, Vec::new(), "<html>".into()), 502),
        (Fault::Status(200, Vec::new(), "{}".into()), 502),
        (Fault::Status(200, Vec::new(), "{\"token\":\"a\\r\\nb\"}".into()), 502),
        (Fault::Empty(403), 403),
        (Fault::Delay(Duration::MAX), 504),
    ] {
        upstream.clear_rules();
        upstream.on(Rule::on("*", "/token").then(fault.clone()));
        let answer = world.get(&manifest("1")).await;
        assert_eq!(answer.status, status, "{fault:?} {answer:?}");
    }
    upstream.clear_rules();
    pull_all(&world, NAME, &image).await;
}
