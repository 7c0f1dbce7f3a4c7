//! What is slow or stands still holds up nothing else; what runs can be seen.

use std::time::{Duration, Instant};

use bytes::Bytes;
use internal_api::{LinkKey, LinkKeys};
use oci_types::Millis;
use reqwest::StatusCode;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    image::{Image, sha256},
    world::TestWorld,
};

use crate::{
    cold::{Cold, MIB, NAME, REPOSITORY, count, know, sections, within},
    raw::Raw,
};

const PROMPT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_stands_still_is_taken_up_after_the_read_timeout() {
    let upstream = ChaosUpstream::start().await;
    let builder =
        TestWorld::builder().sections(&sections("")).upstream("up", &upstream, "read_timeout = \"2s\"");
    let cold = Cold::build(4 * MIB, upstream, builder).await;
    cold.on_blob(1, [Fault::StallForever(count(3 * MIB))]);
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.asked_ranges(), [String::new(), format!("bytes={}-", 3 * MIB)]);
    cold.assert_upstream_bytes(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_stores_a_blob_before_it_sends_it_is_not_asked_again() {
    let upstream = ChaosUpstream::start().await;
    let builder =
        TestWorld::builder().sections(&sections("")).upstream("up", &upstream, "read_timeout = \"200ms\"");
    let cold = Cold::build(MIB, upstream, builder).await;
    cold.on_blob(usize::MAX, [Fault::Delay(Duration::from_secs(2))]);
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.asked_ranges(), [""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_does_not_begin_in_time_is_a_timeout() {
    let upstream = ChaosUpstream::start().await;
    let keys = "first_byte_timeout = \"100ms\"";
    let builder = TestWorld::builder().sections(&sections("")).upstream("up", &upstream, keys);
    let cold = Cold::build(1000, upstream, builder).await;
    cold.on_blob(usize::MAX, [Fault::Delay(Duration::MAX)]);
    let answer = cold.get(&[]).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_stands_still_takes_no_place_from_another() {
    let (still, lively) = (ChaosUpstream::start().await, ChaosUpstream::start().await);
    let sizes = [100_000, 200_000, 300_000, 400_000, 500_000, 600_000];
    let images = [Image::random(1, &sizes), Image::random(2, &sizes)];
    still.put_image(REPOSITORY, "1", &images[0]);
    lively.put_image(REPOSITORY, "1", &images[1]);
    let limits = sections("max_fills = 4\nmax_fills_per_upstream = 2");
    let builder = TestWorld::builder().sections(&limits).upstream("still", &still, "");
    let world = builder.upstream("lively", &lively, "").start().await;
    still.on(Rule::on("GET", "/blobs/").then(Fault::StallForever(1000)));
    let mut stalled = Vec::new();
    for layer in &images[0].layers {
        let url = know(&world, "still/library/x", &layer.digest).await;
        stalled.push(Raw::ask(&url, &[]).await);
    }
    assert_eventually!(still.count("GET", "/blobs/") == 2, "{}", still.count("GET", "/blobs/"));
    assert_eventually!(world.metric("tidegate_fills_active").await == 6.0);
    let started = Instant::now();
    for layer in &images[1].layers {
        let url = know(&world, "lively/library/x", &layer.digest).await;
        assert!(world.send(world.client().get(url)).await.body == layer.bytes);
    }
    assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
    assert_eq!(still.count("GET", "/blobs/"), 2, "more downloads than allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_downloads_than_allowed_wait_for_their_turn() {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(3, &[MIB, MIB + 1, MIB + 2, MIB + 3]);
    upstream.put_image(REPOSITORY, "1", &image);
    let builder =
        TestWorld::builder().sections(&sections("max_fills_per_upstream = 1")).upstream("up", &upstream, "");
    let world = builder.start().await;
    upstream.on(Rule::on("GET", "/blobs/").then(within(MIB, Duration::from_millis(200))));
    let pulls = image.layers.iter().map(|layer| {
        let world = &world;
        async move {
            let url = know(world, NAME, &layer.digest).await;
            assert!(world.send(world.client().get(url)).await.body == layer.bytes);
        }
    });
    futures::future::join_all(pulls).await;
    let downloads: Vec<_> =
        upstream.requests().into_iter().filter(|seen| seen.path.contains("/blobs/")).collect();
    assert_eq!(downloads.len(), 4);
    assert!(downloads.iter().all(|seen| seen.unfinished == 0), "downloads run at once: {downloads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_internal_api_lists_what_runs_to_whoever_has_the_key() {
    let cold = Cold::start(4 * MIB).await;
    cold.on_blob(1, [Fault::StallForever(count(MIB))]);
    let mut client = cold.raw(&[]).await;
    client.read(MIB - 100_000).await;
    let path = "/internal/v1/fills";
    assert_eq!(cold.world.internal_get(path).await.status, StatusCode::FORBIDDEN);
    let key = std::fs::read_to_string(cold.world.data_dir().join("link.key")).unwrap();
    let keys = LinkKeys::new(key_of(&key), Vec::new());
    let list = || async {
        let signature = keys.sign_request("GET", path, Millis::now());
        let url = format!("{}{path}", cold.world.internal());
        let answer =
            cold.world.client().get(url).header(internal_api::signed_request::SIGNATURE_HEADER, signature);
        let answer = cold.world.send(answer).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()
    };
    assert_eventually!(list().await[0]["present"] == MIB);
    let fill = &list().await[0];
    assert_eq!(fill["digest"], cold.digest);
    assert_eq!((&fill["state"], &fill["readers"]), (&"running".into(), &1.into()));
    assert_eq!(fill["size"], cold.size());
    drop(client);
    assert_eventually!(list().await[0]["readers"] == 0);
}

fn key_of(file: &str) -> LinkKey {
    let secret = hex::decode(file.trim()).unwrap();
    // The id follows from the bytes.
    let digest = sha256(&secret);
    LinkKey::new(&digest.strip_prefix("sha256:").unwrap()[..8], &secret).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_waits_for_a_place_ends_with_its_last_client() {
    let cold = Cold::with(MIB, "max_fills_per_upstream = 1").await;
    cold.on_blob(1, [Fault::StallForever(1000)]);
    let first = crate::raw::Raw::ask(&cold.url, &[]).await;
    assert_eventually!(cold.asked().len() == 1);
    let bytes = Bytes::from_static(b"another blob");
    let digest = sha256(&bytes);
    cold.upstream.put_blob(REPOSITORY, &digest, bytes);
    let url = cold.world.content_url(NAME, &digest).await;
    let second = crate::raw::Raw::ask(&url, &[]).await;
    assert_eventually!(cold.world.metric("tidegate_fills_active").await == 2.0);
    drop(second);
    assert_eventually!(cold.world.metric("tidegate_fills_active").await == 1.0);
    assert_eq!(cold.upstream.count("GET", &digest), 0);
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_only_so_long_for_a_byte_while_the_download_continues() {
    let cold = Cold::with(MIB, "client_wait = \"500ms\"").await;
    cold.on_blob(1, [Fault::Delay(Duration::from_secs(2))]);
    let answer = cold.get(&[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.header("retry-after"), "5");
    assert_eventually!(cold.world.blob_path(&cold.digest).exists());
    cold.assert_served().await;
    assert_eq!(cold.asked_ranges(), [""]);

    let cold = Cold::with(4 * MIB, "client_wait = \"500ms\"").await;
    cold.on_blob(1, [Fault::StallAfter(count(2 * MIB), Duration::from_secs(2))]);
    let answer = cold.raw(&[]).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.rest().await.complete);
    cold.assert_stored().await;
    assert_eq!(cold.asked_ranges(), [""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn eighty_downloads_that_drip_from_two_upstreams_leave_a_place_for_a_third() {
    let (slow, quick) =
        ([ChaosUpstream::start().await, ChaosUpstream::start().await], ChaosUpstream::start().await);
    let builder = TestWorld::builder()
        .sections(&sections(""))
        .upstream("a", &slow[0], "")
        .upstream("b", &slow[1], "")
        .upstream("up", &quick, "");
    let cold = Cold::build(MIB, quick, builder).await;
    let mut drips = Vec::new();
    for layer in 0..80u8 {
        let upstream = usize::from(layer % 2);
        let bytes = Bytes::from(vec![layer; 100_000]);
        let digest = sha256(&bytes);
        slow[upstream].put_blob(REPOSITORY, &digest, bytes);
        slow[upstream].on(Rule::on("GET", &digest).then(Fault::Throttle { bytes_per_second: 1 }));
        let url = cold.world.content_url(&format!("{}/library/x", ["a", "b"][upstream]), &digest).await;
        drips.push(Raw::ask(&url, &[]).await);
    }
    assert_eventually!(cold.world.metric("tidegate_fills_active").await == 80.0);
    let began = Instant::now();
    cold.assert_served().await;
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_drip_yield_to_one_that_waits() {
    let cold = Cold::with(MIB, "max_fills_per_upstream = 2").await;
    let slow = &cold.upstream;
    let mut drips = Vec::new();
    for layer in 0..2 {
        let bytes = Bytes::from(vec![layer; 100_000]);
        let digest = sha256(&bytes);
        slow.put_blob(REPOSITORY, &digest, bytes);
        slow.on(Rule::on("GET", &digest).then(Fault::Throttle { bytes_per_second: 100 }));
        let url = cold.world.content_url(NAME, &digest).await;
        drips.push(crate::raw::Raw::get(&url, &[("range", "bytes=0-9999")]).await);
    }
    assert_eventually!(cold.world.metric("tidegate_fills_active").await == 2.0);
    cold.assert_served().await;
    cold.assert_stored().await;
    drop(drips);
}
