//! Uploads that go along with a fill: nothing half-done is ever to be seen, and nothing is left behind.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use oci_types::Digest;
use tempfile::TempDir;

use super::{
    s3_server::{Fate, S3Server, files_below},
    *,
};
use crate::Presigner;

const MIB: usize = 1024 * 1024;

async fn world() -> (S3Server, TempDir, BlobStore) {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    (server, root, store)
}

fn records(root: &TempDir) -> usize {
    std::fs::read_dir(root.path().join("s3/uploads")).unwrap().count()
}

#[tokio::test]
async fn parts_are_uploaded_while_bytes_arrive_and_one_object_is_all_that_is_left() {
    let (server, root, store) = world().await;
    let bytes = layer(12 * MIB, 0);
    let digest = Digest::sha256(&bytes);
    let partial = store.begin(&digest, Some(length(&bytes))).await.unwrap();
    let upload = store.upload(&partial).unwrap();
    partial.write_at(0, &bytes[..11 * MIB]).unwrap();
    upload.advance(length(&bytes[..11 * MIB]));
    eventually("two parts are there", async || server.parts() == 2).await;
    assert!(server.keys().is_empty(), "nothing half-written is to be seen");
    assert_eq!(records(&root), 1);

    partial.write_at(length(&bytes[..11 * MIB]), &bytes[11 * MIB..]).unwrap();
    store.commit_with(&partial, length(&bytes), Some(upload)).await.unwrap();
    let hex = digest.hex();
    assert_eq!(server.keys(), [format!("a/b/blobs/sha256/{}/{hex}", &hex[..2])]);
    assert_eq!((server.parts(), server.asked("PUT", "partNumber=")), (0, 3));
    assert!(files_below(root.path()).is_empty(), "nothing is left on the node");
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
}

#[tokio::test]
async fn an_upload_that_is_aborted_or_dropped_leaves_nothing_behind() {
    let (server, root, store) = world().await;
    let bytes = layer(6 * MIB, 0);
    let partial = store.begin(&Digest::sha256(&bytes), Some(length(&layer(20 * MIB, 0)))).await.unwrap();
    partial.write_at(0, &bytes).unwrap();
    for is_dropped in [false, true] {
        let upload = store.upload(&partial).unwrap();
        upload.advance(length(&bytes));
        eventually("a part is there", async || server.parts() == 1).await;
        if is_dropped {
            drop(upload)
        } else {
            upload.abort().await
        }
        eventually("the part is gone", async || server.parts() == 0 && records(&root) == 0).await;
    }
    assert!(server.keys().is_empty());
}

#[tokio::test]
async fn parts_that_fail_now_and_then_are_uploaded_again() {
    let (server, _root, store) = world().await;
    let count = AtomicUsize::new(0);
    server.when(move |method, target| {
        let is_part = method == "PUT" && target.contains("partNumber=");
        match (is_part, count.fetch_add(usize::from(is_part), Ordering::Relaxed) % 3) {
            (true, 0) => Fate::Status(503),
            (true, 1) => Fate::AnswerLost,
            _ => Fate::Served,
        }
    });
    let bytes = layer(11 * MIB, 0);
    let digest = store_blob(&store, &bytes).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    assert_eq!(server.parts(), 0);
}

#[tokio::test]
async fn an_upload_whose_completion_was_done_but_not_answered_is_stored() {
    let (server, root, store) = world().await;
    let completions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&completions);
    server.when(move |method, target| {
        let completes = method == "POST" && target.contains("uploadId=");
        if completes && counted.fetch_add(1, Ordering::Relaxed) == 0 {
            Fate::AnswerLost
        } else {
            Fate::Served
        }
    });
    let bytes = layer(11 * MIB, 0);
    let digest = store_blob(&store, &bytes).await.unwrap();
    assert!(completions.load(Ordering::Relaxed) > 0);
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    assert_eq!(records(&root), 0);
}

#[tokio::test]
async fn bytes_that_were_replaced_after_they_were_uploaded_never_become_an_object() {
    let (server, _root, store) = world().await;
    let bytes = layer(11 * MIB, 0);
    let digest = Digest::sha256(&bytes);
    let partial = store.begin(&digest, Some(length(&bytes))).await.unwrap();
    let upload = store.upload(&partial).unwrap();
    partial.write_at(0, &layer(6 * MIB, 9)).unwrap();
    upload.advance(length(&bytes[..6 * MIB]));
    eventually("a wrong part is there", async || server.parts() == 1).await;
    partial.write_at(0, &bytes).unwrap();
    store.commit_with(&partial, length(&bytes), Some(upload)).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes, "uploaded anew");
    assert_eq!(server.parts(), 0);

    let digest = Digest::sha256(b"right");
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, b"wrong").unwrap();
    assert!(matches!(store.commit(&partial, 5).await, Err(StoreError::Corrupt { .. })));
    assert!(store.locate(&digest).await.unwrap().is_none());
}

