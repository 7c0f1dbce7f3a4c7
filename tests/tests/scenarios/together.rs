//! Many clients at once cost upstream what one client costs.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    world::{Answer, TestWorld},
};

use crate::support::*;

const CLIENTS: usize = 50;

/// Long enough that clients meet while upstream is asked.
const PAUSE: Duration = Duration::from_millis(400);

/// Long enough that all do, however busy the machine is.
const LONG_PAUSE: Duration = Duration::from_secs(2);

async fn all_ask(world: &TestWorld, method: &Method, path: &str) -> Vec<Answer> {
    join_all((0..CLIENTS).map(|_| world.ask(method, path))).await
}

fn slow(upstream: &ChaosUpstream) {
    slow_by(upstream, PAUSE);
}

fn slow_by(upstream: &ChaosUpstream, pause: Duration) {
    upstream.on(Rule::on("*", "").then(Fault::Delay(pause)));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_first_pulls_of_one_tag_make_one_head_one_get_and_one_task() {
    for method in &METHODS {
        let (upstream, image) = with_image().await;
        slow(&upstream);
        let world = TestWorld::builder()
            .bare_upstream("up", &upstream.url(), "")
            .namespace("up", "up", "prefetch = \"all\"")
            .sections("[jobs]\nworkers = 0")
            .start()
            .await;
        for answer in all_ask(&world, method, &manifest("1")).await {
            assert_image(method, &answer, &image);
        }
        for answer in all_ask(&world, &Method::GET, &manifest(&image.digest)).await {
            assert_image(&Method::GET, &answer, &image);
        }
        assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (1, 1));
        // The job is queued after the answer.
        assert_eventually!(world.live_jobs() == 1);
        assert_eq!((world.rows("tags"), world.rows("manifests")), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_joined_are_told_and_counted() {
    let (upstream, _) = with_image().await;
    slow_by(&upstream, LONG_PAUSE);
    let world = TestWorld::start(&upstream).await;
    let answers = all_ask(&world, &Method::GET, &manifest("1")).await;
    let with = |status: &str| answers.iter().filter(|answer| answer.header("cache-status") == status).count();
    assert_eq!(with("tidegate; fwd=miss; stored"), 1);
    assert_eq!(with("tidegate; fwd=miss; stored; collapsed"), CLIENTS - 1);
    let collapsed = "tidegate_pulls_total{upstream=\"up\",kind=\"manifest\",outcome=\"collapsed\"}";
    assert_eq!(world.metric(collapsed).await, 49.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_asks_for_a_stale_tag_make_one_check() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder()
        .upstream("up", &upstream, "tag_ttl = \"0\"")
        .sections("[api]\nrevalidate_wait = \"20s\"")
        .start()
        .await;
    world.get(&manifest("1")).await;
    upstream.clear_requests();
    slow_by(&upstream, LONG_PAUSE);
    for answer in all_ask(&world, &Method::GET, &manifest("1")).await {
        assert_image(&Method::GET, &answer, &image);
    }
    assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_asks_by_digest_make_one_get_and_through_a_second_upstream_one_head() {
    let (first, image) = with_image().await;
    let (second, _) = with_image().await;
    slow(&first);
    slow(&second);
    let world = TestWorld::builder().upstream("up", &first, "").upstream("two", &second, "").start().await;
    for name in [NAME, "two/library/x"] {
        for answer in all_ask(&world, &Method::GET, &manifest_of(name, &image.digest)).await {
            assert_image(&Method::GET, &answer, &image);
        }
    }
    assert_eq!((first.count("HEAD", ""), first.count("GET", "")), (0, 1));
    assert_eq!((second.count("HEAD", ""), second.count("GET", "")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_asks_for_an_unknown_blob_or_a_tag_list_make_one_request() {
    let (upstream, image) = with_image().await;
    slow(&upstream);
    let world = TestWorld::start(&upstream).await;
    for method in &METHODS {
        for answer in all_ask(&world, method, &blob(&image.config.0)).await {
            assert!(matches!(answer.status.as_u16(), 200 | 307), "{answer:?}");
        }
    }
    for answer in all_ask(&world, &Method::GET, "/v2/up/library/x/tags/list").await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_share_one_failure() {
    let upstream = ChaosUpstream::start().await;
    slow(&upstream);
    let world = TestWorld::start(&upstream).await;
    for answer in all_ask(&world, &Method::GET, &manifest("1")).await {
        assert_error(&Method::GET, &answer, 404, "MANIFEST_UNKNOWN");
    }
    assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_first_pulls_need_one_token() {
    let upstream = ChaosUpstream::builder().anonymous_bearer().start().await;
    let images: Vec<_> = (0..10).map(|seed| tidegate_tests::image::Image::random(seed, &[10])).collect();
    for (image, tag) in images.iter().zip(0..) {
        upstream.put_image(UPSTREAM_NAME, &format!("t{tag}"), image);
    }
    slow(&upstream);
    let world = TestWorld::start(&upstream).await;
    let asked = (0..CLIENTS).map(|client| {
        let (world, image) = (&world, &images[client % 10]);
        async move { (image, world.get(&manifest(&format!("t{}", client % 10))).await) }
    });
    for (image, answer) in join_all(asked).await {
        assert_image(&Method::GET, &answer, image);
    }
    assert_eq!(upstream.token_requests(), 1);
}
