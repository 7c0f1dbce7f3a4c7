//! Quotas, circuits and time: when an upstream is left alone, and when it is asked again.

use std::time::{Duration, Instant};

use reqwest::Method;
use tidegate_tests::{
    assert_eventually,
    chaos::{Fault, Rule},
    image::Image,
    world::TestWorld,
};

use crate::support::*;

/// The state of the upstream `up` as the admin API tells it.
async fn state(world: &TestWorld) -> serde_json::Value {
    world.json("/api/v1/upstreams").await[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_circuit_opens_after_failures_in_a_row_and_one_probe_closes_it() {
    let (upstream, image) = with_image().await;
    upstream.move_tag(UPSTREAM_NAME, "known", &image.digest);
    let keys = "tag_ttl = \"0\"\nbreaker_failures = 3\nbreaker_open_for = \"5s\"";
    let world = TestWorld::builder().upstream("up", &upstream, keys).start().await;
    world.get(&manifest("known")).await;
    upstream.on(Rule::on("*", "").then(unavailable()));
    for _ in 0..3 {
        assert_error(&Method::GET, &world.get(&manifest("1")).await, 502, "UNKNOWN");
    }
    upstream.clear_requests();
    for method in &METHODS {
        for path in [manifest("1"), manifest(&image.config.0), blob(&image.digest)] {
            let answer = world.ask(method, &path).await;
            assert_error(method, &answer, 503, "UNAVAILABLE");
            assert!(matches!(answer.header("retry-after"), "1" | "2" | "3" | "4" | "5"), "{answer:?}");
        }
        let known = world.ask(method, &manifest("known")).await;
        assert_image(method, &known, &image);
        assert!(known.header("cache-status").ends_with("; detail=stale-upstream-503"), "{known:?}");
    }
    assert!(upstream.requests().is_empty());
    assert!(state(&world).await["circuit_open_for"].is_u64());
    upstream.clear_rules();
    assert_eventually!(world.get(&manifest("1")).await.status == 200);
    assert_eq!(upstream.count("HEAD", "/manifests/1"), 1, "one probe");
    assert!(state(&world).await["circuit_open_for"].is_null());
    assert_eq!(world.get(&manifest("2")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_fails_opens_the_circuit_again() {
    let (upstream, _) = with_image().await;
    let keys = "breaker_failures = 1\nbreaker_open_for = \"2s\"";
    let world = TestWorld::builder().upstream("up", &upstream, keys).start().await;
    upstream.on(Rule::on("*", "").then(unavailable()));
    for asked in 1..=3 {
        assert_eventually!(world.get(&manifest("1")).await.status == 502);
        assert_eq!(upstream.requests().len(), asked);
        assert_eq!(world.get(&manifest("1")).await.status, 503);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_failures_keep_the_circuit_closed() {
    let (upstream, _) = with_image().await;
    let keys = "breaker_failures = 1\ntag_ttl = \"0\"";
    let world = TestWorld::builder()
        .upstream("up", &upstream, keys)
        .sections("[api]\nnegative_ttl = \"0\"")
        .start()
        .await;
    for status in [404, 401, 403, 429, 418] {
        upstream.clear_rules();
        upstream.on(Rule::on("*", "").then(Fault::Empty(status)));
        assert_ne!(world.get(&manifest("1")).await.status, 503, "{status}");
    }
    upstream.clear_rules();
    assert_eq!(world.get(&manifest("1")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_upstream_that_fails_does_not_slow_another() {
    let (dead, _) = with_image().await;
    let (alive, image) = with_image().await;
    dead.on(Rule::on("*", "").then(Fault::Delay(Duration::MAX)));
    let world = TestWorld::builder().upstream("dead", &dead, "").upstream("alive", &alive, "").start().await;
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            world.request(Method::GET, &manifest_of("dead/library/x", &format!("t{number}"))).send()
        })
        .map(tokio::spawn)
        .collect();
    assert_eventually!(dead.requests().len() == 20);
    let started = Instant::now();
    assert_image(&Method::GET, &world.get(&manifest_of("alive/library/x", "1")).await, &image);
    for (digest, bytes) in image.blobs() {
        assert!(world.blob("alive/library/x", digest).await.body == *bytes);
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_is_read_shown_and_spent_by_first_pulls_alone() {
    let (upstream, image) = with_image().await;
    upstream.set_rate_limit(100, 50);
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for _ in 0..3 {
        assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
    }
    let state = state(&world).await;
    assert_eq!((&state["ratelimit_limit"], &state["ratelimit_remaining"]), (&100.into(), &49.into()));
    let remaining = "tidegate_upstream_ratelimit_remaining{upstream=\"up\"}";
    assert_eventually!(world.metric(remaining).await == 49.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_quota_is_told_to_new_pulls_and_hidden_from_known_ones() {
    let (upstream, image) = with_image().await;
    upstream.set_rate_limit(100, 1);
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
    let other = Image::random(2, &[10]);
    upstream.put_image(UPSTREAM_NAME, "2", &other);
    let refused = world.get(&manifest("2")).await;
    assert_error(&Method::GET, &refused, 429, "TOOMANYREQUESTS");
    assert_eq!(refused.header("retry-after"), "60");
    upstream.put_image(UPSTREAM_NAME, "1", &other);
    let stale = world.get(&manifest("1")).await;
    assert_image(&Method::GET, &stale, &image);
    assert!(stale.header("cache-status").ends_with("; detail=stale-upstream-429"), "{stale:?}");
    assert_eq!(state(&world).await["retry_after"].as_u64().unwrap().div_ceil(10), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_only_clients_go_upstream() {
    let (upstream, image) = with_image().await;
    let index = tidegate_tests::image::Index::of(&[&image, &Image::random(7, &[400])]);
    upstream.put_index(UPSTREAM_NAME, "all", &index);
    upstream.set_rate_limit(100, 11);
    let world = TestWorld::builder()
        .bare_upstream("up", &upstream.url(), "ratelimit_reserve = 10")
        .namespace("up", "up", "prefetch = \"all\"")
        .start()
        .await;
    // The index takes the last one above the reserve: the task may not fetch its children.
    assert_eq!(world.get(&manifest("all")).await.status, 200);
    assert_eventually!(world.json("/api/v1/jobs").await[0]["attempts"] == 1);
    assert_eventually!(world.json("/api/v1/jobs").await[0]["state"] == "queued");
    let task = world.json("/api/v1/jobs").await[0].clone();
    assert_eq!(task["error"], "upstream rate limited");
    assert_eq!((upstream.count("GET", "/manifests/"), upstream.count("*", "/blobs/")), (1, 0));
    // A client may.
    assert_image(&Method::GET, &world.get(&manifest(&image.digest)).await, &image);
    assert_eq!(world.blob(NAME, &image.config.0).await.body, image.config.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_an_upstream_are_limited_and_wait_in_a_bounded_queue() {
    let (upstream, _) = with_image().await;
    let keys = "max_requests = 4\nmax_queued_requests = 8\nanswer_timeout = \"1m\"";
    let world = TestWorld::builder().upstream("up", &upstream, keys).start().await;
    upstream.on(Rule::on("*", "").then(Fault::Delay(Duration::MAX)));
    let world = std::sync::Arc::new(world);
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..40 {
        let world = std::sync::Arc::clone(&world);
        asked.spawn(async move { world.head(&manifest(&format!("t{number}"))).await.status.as_u16() });
    }
    for _ in 0..40 - 4 - 8 {
        assert_eq!(asked.join_next().await.unwrap().unwrap(), 503);
    }
    assert_eq!(upstream.requests().len(), 4);
    // The clients hang up: the queue is served all the same, one after another.
    asked.abort_all();
    upstream.clear_rules();
    upstream.stop();
    upstream.restart().await;
    assert_eventually!(world.get(&manifest("1")).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_list_is_cut_to_the_maximum_whatever_the_upstream_sends() {
    let (upstream, image) = with_image().await;
    for number in 0..30 {
        upstream.move_tag(UPSTREAM_NAME, &format!("t{number:02}"), &image.digest);
    }
    let world = TestWorld::builder()
        .upstream("up", &upstream, "")
        .sections("[api]\nmax_page_size = 10")
        .start()
        .await;
    let mut path = format!("/v2/{NAME}/tags/list");
    let mut listed = Vec::new();
    for _ in 0..4 {
        let page = world.get(&path).await;
        let body: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        let tags = body["tags"].as_array().unwrap();
        assert!(tags.len() <= 10, "{tags:?}");
        listed.extend(tags.iter().map(|tag| tag.as_str().unwrap().to_owned()));
        let Some((next, _)) = page.header("link").strip_prefix('<').and_then(|link| link.split_once('>'))
        else {
            break;
        };
        path = next.to_owned();
    }
    assert_eq!(listed.len(), 31, "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_list_of_millions_of_tags_or_without_an_end_is_refused() {
    const ENDLESS: u64 = 1 << 30;
    let (upstream, _) = with_image().await;
    let many = format!("{{\"tags\":[\"a\"{}]}}", ",\"a\"".repeat(3_000_000));
    upstream.on(Rule::on("GET", "/many/tags/list").then(Fault::Status(200, Vec::new(), many.into())));
    let endless = Rule::on("GET", "/endless/tags/list");
    let body = bytes::Bytes::from("{\"tags\":[\"a\"]}");
    upstream.on(endless
        .then(Fault::Status(200, Vec::new(), body))
        .then(Fault::LongerBy(ENDLESS))
        .then(Fault::NoContentLength));
    let world = TestWorld::start(&upstream).await;
    for name in ["many", "endless"] {
        let answer = world.get(&format!("/v2/up/{name}/tags/list")).await;
        assert_error(&Method::GET, &answer, 400, "UNSUPPORTED");
        let message = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(message.contains("more than 200000 tags"), "{message}");
    }
    let received: u64 = upstream.requests().iter().map(|request| request.body_bytes).sum();
    assert!(received < ENDLESS / 8, "{received} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_tag_lists_of_several_pages_are_collected_one_after_another() {
    const PAUSE: Duration = Duration::from_secs(2);
    let (upstream, _) = with_image().await;
    let tags = |count: usize| (0..count).map(|number| format!("\"{number:0100}\"")).collect::<Vec<_>>();
    for (name, first) in [("a", tags(20_000)), ("b", tags(20_000)), ("small", tags(10))] {
        let next = format!("</v2/{name}/tags/list?last=x>; rel=\"next\"");
        let first = format!("{{\"tags\":[{}]}}", first.join(","));
        let first = Fault::Status(200, vec![("Link".to_owned(), next)], first.into());
        upstream.on(Rule::on("GET", &format!("/{name}/tags/list?n=")).then(first));
        let last = Fault::Status(200, Vec::new(), "{\"tags\":[\"last\"]}".into());
        upstream.on(Rule::on("GET", &format!("/{name}/tags/list?last=x"))
            .then(last)
            .then(Fault::Delay(if name == "a" { PAUSE } else { Duration::ZERO })));
    }
    let world = TestWorld::builder().upstream("up", &upstream, "metadata_memory = \"16MiB\"").start().await;
    let [a, b] = ["a", "b"].map(|name| format!("/v2/up/{name}/tags/list?last={:0100}", 19_999));
    let (a, b) = tokio::join!(world.get(&a), async {
        assert_eventually!(upstream.count("GET", "/a/tags/list?last=x") == 1);
        let small = world.json("/v2/up/small/tags/list").await;
        assert_eq!(small["tags"].as_array().unwrap().len(), 11);
        world.get(&b).await
    });
    for answer in [a, b] {
        assert!(answer.body.ends_with(b"\"tags\":[\"last\"]}"), "{answer:?}");
    }
    let requests = upstream.requests();
    let last = requests.iter().rfind(|request| request.path.contains("/b/") && request.query == "last=x");
    assert_eq!(last.unwrap().unfinished, 0, "that of the other list has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_many_large_images_links_a_bounded_number_of_blobs() {
    let upstream = tidegate_tests::chaos::ChaosUpstream::start().await;
    let digest = |text: String| tidegate_tests::image::sha256(text.as_bytes());
    let descriptor = |digest: &str| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":9}}"#)
    };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let mut children = Vec::new();
    for child in 0..8 {
        let layers: Vec<_> =
            (0..5_000).map(|layer| descriptor(&digest(format!("{child} {layer}")))).collect();
        let config = descriptor(&digest(format!("config {child}")));
        let body = format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        let child = digest(body.clone());
        upstream.put_manifest("library/many", &child, media_type, body.clone().into());
        upstream.put_manifest("library/many", "1", media_type, body.into());
        children.push(format!(r#"{{"mediaType":"{media_type}","digest":"{child}","size":9}}"#));
    }
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index =
        format!(r#"{{"schemaVersion":2,"mediaType":"{index_type}","manifests":[{}]}}"#, children.join(","));
    upstream.put_manifest("library/many", "index", index_type, index.clone().into());
    let world = TestWorld::start(&upstream).await;
    for child in &children {
        let child = child.split('"').nth(7).unwrap();
        assert_eq!(world.get(&format!("/v2/up/library/many/manifests/{child}")).await.status, 200);
    }
    // Another repository gets the index, whose children are stored.
    upstream.put_manifest("library/index", "1", index_type, index.into());
    let before = world.rows("repository_blobs");
    assert_eq!(world.get("/v2/up/library/index/manifests/1").await.status, 200);
    let linked = world.rows("repository_blobs") - before;
    assert!((10_000..=20_000).contains(&linked), "{linked} of 40,008");
}