#[tokio::test]
async fn an_upload_that_a_process_left_behind_is_thrown_away_by_the_next() {
    let (server, root, store) = world().await;
    server.when(|method, _| if method == "DELETE" { Fate::Status(500) } else { Fate::Served });
    let bytes = layer(6 * MIB, 0);
    let partial = store.begin(&Digest::sha256(&bytes), Some(length(&layer(20 * MIB, 0)))).await.unwrap();
    partial.write_at(0, &bytes).unwrap();
    let upload = store.upload(&partial).unwrap();
    upload.advance(length(&bytes));
    eventually("a part is there", async || server.parts() == 1).await;
    upload.abort().await;
    assert_eq!((server.parts(), records(&root)), (1, 1), "the server would not throw it away");

    drop((partial, store));
    server.when(|_, _| Fate::Served);
    let next = server.store(&root, None);
    eventually("it is gone", async || server.parts() == 0 && records(&root) == 0).await;
    next.sweep_partials(Duration::ZERO, &Default::default()).await.unwrap();
    assert!(files_below(root.path()).is_empty());
}

#[tokio::test]
async fn an_upload_that_is_under_way_is_left_alone_by_the_sweep() {
    let (server, root, store) = world().await;
    let bytes = layer(11 * MIB, 0);
    let partial = store.begin(&Digest::sha256(&bytes), Some(length(&bytes))).await.unwrap();
    partial.write_at(0, &bytes).unwrap();
    let upload = store.upload(&partial).unwrap();
    upload.advance(length(&bytes[..6 * MIB]));
    eventually("a part is there", async || server.parts() == 1).await;
    let other_process = server.store(&root, None);
    for store in [&store, &other_process] {
        store.sweep_partials(Duration::ZERO, &Default::default()).await.unwrap();
    }
    assert_eq!(server.parts(), 1);
    store.commit_with(&partial, length(&bytes), Some(upload)).await.unwrap();
    assert_eq!(server.asked("POST", "uploads"), 1, "in one upload");
}

#[tokio::test]
async fn a_presigned_url_is_read_with_plain_http_whole_and_in_ranges_until_it_expires() {
    let (server, _root, store) = world().await;
    let digest = store_blob(&store, b"0123456789").await.unwrap();
    let presigner = Presigner::new(&server.config()).unwrap();
    assert!(presigner.has(&digest).await.unwrap());
    assert!(!presigner.has(&Digest::sha256(b"other")).await.unwrap());
    let url = presigner.url(&digest, Duration::from_secs(60)).await.unwrap();
    let client = reqwest::Client::new();
    let answer = client.get(url.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.bytes().await.unwrap(), "0123456789");
    let answer = client.get(url.clone()).header("range", "bytes=3-5").send().await.unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.headers()["content-range"], "bytes 3-5/10");
    assert_eq!(answer.bytes().await.unwrap(), "345");

    let other = url.as_str().replace(digest.hex(), Digest::sha256(b"other").hex());
    assert_eq!(client.get(other).send().await.unwrap().status(), 403, "the signature is for one blob");
    let short = presigner.url(&digest, Duration::from_secs(1)).await.unwrap();
    eventually("the URL expires", async || client.get(short.clone()).send().await.unwrap().status() == 403)
        .await;
    let debug = format!("{presigner:?} {store:?} {:?}", server.config());
    assert!(!debug.contains("secret-of-a-test"), "{debug}");

    let public =
        crate::S3Config { public_endpoint: Some("https://s3.example/".parse().unwrap()), ..server.config() };
    let url = Presigner::new(&public).unwrap().url(&digest, Duration::from_secs(60)).await.unwrap();
    assert!(url.as_str().starts_with("https://s3.example/layers/a/b/blobs/sha256/"), "{url}");
    let named = public.public_endpoint.clone();
    let host = crate::S3Config { addressing: crate::Addressing::VirtualHost, endpoint: named, ..public };
    let url = Presigner::new(&host).unwrap().url(&digest, Duration::from_secs(60)).await.unwrap();
    assert!(url.as_str().starts_with("https://layers.s3.example/a/b/blobs/sha256/"), "{url}");
}
