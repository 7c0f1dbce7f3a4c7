//! Ranges of a blob that is not here.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use reqwest::StatusCode;
use tidegate_tests::chaos::Fault;

use crate::cold::{BRIEFLY, Cold, MIB, within};

const UNVERIFIED: &str = "tidegate; fwd=miss; stored; detail=unverified";

/// What upstream may send in vain when a download is cut short for another: what lies in socket buffers.
const IN_FLIGHT: usize = 3 * MIB / 2;

/// One range of a cold blob; then all of it, at the cost of one download.
async fn assert_window(range: &str, start: usize, end: usize) {
    let cold = Cold::start(40 * MIB).await;
    let answer = cold.range(range).await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
    assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/{}", end - 1, cold.size()));
    assert_eq!(answer.header("content-length"), (end - start).to_string());
    assert_eq!(answer.header("cache-status"), UNVERIFIED, "{range}");
    assert!(answer.body == cold.bytes[start..end], "{range}: other bytes");
    cold.assert_served().await;
    cold.assert_stored().await;
    cold.assert_upstream_bytes(2 * IN_FLIGHT);
    let warm = cold.range(range).await;
    assert_eq!(warm.header("cache-status"), "tidegate; hit");
    assert!(warm.body == cold.bytes[start..end], "{range}: other bytes when stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes() {
    assert_window("bytes=0-99", 0, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_bytes() {
    let size = 40 * MIB;
    assert_window(&format!("bytes={}-", size - 1000), size - 1000, size).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suffix() {
    assert_window("bytes=-70000", 40 * MIB - 70_000, 40 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_middle_across_segments() {
    assert_window("bytes=16000000-26000000", 16_000_000, 26_000_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_end_is_not_satisfiable() {
    let cold = Cold::start(MIB).await;
    for range in ["bytes=1048576-", "bytes=9999999-99999999", "bytes=-0"] {
        let answer = cold.range(range).await;
        assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
        assert_eq!(answer.header("content-range"), "bytes */1048576");
    }
    cold.assert_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_clients_with_chunks_of_eight_mebibytes_fetch_every_byte_once() {
    let (size, chunk) = (160 * MIB, 8 * MIB);
    let cold = Cold::start(size).await;
    let chunks = (0..size / chunk).map(|index| index * chunk..(index + 1) * chunk);
    let readers = stream::iter(chunks).map(|window| {
        let cold = &cold;
        async move {
            let answer = cold.range(&format!("bytes={}-{}", window.start, window.end - 1)).await;
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
            assert!(answer.body == cold.bytes[window.clone()], "{window:?}: other bytes");
        }
    });
    readers.buffer_unordered(16).collect::<Vec<()>>().await;
    cold.assert_stored().await;
    cold.assert_upstream_bytes(size / 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_in_a_blob_of_which_nobody_has_told_the_size() {
    let cold = Cold::start(20 * MIB).await;
    cold.world.execute("UPDATE blobs SET size = NULL");
    let windows = [19 * MIB..20 * MIB, 0..MIB, 10 * MIB..12 * MIB];
    let readers = windows.map(|window| {
        let cold = &cold;
        async move {
            let answer = cold.range(&format!("bytes={}-{}", window.start, window.end - 1)).await;
            assert!(answer.body == cold.bytes[window], "other bytes");
        }
    });
    futures::future::join_all(readers).await;
    cold.assert_served().await;
    cold.assert_stored().await;
    cold.assert_upstream_bytes(3 * IN_FLIGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_does_not_wait_for_a_slow_download_of_the_whole() {
    let cold = Cold::start(40 * MIB).await;
    cold.on_blob(1, [within(40 * MIB, Duration::from_secs(3))]);
    let whole = cold.raw(&[]).await;
    let tail = cold.range("bytes=-1000").await;
    assert!(tail.body == cold.bytes[40 * MIB - 1000..]);
    assert_eq!(tail.header("cache-status"), "tidegate; fwd=miss; stored; collapsed; detail=unverified");
    assert!(
        cold.upstream_bytes() < cold.size() / 2,
        "the tail came when {} were there",
        cold.upstream_bytes()
    );
    let rest = whole.rest().await;
    assert!(rest.complete && rest.bytes == cold.bytes);
    cold.assert_upstream_bytes(IN_FLIGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_just_ahead_of_a_download_waits_for_it() {
    let cold = Cold::start(20 * MIB).await;
    cold.on_blob(1, [within(20 * MIB, Duration::from_millis(500))]);
    let whole = cold.raw(&[]).await;
    let near = cold.range("bytes=5000000-5999999").await;
    assert!(near.body == cold.bytes[5_000_000..6_000_000]);
    assert!(whole.rest().await.complete);
    assert_eq!(cold.asked_ranges(), [""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_from_zero_is_partial_content_and_held_back() {
    let cold = Cold::start(5 * MIB).await;
    let answer = cold.range("bytes=0-").await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(answer.header("cache-status"), "tidegate; fwd=miss; stored");
    assert_eq!(answer.header("content-range"), format!("bytes 0-{}/{}", cold.size() - 1, cold.size()));
    assert!(answer.body == cold.bytes);
    assert_eq!(cold.asked_ranges(), [""]);
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_are_answered_with_all_of_it() {
    let cold = Cold::start(20 * MIB).await;
    for round in ["cold", "warm"] {
        let answer = cold.range("bytes=0-9,20-29").await;
        assert_eq!(answer.status, StatusCode::OK, "{round}");
        assert!(answer.body == cold.bytes, "{round}");
    }
    cold.assert_upstream_bytes(IN_FLIGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_decide_whether_a_range_counts() {
    let cold = Cold::start(3 * MIB).await;
    let etag = format!("\"{}\"", cold.digest);
    let unchanged = cold.get(&[("if-none-match", &etag)]).await;
    assert_eq!((unchanged.status, unchanged.header("etag")), (StatusCode::NOT_MODIFIED, &*etag));
    assert_eq!(cold.asked().len(), 0);
    for round in ["cold", "warm"] {
        let same = cold.get(&[("range", "bytes=10-19"), ("if-range", &etag)]).await;
        assert_eq!(
            (same.status, &same.body[..]),
            (StatusCode::PARTIAL_CONTENT, &cold.bytes[10..20]),
            "{round}"
        );
        for other in ["\"another\"", &format!("W/{etag}"), "Mon, 01 Jan 2024 00:00:00 GMT"] {
            let whole = cold.get(&[("range", "bytes=10-19"), ("if-range", other)]).await;
            assert_eq!(whole.status, StatusCode::OK, "{round} {other}");
            assert!(whole.body == cold.bytes, "{round} {other}");
        }
        let other = cold.get(&[("if-none-match", "\"another\"")]).await;
        assert_eq!(other.status, StatusCode::OK, "{round}");
        cold.assert_stored().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_ranges_wait_nothing_is_served_before_the_digest_is_known() {
    let cold = Cold::with(20 * MIB, "unverified_ranges = \"wait\"").await;
    cold.on_blob(usize::MAX, [Fault::Delay(BRIEFLY)]);
    let answer = cold.range("bytes=100-199").await;
    assert_eq!(cold.upstream_bytes(), cold.size(), "it did not wait");
    assert_eq!(answer.header("cache-status"), "tidegate; fwd=miss; stored");
    assert!(answer.body == cold.bytes[100..200]);
    cold.assert_stored().await;
    let cold = Cold::with(3 * MIB, "unverified_ranges = \"wait\"").await;
    cold.on_blob(usize::MAX, [Fault::WrongByteAt(0)]);
    assert_eq!(cold.range("bytes=100-199").await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_of_an_upstream_without_ranges_come_from_one_download() {
    let cold = Cold::start(40 * MIB).await;
    cold.on_blob(usize::MAX, [Fault::IgnoreRange]);
    let readers = (0..5).map(|index| {
        let (cold, start) = (&cold, index * 8 * MIB);
        async move {
            let answer = cold.range(&format!("bytes={start}-{}", start + MIB - 1)).await;
            assert!(answer.body == cold.bytes[start..start + MIB]);
        }
    });
    futures::future::join_all(readers).await;
    cold.assert_served().await;
    cold.assert_stored().await;
    // Each segment that was asked for before this was known costs what lies before it.
    cold.assert_upstream_bytes(3 * cold.bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_upstream_refuses_cuts_nobody_off() {
    let cold = Cold::start(40 * MIB).await;
    cold.on_blob(1, [within(40 * MIB, Duration::from_secs(3))]);
    cold.on_blob(3, [Fault::Empty(429)]);
    let mut whole = cold.raw(&[]).await;
    whole.read(MIB).await;
    let range = format!("bytes={}-{}", 30 * MIB, 31 * MIB - 1);
    let (window, whole) = tokio::join!(cold.range(&range), whole.rest());
    assert_eq!(window.status, StatusCode::PARTIAL_CONTENT);
    assert!(window.body == cold.bytes[30 * MIB..31 * MIB], "other bytes");
    assert!(whole.complete, "those who read along are not cut off");
    assert!(cold.asked().len() > 3, "it was asked for again");
    cold.assert_upstream_bytes(2 * IN_FLIGHT);
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_break_together_are_one_failure() {
    let cold = Cold::start(64 * MIB).await;
    cold.on_blob(8, [Fault::CutAfter(0)]);
    let windows = (0..8).map(|index| index * 8 * MIB..(index + 1) * 8 * MIB);
    let readers = windows.map(async |window| {
        let answer = cold.range(&format!("bytes={}-{}", window.start, window.end - 1)).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{window:?}");
        assert!(answer.body == cold.bytes[window.clone()], "{window:?}: other bytes");
    });
    futures::future::join_all(readers).await;
    cold.assert_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_source_that_ignores_them_do_not_cost_the_blob_for_each() {
    let cold = Cold::with(40 * MIB, "segment = \"1MiB\"\njump_ahead = \"1MiB\"").await;
    cold.on_blob(usize::MAX, [Fault::IgnoreRange]);
    let readers = stream::iter(0..40).map(|index| {
        let (cold, start) = (&cold, index * MIB);
        async move {
            let answer = cold.range(&format!("bytes={start}-{}", start + 999)).await;
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
            assert!(answer.body == cold.bytes[start..start + 1000], "{start}: other bytes");
        }
    });
    readers.buffer_unordered(8).collect::<Vec<()>>().await;
    let sent = cold.upstream_bytes();
    assert!(sent < 4 * cold.size(), "{sent} bytes of {}", cold.size());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_range_of_a_source_that_ignores_them_is_served() {
    let cold = Cold::with(40 * MIB, "fill_attempts = 2").await;
    cold.on_blob(usize::MAX, [Fault::IgnoreRange]);
    let (start, end) = (20 * MIB, 21 * MIB);
    for _ in 0..2 {
        let answer = cold.range(&format!("bytes={start}-{}", end - 1)).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{:?}", answer.error_code());
        assert!(answer.body == cold.bytes[start..end], "other bytes");
    }
    let sent = cold.upstream_bytes();
    assert!(sent < 3 * cold.size(), "{sent} bytes of {}", cold.size());
}
