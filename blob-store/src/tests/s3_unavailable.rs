//! An object store that is away, slow or broken: known in a short time, and nothing is lost by it.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use futures::StreamExt;
use tempfile::TempDir;

use super::{
    s3_server::{Fate, S3Server},
    *,
};
use crate::{S3Config, S3Store};

/// Longer than any single question may take with the timeouts of these tests.
const SOON: Duration = Duration::from_secs(8);

async fn soon<T>(question: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let answer = question.await;
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    answer
}

#[tokio::test]
async fn an_object_store_that_is_away_is_told_soon_and_a_blob_is_stored_when_it_is_back() {
    let (mut server, root) = (S3Server::start().await, TempDir::new().unwrap());
    server.patience = Duration::from_secs(1);
    let store = server.store(&root, None);
    let stored = store_blob(&store, b"stored before").await.unwrap();
    server.stop().await;
    let error = soon(store.locate(&stored)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(soon(store.ready()).await.unwrap_err().is_unavailable());
    assert!(soon(store.remove(&stored)).await.unwrap_err().is_unavailable());
    assert!(soon(store.list().recv()).await.unwrap().unwrap_err().is_unavailable());
    assert!(store.stored(&stored).await.unwrap().is_none());

    let digest = Digest::sha256(b"filled meanwhile");
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, b"filled meanwhile").unwrap();
    let upload = store.upload(&partial);
    let error = store.commit_with(&partial, 16, upload).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let mut bytes = [0; 16];
    assert_eq!(partial.read_at(0, &mut bytes).unwrap(), 16, "who follows the fill reads on");

    server.restart().await;
    store.commit(&partial, 16).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"filled meanwhile");
    assert_eq!(read_blob(&store, &stored).await.unwrap().unwrap(), b"stored before");
}

#[tokio::test]
async fn an_object_store_that_does_not_answer_is_told_soon() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    let digest = store_blob(&store, b"x").await.unwrap();
    server.when(|_, _| Fate::Hangs);
    assert!(soon(store.locate(&digest)).await.unwrap_err().is_unavailable());
    assert!(soon(store.ready()).await.unwrap_err().is_unavailable());
    let asked = server.asked("", "");
    assert!(store.locate(&digest).await.unwrap_err().is_unavailable());
    assert_eq!(server.asked("", ""), asked, "known by now, and not asked again");
    server.when(|_, _| Fate::Served);
    eventually("it is back", async || store.locate(&digest).await.is_ok_and(|found| found.is_some())).await;
}

#[tokio::test]
async fn a_missing_bucket_or_a_wrong_key_is_not_ready() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let missing = S3Config { bucket: "missing".to_owned(), ..server.config() };
    let mut wrong = server.config();
    wrong.keys.as_mut().unwrap().secret_key = "wrong".into();
    for config in [missing, wrong] {
        let store = S3Store::open(&config, root.path(), None).unwrap();
        let error = soon(store.ready()).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }
    let nowhere = S3Config { endpoint: Some("ftp://x".parse().unwrap()), ..server.config() };
    assert!(matches!(S3Store::open(&nowhere, root.path(), None), Err(StoreError::Settings(_))));
}

#[tokio::test]
async fn a_read_that_breaks_goes_on_from_where_it_broke() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    let bytes = layer(3_000_000, 0);
    let digest = store_blob(&store, &bytes).await.unwrap();
    let count = AtomicUsize::new(0);
    server.when(move |method, _| match (method.as_str(), count.fetch_add(1, Ordering::Relaxed) % 4) {
        ("GET", 1) => Fate::Status(500),
        ("GET", 0 | 2) => Fate::CutAfter(700_001),
        _ => Fate::Served,
    });
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    assert!(server.asked("GET", digest.hex()) > 2);
}

#[tokio::test]
async fn a_read_from_an_object_store_that_stays_away_ends_in_an_error() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    let digest = store_blob(&store, &layer(3_000_000, 0)).await.unwrap();
    let StoredAt::Object(object) = store.locate(&digest).await.unwrap().unwrap() else { panic!("a file") };
    let count = AtomicUsize::new(0);
    server.when(move |_, _| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Fate::CutAfter(1_000_000),
        _ => Fate::Status(500),
    });
    let chunks: Vec<_> = soon(object.read(0..object.size).collect()).await;
    let (last, before) = chunks.split_last().unwrap();
    assert!(last.as_ref().unwrap_err().is_unavailable());
    let read: Vec<u8> = before.iter().flat_map(|chunk| chunk.clone().unwrap()).collect();
    assert!(!read.is_empty() && layer(1_000_000, 0).starts_with(&read));
}

#[tokio::test]
async fn a_reader_that_stops_reading_or_leaves_costs_no_memory_and_no_request() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    let bytes = layer(20_000_000, 0);
    let digest = store_blob(&store, &bytes).await.unwrap();
    let stored = store.locate(&digest).await.unwrap().unwrap();
    let StoredAt::Object(object) = &stored else { panic!("a file") };
    let mut slow = object.read(0..object.size);
    let first = slow.next().await.unwrap().unwrap();
    // Longer than a server may be silent: the silence of a reader is not held against it.
    tokio::time::sleep(server.config().timeouts.read + Duration::from_millis(500)).await;
    assert!(server.sent() < 15_000_000, "what was sent ahead lies in sockets: {}", server.sent());
    let rest: Vec<Bytes> = slow.try_collect().await.unwrap();
    assert!([vec![first], rest].concat().concat() == bytes, "its pace is its own");
    assert_eq!(server.asked("GET", digest.hex()), 1);

    let sent = server.sent();
    for _ in 0..10 {
        drop(object.read(0..object.size));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(server.sent() - sent < 100_000_000, "nobody reads these");
}

#[tokio::test]
async fn an_upload_that_broke_is_done_again_by_the_commit() {
    let (mut server, root) = (S3Server::start().await, TempDir::new().unwrap());
    server.patience = Duration::from_secs(1);
    let store = server.store(&root, None);
    let bytes = layer(11 * 1024 * 1024, 0);
    let digest = Digest::sha256(&bytes);
    let partial = store.begin(&digest, Some(length(&bytes))).await.unwrap();
    partial.write_at(0, &bytes).unwrap();
    let upload = store.upload(&partial).unwrap();
    upload.advance(6 * 1024 * 1024);
    eventually("a part is there", async || server.parts() == 1).await;
    server.stop().await;
    upload.advance(length(&bytes));
    // Until the upload gives up.
    tokio::time::sleep(server.config().timeouts.upload + Duration::from_secs(1)).await;
    server.restart().await;
    store.commit_with(&partial, length(&bytes), Some(upload)).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    store.sweep_partials(Duration::ZERO, &Default::default()).await.unwrap();
    assert_eq!(server.parts(), 0);
}
