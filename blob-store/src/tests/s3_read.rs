//! Streaming reads from the object store, on paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use tempfile::TempDir;

use super::{
    s3_server::{Fault, S3Server},
    *,
};
use crate::BlobObject;

/// A server with one blob, and the object of that blob in a store without a network.
async fn start(bytes: &[u8]) -> (S3Server, TempDir, BlobObject) {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.in_process_store(&root);
    let digest = store_blob(&store, bytes).await.unwrap();
    let StoredBlob::Object(object) = store.get(&digest).await.unwrap().unwrap() else { panic!("a file") };
    server.reset_counters();
    (server, root, object)
}

#[tokio::test(start_paused = true)]
async fn a_broken_read_continues_at_its_offset() {
    let bytes = layer(3_000_000, 0);
    let (server, _root, object) = start(&bytes).await;
    let count = AtomicUsize::new(0);
    server.set_fault(move |_, _| match count.fetch_add(1, Ordering::Relaxed) % 4 {
        0 | 2 => Fault::Truncated(700_001),
        1 => Fault::Status(500),
        _ => Fault::None,
    });
    let chunks: Vec<Bytes> = object.get_range(0..object.size()).try_collect().await.unwrap();
    assert!(chunks.concat() == bytes);
    assert_eq!(server.requests("GET", ""), 4);
    assert_eq!(server.bytes_sent(), bytes.len(), "no byte is sent twice");
}

#[tokio::test(start_paused = true)]
async fn a_long_read_survives_any_number_of_interruptions_with_progress_between_them() {
    let bytes = layer(3_000_000, 0);
    let (server, _root, object) = start(&bytes).await;
    let count = AtomicUsize::new(0);
    // Three failures without a byte before each piece: the maximum number of retries.
    server.set_fault(move |_, _| match count.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => Fault::Truncated(100_000),
        _ => Fault::Status(500),
    });
    let chunks: Vec<Bytes> = object.get_range(0..object.size()).try_collect().await.unwrap();
    assert!(chunks.concat() == bytes);
    assert_eq!((server.requests("GET", ""), server.bytes_sent()), (4 * 29 + 1, bytes.len()));
}

#[tokio::test(start_paused = true)]
async fn a_range_costs_the_object_store_only_its_bytes() {
    let bytes = layer(20_000_000, 0);
    let (server, _root, object) = start(&bytes).await;
    for start in (0..20_000_000).step_by(500_000) {
        let end = start + 100;
        let range = u64::try_from(start).unwrap()..u64::try_from(end).unwrap();
        let chunks: Vec<Bytes> = object.get_range(range).try_collect().await.unwrap();
        assert!(chunks.concat() == bytes[start..end]);
    }
    assert_eq!((server.requests("GET", ""), server.bytes_sent()), (40, 40 * 100));
    // A broken read continues at its offset, up to the end of its range.
    server.reset_counters();
    let count = AtomicUsize::new(0);
    server.set_fault(move |_, _| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Fault::Truncated(50_000),
        _ => Fault::None,
    });
    let chunks: Vec<Bytes> = object.get_range(1_000_000..1_100_000).try_collect().await.unwrap();
    assert!(chunks.concat() == bytes[1_000_000..1_100_000]);
    assert_eq!((server.requests("GET", ""), server.bytes_sent()), (2, 100_000));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_replaced_after_the_read_timeout() {
    let bytes = layer(100_000, 0);
    let (server, _root, object) = start(&bytes).await;
    let count = AtomicUsize::new(0);
    server.set_fault(move |_, _| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Fault::Hang,
        _ => Fault::None,
    });
    let start = tokio::time::Instant::now();
    let chunks: Vec<Bytes> = object.get_range(0..object.size()).try_collect().await.unwrap();
    assert!(chunks.concat() == bytes);
    let elapsed = start.elapsed();
    let timeout = server.config().timeouts.answer;
    assert!(timeout <= elapsed && elapsed < timeout + Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_without_progress_ends_in_an_error_after_three_retries() {
    let bytes = layer(3_000_000, 0);
    let (server, _root, object) = start(&bytes).await;
    let count = AtomicUsize::new(0);
    server.set_fault(move |_, _| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Fault::Truncated(1_000_000),
        _ => Fault::Status(500),
    });
    let chunks: Vec<_> = object.get_range(0..object.size()).collect().await;
    let (last, before) = chunks.split_last().unwrap();
    assert!(last.as_ref().unwrap_err().is_unavailable());
    let read: Vec<u8> = before.iter().flat_map(|chunk| chunk.clone().unwrap()).collect();
    assert!(read == layer(1_000_000, 0));
    // One with progress, one right after it, and three retries.
    assert_eq!(server.requests("GET", ""), 5);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_served_at_its_pace_in_one_request() {
    let bytes = layer(20_000_000, 0);
    let (server, _root, object) = start(&bytes).await;
    let mut slow = object.get_range(0..object.size());
    let first = slow.next().await.unwrap().unwrap();
    tokio::time::sleep(2 * server.config().timeouts.read).await;
    let sent = server.bytes_sent();
    let rest: Vec<Bytes> = slow.try_collect().await.unwrap();
    let chunks = [vec![first], rest].concat();
    assert!(chunks.concat() == bytes);
    // The chunk that was read, two in the buffer, and one that waits for a place in it.
    assert_eq!(sent, chunks.iter().take(4).map(Bytes::len).sum::<usize>());
    assert_eq!((server.requests("GET", ""), server.bytes_sent()), (1, bytes.len()));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_dropped_before_its_first_poll_sends_no_request() {
    let (server, _root, object) = start(&layer(1_000_000, 0)).await;
    for _ in 0..10 {
        drop(object.get_range(0..object.size()));
    }
    // Paused time advances only when no task can run.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((server.requests("GET", ""), server.bytes_sent()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_dropped_ends_its_request() {
    let (server, _root, object) = start(&layer(20_000_000, 0)).await;
    let mut reader = object.get_range(0..object.size());
    reader.next().await.unwrap().unwrap();
    drop(reader);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (requests, sent) = (server.requests("GET", ""), server.bytes_sent());
    assert_eq!((requests, server.open_responses()), (1, 0), "the request has ended");
    let chunks: Vec<Bytes> = object.get_range(0..object.size()).try_collect().await.unwrap();
    assert!(sent <= chunks.iter().take(4).map(Bytes::len).sum(), "{sent} bytes");
}
