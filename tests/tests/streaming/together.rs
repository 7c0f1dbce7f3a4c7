//! Many clients, one download.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::StatusCode;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault},
    image::Image,
    world::TestWorld,
};

use crate::cold::{Cold, MIB, NAME, REPOSITORY, know, sections, within};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_share_one_download_and_have_their_first_bytes_at_once() {
    let cold = Cold::start(10 * MIB).await;
    cold.on_blob(1, [within(10 * MIB, Duration::from_secs(8))]);
    let clients = join_all((0..50).map(|_| async {
        let mut client = cold.raw(&[]).await;
        let first = client.read(MIB / 2).await;
        let sent = cold.upstream_bytes();
        let rest = client.rest().await;
        assert!(rest.complete);
        assert!(first == cold.bytes[..MIB / 2] && rest.bytes == cold.bytes[MIB / 2..]);
        sent
    }));
    for sent in clients.await {
        assert!(sent < cold.size() / 10 * 9, "the first bytes came when upstream had sent {sent}");
    }
    assert_eq!(cold.asked_ranges(), [""]);
    cold.assert_upstream_bytes(0);
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_at_full_speed_get_fifty_right_bodies() {
    let cold = Cold::start(20 * MIB).await;
    join_all((0..50).map(|_| cold.assert_served())).await;
    assert_eq!(cold.asked().len(), 1);
    cold.assert_upstream_bytes(0);
    cold.assert_stored().await;
    assert_eq!(cold.get(&[]).await.header("cache-status"), "tidegate; hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_in_the_moment_when_a_download_ends_starts_no_other() {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(7, &[70_000, 70_001, 70_002, 70_003, 70_004, 70_005]);
    upstream.put_image(REPOSITORY, "1", &image);
    let world = TestWorld::builder().sections(&sections("")).upstream("up", &upstream, "").start().await;
    for layer in &image.layers {
        let url = know(&world, NAME, &layer.digest).await;
        let pulls = (0..100).map(|_| world.send(world.client().get(&url)));
        assert!(join_all(pulls).await.iter().all(|answer| answer.body == layer.bytes));
        assert_eq!(upstream.count("GET", &layer.digest), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_says_so_in_cache_status() {
    let cold = Cold::start(5 * MIB).await;
    cold.on_blob(1, [within(5 * MIB, Duration::from_millis(600))]);
    let first = cold.raw(&[]).await;
    assert_eq!((first.status, first.header("cache-status")), (200, "tidegate; fwd=miss; stored"));
    let second = cold.raw(&[]).await;
    assert_eq!(second.header("cache-status"), "tidegate; fwd=miss; stored; collapsed");
    for (name, value) in [
        ("content-length", cold.size().to_string()),
        ("docker-content-digest", cold.digest.clone()),
        ("etag", format!("\"{}\"", cold.digest)),
        ("accept-ranges", "bytes".to_owned()),
        ("cache-control", "private, max-age=31536000, immutable, no-transform".to_owned()),
        ("content-type", "application/octet-stream".to_owned()),
    ] {
        assert_eq!(second.header(name), value, "{name}");
    }
    assert!(first.rest().await.bytes == cold.bytes && second.rest().await.bytes == cold.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_nobody() {
    let cold = Cold::start(20 * MIB).await;
    let mut slow = cold.raw(&[]).await;
    assert!(slow.read(1000).await == cold.bytes[..1000]);
    // It reads no more, and all the others finish.
    let started = Instant::now();
    join_all((0..5).map(|_| cold.assert_served())).await;
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    cold.assert_stored().await;
    // It has lost nothing by it.
    let rest = slow.rest().await;
    assert!(rest.complete && rest.bytes == cold.bytes[1000..]);
    cold.assert_upstream_bytes(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_at_sixty_percent_gets_the_beginning_at_once_and_all_of_it() {
    let cold = Cold::start(10 * MIB).await;
    cold.on_blob(1, [within(10 * MIB, Duration::from_secs(5))]);
    let early = cold.raw(&[]).await;
    cold.until_sent(cold.percent(60)).await;
    let mut late = cold.raw(&[]).await;
    let beginning = late.read(cold.percent(50)).await;
    assert!(cold.upstream_bytes() < cold.size(), "the late one had to wait for the end");
    assert!(beginning == cold.bytes[..cold.percent(50)]);
    let (early, late) = tokio::join!(early.rest(), late.rest());
    assert!(early.complete && early.bytes == cold.bytes);
    assert!(late.complete && late.bytes == cold.bytes[cold.percent(50)..]);
    assert_eq!(cold.asked().len(), 1);
    cold.assert_upstream_bytes(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_held_back_until_the_blob_is_verified() {
    let cold = Cold::start(4 * MIB).await;
    let size = cold.size();
    cold.on_blob(1, [Fault::StallForever(size - 1)]);
    let held_back = 64 * 1024;
    for range in [&[][..], &[("range", "bytes=0-")][..]] {
        let mut client = cold.raw(range).await;
        assert_eq!(client.status, if range.is_empty() { 200 } else { 206 });
        client.read(cold.bytes.len() - held_back).await;
        let more = tokio::time::timeout(Duration::from_millis(200), client.read(1)).await;
        assert!(more.is_err(), "a byte came that nothing vouches for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_removed_while_it_is_read_is_read_to_its_end() {
    let cold = Cold::start(20 * MIB).await;
    let mut during = cold.raw(&[]).await;
    during.read(1000).await;
    cold.assert_stored().await;
    let mut warm = cold.raw(&[]).await;
    assert_eq!(warm.header("cache-status"), "tidegate; hit");
    warm.read(1000).await;
    std::fs::remove_file(cold.world.blob_path(&cold.digest)).unwrap();
    for client in [during, warm] {
        let rest = client.rest().await;
        assert!(rest.complete && rest.bytes == cold.bytes[1000..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_cold_blob_downloads_nothing() {
    let cold = Cold::start(MIB).await;
    let head = cold.world.send(cold.world.client().head(&cold.url)).await;
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.header("content-length"), cold.size().to_string());
    assert_eq!(head.header("docker-content-digest"), cold.digest);
    let ranged = cold.world.client().head(&cold.url).header("range", "bytes=10-19");
    assert_eq!(cold.world.send(ranged).await.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(cold.world.metric("tidegate_fills_active").await, 0.0);
    assert_eq!((cold.asked().len(), cold.upstream_bytes()), (0, 0));
    assert!(!cold.world.blob_path(&cold.digest).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_and_tiny_ones_are_blobs_too() {
    for size in [0, 1, 64 * 1024, 64 * 1024 + 1] {
        let cold = Cold::start(size).await;
        for round in ["cold", "warm"] {
            let answer = cold.get(&[]).await;
            assert_eq!(answer.status, StatusCode::OK, "{round} {size}");
            assert!(answer.body == cold.bytes, "{round} {size}");
            cold.assert_stored().await;
        }
        assert_eventually!(cold.upstream_bytes() == cold.size());
    }
}
