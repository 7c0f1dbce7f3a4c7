//! Health, metrics, error bodies: what operators and scripts rely on.

use std::{collections::BTreeSet, fmt::Write as _, fs, sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use shared_models::test_postgres::TestPostgres;
use tidegate_tests::{
    assert_eventually,
    chaos::{Fault, Rule},
    process::tidegate,
    world::{Answer, TestWorld},
};

use crate::support::*;

/// Status, headers but `date`, and body, as a client sees them.
fn shown(what: &str, answer: &Answer) -> String {
    let mut text = format!("{what}\n{}\n", answer.status.as_u16());
    let varying = ["date", "x-request-id"];
    let mut headers: Vec<_> =
        answer.headers.iter().filter(|(name, _)| !varying.contains(&name.as_str())).collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in headers {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    text + "\n" + &String::from_utf8_lossy(&answer.body) + "\n\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn error_bodies_and_headers_are_these() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder()
        .bare_upstream("up", &upstream.url(), ALWAYS_CHECKED)
        .bare_upstream("off", &upstream.url(), "offline = true")
        .namespace("up", "up", "prefetch = \"none\"\nexclude = [\"secret/**\"]")
        .namespace("off", "off", "")
        .start()
        .await;
    for failing in failures() {
        upstream.on(Rule::on("*", &format!("/manifests/{}", failing.what)).then(failing.fault));
    }
    let mut paths: Vec<_> = failures().iter().map(|failing| manifest(failing.what)).collect();
    paths.extend([
        blob(&image.digest),
        "/v2/up/library/none/tags/list".to_owned(),
        manifest_of("off/library/x", "1"),
        manifest_of("nowhere/x", "1"),
        manifest_of("up/secret/x", "1"),
        manifest_of("up/X", "1"),
        manifest("-"),
        manifest("sha256:0"),
        "/v2/_catalog?n=x".to_owned(),
        "/v2/_catalog?last=X".to_owned(),
        "/content/v1/up/library/x/blobs/sha256:0".to_owned(),
        "/nothing".to_owned(),
    ]);
    let mut text = String::new();
    let host = upstream.url().trim_start_matches("http://").to_owned();
    for path in &paths {
        let mut answer = world.get(path).await;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if let Some((before, _)) = body.split_once(&host) {
            // The text of the system and the length of the port differ from run to run.
            answer.body = format!("{before}HOST: CAUSE\"}}]}}").into();
            answer.headers.remove("content-length");
        }
        text += &shown(&format!("GET {path}"), &answer);
    }
    text += &shown("POST /v2/", &world.ask(&Method::POST, "/v2/").await);
    insta::assert_snapshot!(text);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_their_headers_are_these() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    let mut text = shown("GET /v2/", &world.get("/v2/").await);
    text += &shown("GET a cold tag", &world.get(&manifest("1")).await);
    text += &shown("HEAD a known tag", &world.head(&manifest("1")).await);
    text += &shown("GET a digest", &world.get(&manifest(&image.digest)).await);
    text += &shown("HEAD a blob", &world.head(&blob(&image.config.0)).await);
    text += &shown("GET bytes", &world.blob(NAME, &image.config.0).await);
    let redirect = world.get(&blob(&image.config.0)).await;
    let content = format!("{}/content/v1/up/library/x/blobs/sha256:", world.api());
    assert!(redirect.header("location").starts_with(&content), "{redirect:?}");
    let mut unsigned = redirect.clone();
    unsigned.headers.remove("location");
    text += &shown("GET a blob", &unsigned);
    insta::assert_snapshot!(text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ids_of_a_request_are_in_its_answer() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for path in ["/v2/", &manifest("1"), &manifest("unknown"), "/no/route"] {
        let request =
            world.request(Method::GET, path).header("x-request-id", "a-1").header("traceparent", trace);
        let answer = world.send(request).await;
        assert_eq!((answer.header("x-request-id"), answer.header("traceparent")), ("a-1", trace), "{path}");
        let request =
            world.request(Method::GET, path).header("x-request-id", "a b").header("traceparent", "x");
        let answer = world.send(request).await;
        assert_eq!((answer.header("x-request-id").len(), answer.header("traceparent")), (16, ""), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_these_names_and_labels() {
    let (upstream, image) = with_image().await;
    upstream.set_rate_limit(100, 50);
    let world = TestWorld::builder()
        .bare_upstream("up", &upstream.url(), "")
        .namespace("up", "up", "")
        .sections("[jobs]\nworkers = 0")
        .start()
        .await;
    world.get(&manifest("1")).await;
    world.get(&manifest("2")).await;
    upstream.on(Rule::on("GET", &image.config.0).times(1).then(Fault::CutAfter(100)));
    for (digest, bytes) in image.blobs() {
        world.blob(NAME, digest).await;
        world.assert_stored(digest, bytes).await;
    }
    assert_eventually!(within Duration::from_secs(20), world.metrics().await.contains("tidegate_storage_bytes{"));
    let mut names = BTreeSet::new();
    for line in world.metrics().await.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
        let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
        let keys: Vec<_> = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).collect();
        names.insert(format!("{name}{{{}}}", keys.join(",")));
    }
    insta::assert_snapshot!(names.into_iter().collect::<Vec<_>>().join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_shows_in_the_metrics() {
    let (upstream, _) = with_image().await;
    let keys = "breaker_failures = 1\nbreaker_open_for = \"5m\"";
    let world = TestWorld::builder().upstream("up", &upstream, keys).start().await;
    upstream.stop();
    world.get(&manifest("1")).await;
    let open = "tidegate_upstream_circuit_open{upstream=\"up\"}";
    assert_eq!(world.metric(open).await, 1.0);
    let unanswered = "tidegate_upstream_requests_total{upstream=\"up\",method=\"HEAD\",code=\"0\"}";
    assert_eq!(world.metric(unanswered).await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_counted_under_the_pattern_of_its_path() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let manifests = "/v2/{name:.+}/manifests/{reference:[^/]*}";
    for (service, path, route, code) in [
        ("registry-api", "/v2", "/v2", 200),
        ("registry-api", "/v2/", "/v2/", 200),
        ("registry-api", "/v2/_catalog", "/v2/_catalog", 200),
        ("registry-api", &manifest("1"), manifests, 200),
        ("registry-api", "/v2/up%2Flibrary/x/%6danifests/%31", manifests, 200),
        ("registry-api", &manifest("2"), manifests, 404),
        ("registry-api", &blob(&image.config.0), "/v2/{name:.+}/blobs/{digest:[^/]*}", 307),
        ("registry-api", "/v2/up/library/x/tags/list", "/v2/{name:.+}/tags/list", 200),
        ("registry-api", "/v2/up/library/x", "unmatched", 404),
        ("registry-api", "/v2x", "unmatched", 404),
        ("registry-api", "/api/v1/jobs", "/api/v1/jobs", 200),
        ("content-app", "/content/v1/x/blobs/y", "/content/v1/{repository:.+}/blobs/{digest}", 403),
    ] {
        let series = format!(
            "tidegate_http_requests_total{{service=\"{service}\",route=\"{route}\",code=\"{code}\"}}"
        );
        let before = world.metric(&series).await;
        assert_eq!(world.get(path).await.status, code, "{path}");
        assert_eq!(world.metric(&series).await, before + 1.0, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_counted_by_upstream_kind_and_outcome() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    for _ in 0..2 {
        world.get(&manifest("1")).await;
        world.get(&manifest("2")).await;
    }
    world.blob(NAME, &image.config.0).await;
    let pulls = |kind, outcome| {
        format!("tidegate_pulls_total{{upstream=\"up\",kind=\"{kind}\",outcome=\"{outcome}\"}}")
    };
    for (kind, outcome, count) in [
        ("manifest", "miss", 1.0),
        ("manifest", "hit", 2.0),
        ("manifest", "error", 1.0),
        ("manifest", "negative", 1.0),
        ("blob", "miss", 1.0),
    ] {
        assert_eq!(world.metric(&pulls(kind, outcome)).await, count, "{kind} {outcome}");
    }
    let requests = "tidegate_upstream_requests_total{upstream=\"up\",method=\"HEAD\",code=\"200\"}";
    assert_eq!(world.metric(requests).await, 1.0);
    let received = world.metric("tidegate_upstream_bytes_total{upstream=\"up\"}").await;
    assert_eq!(received.to_string(), (image.manifest.len() + image.config.1.len()).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_and_readiness_are_told_on_the_internal_listener_alone() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    upstream.stop();
    for (path, body) in [("/livez", "ok\n"), ("/readyz", "ready\n")] {
        let answer = world.internal_get(path).await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, body.as_bytes()));
        assert_eq!(world.get(path).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(world.internal_get("/v2/").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_makes_it_not_ready_and_its_answers_503() {
    let (upstream, image) = with_image().await;
    let postgres = Arc::new(tokio::task::spawn_blocking(TestPostgres::start).await.unwrap().unwrap());
    let url = postgres.create_database("gone").unwrap();
    let sections = format!(
        "[api]\ncache_max_age = \"0\"\nmanifest_cache_bytes = 0\n[database]\nurl = \"{url}\"\nwait = \"500ms\""
    );
    let world = TestWorld::builder().upstream("up", &upstream, "").sections(&sections).start().await;
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
    assert_eq!(world.internal_get("/readyz").await.status, StatusCode::OK);
    upstream.clear_requests();
    let server = Arc::clone(&postgres);
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap().unwrap();
    let ready = world.internal_get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{ready:?}");
    let body: serde_json::Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!(body[0]["check"], "database");
    assert_eq!(world.internal_get("/livez").await.status, StatusCode::OK);
    for method in &METHODS {
        for path in [manifest("1"), manifest(&image.digest), blob(&image.config.0), manifest("2")] {
            let answer = world.ask(method, &path).await;
            assert_error(method, &answer, 503, "UNAVAILABLE");
            assert_eq!(answer.header("retry-after"), "5", "{path}");
        }
    }
    for path in ["/v2/_catalog", "/api/v1/jobs"] {
        assert_error(&Method::GET, &world.get(path).await, 503, "UNAVAILABLE");
    }
    assert!(upstream.requests().is_empty());
    let server = Arc::clone(&postgres);
    tokio::task::spawn_blocking(move || server.start_again()).await.unwrap().unwrap();
    assert_eventually!(world.internal_get("/readyz").await.status == StatusCode::OK);
    assert_eventually!(world.get(&manifest("1")).await.status == StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_cannot_run_ends_as_an_error_of_ours() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder()
        .upstream("up", &upstream, "")
        .sections("[api]\ncache_max_age = \"0\"")
        .start()
        .await;
    world.get(&manifest("1")).await;
    world.execute("ALTER TABLE tags RENAME TO lost");
    assert_error(&Method::GET, &world.get(&manifest("1")).await, 500, "UNKNOWN");
    world.execute("ALTER TABLE lost RENAME TO tags");
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_cannot_be_written_makes_it_not_ready_but_alive() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    // Tests may run as root, whom no permission stops: a file where the folder should be does.
    for folder in fs::read_dir(world.data_dir()).unwrap().map(|entry| entry.unwrap().path()) {
        if folder.is_dir() {
            fs::rename(&folder, folder.with_extension("away")).unwrap();
            fs::write(&folder, "").unwrap();
        }
    }
    let answer = world.internal_get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body[0]["check"], "storage");
    assert_eq!(world.internal_get("/livez").await.status, StatusCode::OK);
    // Manifests need no storage.
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
    assert!(world.blob(NAME, &image.config.0).await.status.is_server_error());
}

#[tokio::test]
async fn a_content_node_that_others_could_not_tell_apart_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let ran = tidegate()
        .args(["content-app", "--data-dir", folder.path().to_str().unwrap()])
        .env("TIDEGATE_CONTENT__LISTEN", "127.0.0.1:0")
        .env("TIDEGATE_CONTENT__INTERNAL_LISTEN", "0.0.0.0:0")
        .run()
        .await;
    assert!(ran.status.is_some_and(|status| !status.success()), "{ran:?}");
    let wrong = "TIDEGATE_CONTENT__INTERNAL_LISTEN: 0.0.0.0:0 is not the address of one node: set `content.internal_url`";
    assert!(ran.stderr.contains(wrong), "{ran:?}");
}
