//! Bytes that are not the blob's: nothing is stored, nobody gets a complete body.

use futures::future::join_all;
use reqwest::StatusCode;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    world::TestWorld,
};

use crate::cold::{Cold, MIB, REPOSITORY, count, image, know, sections};

/// Three clients read a blob with one wrong byte. None gets all of it, and upstream is right again for the next one.
async fn assert_wrong_byte_is_not_served(size: usize, at: usize) {
    let cold = Cold::start(size).await;
    cold.on_blob(1, [Fault::WrongByteAt(u64::try_from(at).unwrap()), Fault::Delay(crate::cold::BRIEFLY)]);
    let clients = join_all((0..3).map(|_| cold.raw(&[]))).await;
    for client in clients {
        if client.status == StatusCode::BAD_GATEWAY.as_u16() {
            // The digest was found wrong before this client's response began.
            continue;
        }
        assert_eq!(client.status, 200);
        assert_eq!(client.header("content-length"), size.to_string());
        let rest = client.rest().await;
        assert!(!rest.complete, "a client has a complete body with a wrong byte at {at}");
        assert!(rest.bytes.len() <= size - 64 * 1024, "{} bytes came", rest.bytes.len());
    }
    cold.idle().await;
    assert!(!cold.world.blob_path(&cold.digest).exists());
    assert_eq!(cold.world.metric("tidegate_fill_wrong_bytes_total").await, 1.0);
    assert_eq!(cold.world.rows("blob_sources WHERE failed_until IS NOT NULL"), 1);
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.asked_ranges(), ["", ""], "nothing of the wrong bytes was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_first_byte_reaches_nobody_as_a_whole() {
    assert_wrong_byte_is_not_served(5 * MIB, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_byte_in_the_middle_reaches_nobody_as_a_whole() {
    assert_wrong_byte_is_not_served(5 * MIB, 5 * MIB / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_last_byte_reaches_nobody_as_a_whole() {
    assert_wrong_byte_is_not_served(5 * MIB, 5 * MIB - 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_with_a_wrong_byte_is_a_bad_gateway() {
    let cold = Cold::start(1000).await;
    cold.on_blob(1, [Fault::WrongByteAt(500)]);
    let answer = cold.get(&[]).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_all_of_it_as_a_range_gets_no_wrong_bytes_either() {
    let size = 3 * MIB;
    for range in ["bytes=0-".to_owned(), format!("bytes=0-{}", size - 1), format!("bytes=-{size}")] {
        let cold = Cold::start(size).await;
        cold.on_blob(1, [Fault::WrongByteAt(1)]);
        let client = cold.raw(&[("range", &range)]).await;
        assert_eq!((client.status, client.header("content-range").starts_with("bytes 0-")), (206, true));
        assert!(!client.rest().await.complete, "{range}");
    }
}

/// Two upstreams that both say they have the blob; `a` is asked first.
async fn two_sources(size: usize) -> (ChaosUpstream, Cold) {
    let (a, b) = (ChaosUpstream::start().await, ChaosUpstream::start().await);
    let builder = TestWorld::builder().sections(&sections("")).upstream("up", &a, "").upstream("up2", &b, "");
    b.put_image(REPOSITORY, "1", &image(size));
    let cold = Cold::build(size, a, builder).await;
    know(&cold.world, "up2/library/x", &cold.digest).await;
    b.clear_requests();
    (b, cold)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_source_sends_wrong_bytes_the_other_one_is_used_and_the_liar_asked_last() {
    let (other, cold) = two_sources(3 * MIB).await;
    cold.on_blob(usize::MAX, [Fault::WrongByteAt(count(MIB))]);
    assert!(!cold.raw(&[]).await.rest().await.complete);
    // The download may have stopped with its client; the next one begins with the other source.
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.upstream_bytes(), cold.size());
    assert_eq!(other.blob_bytes(&cold.digest), cold.size());
    assert_eq!(cold.world.rows("blob_sources WHERE failed_until IS NOT NULL"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_sent_wrong_bytes_long_ago_is_preferred_again() {
    let (other, cold) = two_sources(60_000).await;
    // `up` is the upstream of the requested repository.
    let failed = "UPDATE blob_sources SET failed_until = 1 WHERE upstream = 'up'";
    assert_eq!(cold.world.execute(failed), 1 + 1, "the config and the layer");
    cold.assert_served().await;
    assert_eq!(other.count("GET", &cold.digest), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_no_byte_yet_does_not_notice_that_one_source_lies() {
    let (_other, cold) = two_sources(60_000).await;
    cold.on_blob(usize::MAX, [Fault::WrongByteAt(0)]);
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_with_a_liar_among_them_that_also_breaks_still_make_a_right_blob() {
    let (other, cold) = two_sources(4 * MIB).await;
    // The beginning is wrong and comes from one, the end from the other: which of them lied is not plain.
    cold.on_blob(usize::MAX, [Fault::WrongByteAt(0), Fault::CutAfter(count(2 * MIB))]);
    for _ in 0..3 {
        let client = Cold::raw(&cold, &[]).await;
        if client.status != 200 {
            continue;
        }
        let rest = client.rest().await;
        assert!(!rest.complete || rest.bytes == cold.bytes);
        cold.idle().await;
    }
    cold.assert_served().await;
    cold.assert_stored().await;
    let blamed = cold.world.texts("SELECT upstream AS text FROM blob_sources WHERE failed_until IS NOT NULL");
    assert!(!blamed.contains(&"up2".to_owned()), "the honest source was set aside");
    assert!(other.blob_bytes(&cold.digest) <= 3 * cold.size());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_wrong_bytes_does_not_get_into_the_store() {
    let cold = Cold::start(4 * MIB).await;
    cold.on_blob(1, [Fault::WrongByteAt(100)]);
    let window = cold.range("bytes=0-199").await;
    assert_eq!(window.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(window.header("cache-status"), "tidegate; fwd=miss; stored; detail=unverified");
    assert_ne!(window.body, cold.bytes[..200], "a client of windows checks digests itself");
    // Whoever asks for all of it waits for the digest.
    assert_eventually!({
        let client = cold.raw(&[]).await;
        let rest = client.rest().await;
        assert!(!rest.complete || rest.bytes == cold.bytes);
        rest.complete
    });
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_from_before_a_restart_are_found_out_and_blame_nobody() {
    let cold = Cold::with(4 * MIB, "finish_abandoned = \"never\"").await;
    cold.upstream.on(Rule::on("GET", &cold.digest)
        .times(1)
        .then(Fault::WrongByteAt(7))
        .then(Fault::StallForever(count(MIB))));
    let mut client = cold.raw(&[]).await;
    client.read(MIB / 2).await;
    drop(client);
    cold.idle().await;
    let cold = cold.restart("").await;
    let first = cold.raw(&[]).await;
    if first.status == 200 {
        let rest = first.rest().await;
        assert!(!rest.complete || rest.bytes == cold.bytes);
    }
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.world.rows("blob_sources WHERE failed_until IS NOT NULL"), 0);
}
