//! Uploads during a download: no unfinished object is visible, and no parts remain.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use oci_types::Digest;
use tempfile::TempDir;

use super::{
    s3_server::{Fault, S3Server, files_below},
    *,
};
use crate::Presigner;

const MIB: usize = 1024 * 1024;

async fn start() -> (S3Server, TempDir, BlobStore) {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    (server, root, store)
}

fn records(root: &TempDir) -> usize {
    std::fs::read_dir(root.path().join("s3/uploads")).unwrap().count()
}

#[tokio::test]
async fn parts_are_uploaded_during_the_download_and_become_one_object() {
    let (server, root, store) = start().await;
    let bytes = layer(12 * MIB, 0);
    let digest = Digest::sha256(&bytes);
    let partial = store.open_partial(&digest, Some(length(&bytes))).await.unwrap();
    let upload = store.start_upload(&partial).unwrap();
    partial.blocking().write_at(0, &bytes[..11 * MIB]).unwrap();
    upload.advance(length(&bytes[..11 * MIB]));
    eventually("two parts are uploaded", async || server.parts() == 2).await;
    assert!(server.keys().is_empty(), "an unfinished object is not visible");
    assert_eq!(records(&root), 1);

    partial.blocking().write_at(length(&bytes[..11 * MIB]), &bytes[11 * MIB..]).unwrap();
    store.commit(&partial, &digest, length(&bytes), Some(upload)).await.unwrap();
    let hex = digest.hex();
    assert_eq!(server.keys(), [format!("a/b/blobs/sha256/{}/{hex}", &hex[..2])]);
    assert_eq!((server.parts(), server.requests("PUT", "partNumber=")), (0, 3));
    assert!(files_below(root.path()).is_empty(), "no file remains on the node");
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
}

#[tokio::test]
async fn an_aborted_or_dropped_upload_leaves_no_parts() {
    let (server, root, store) = start().await;
    let bytes = layer(6 * MIB, 0);
    let partial =
        store.open_partial(&Digest::sha256(&bytes), Some(length(&layer(20 * MIB, 0)))).await.unwrap();
    partial.blocking().write_at(0, &bytes).unwrap();
    for is_dropped in [false, true] {
        let upload = store.start_upload(&partial).unwrap();
        upload.advance(length(&bytes));
        eventually("a part is uploaded", async || server.parts() == 1).await;
        if is_dropped {
            drop(upload)
        } else {
            upload.abort().await
        }
        eventually("the part is discarded", async || server.parts() == 0 && records(&root) == 0).await;
    }
    assert!(server.keys().is_empty());
}

#[tokio::test]
async fn failed_parts_are_uploaded_again() {
    let (server, _root, store) = start().await;
    let count = AtomicUsize::new(0);
    server.set_fault(move |method, target| {
        let is_part = method == "PUT" && target.contains("partNumber=");
        match (is_part, count.fetch_add(usize::from(is_part), Ordering::Relaxed) % 3) {
            (true, 0) => Fault::Status(503),
            (true, 1) => Fault::LostResponse,
            _ => Fault::None,
        }
    });
    let bytes = layer(11 * MIB, 0);
    let digest = store_blob(&store, &bytes).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    assert_eq!(server.parts(), 0);
}

#[tokio::test]
async fn an_upload_with_a_lost_response_to_its_completion_is_stored() {
    let (server, root, store) = start().await;
    let completions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&completions);
    server.set_fault(move |method, target| {
        let completes = method == "POST" && target.contains("uploadId=");
        if completes && counted.fetch_add(1, Ordering::Relaxed) == 0 {
            Fault::LostResponse
        } else {
            Fault::None
        }
    });
    let bytes = layer(11 * MIB, 0);
    let digest = store_blob(&store, &bytes).await.unwrap();
    assert!(completions.load(Ordering::Relaxed) > 0);
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    assert_eq!(records(&root), 0);
}

#[tokio::test]
async fn bytes_that_were_replaced_after_their_upload_never_become_an_object() {
    let (server, _root, store) = start().await;
    let bytes = layer(11 * MIB, 0);
    let digest = Digest::sha256(&bytes);
    let partial = store.open_partial(&digest, Some(length(&bytes))).await.unwrap();
    let upload = store.start_upload(&partial).unwrap();
    partial.blocking().write_at(0, &layer(6 * MIB, 9)).unwrap();
    upload.advance(length(&bytes[..6 * MIB]));
    eventually("a wrong part is uploaded", async || server.parts() == 1).await;
    partial.blocking().write_at(0, &bytes).unwrap();
    store.commit(&partial, &digest, length(&bytes), Some(upload)).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes, "uploaded again");
    assert_eq!(server.parts(), 0);

    let digest = Digest::sha256(b"right");
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, b"wrong").unwrap();
    assert!(matches!(store.commit(&partial, &digest, 5, None).await, Err(StoreError::DigestMismatch { .. })));
    assert!(store.get(&digest).await.unwrap().is_none());
}

#[tokio::test]
async fn a_stale_upload_is_aborted_by_the_next_process() {
    let (server, root, store) = start().await;
    server.set_fault(|method, _| if method == "DELETE" { Fault::Status(500) } else { Fault::None });
    let bytes = layer(6 * MIB, 0);
    let partial =
        store.open_partial(&Digest::sha256(&bytes), Some(length(&layer(20 * MIB, 0)))).await.unwrap();
    partial.blocking().write_at(0, &bytes).unwrap();
    let upload = store.start_upload(&partial).unwrap();
    upload.advance(length(&bytes));
    eventually("a part is uploaded", async || server.parts() == 1).await;
    upload.abort().await;
    assert_eq!((server.parts(), records(&root)), (1, 1), "the server did not abort it");

    drop((partial, store));
    server.set_fault(|_, _| Fault::None);
    let next = server.store(&root, None);
    eventually("it is aborted", async || server.parts() == 0 && records(&root) == 0).await;
    next.sweep_partials(Duration::ZERO, &Default::default()).await.unwrap();
    assert!(files_below(root.path()).is_empty());
}

#[tokio::test]
async fn a_running_upload_is_not_aborted_by_the_sweep() {
    let (server, root, store) = start().await;
    let bytes = layer(11 * MIB, 0);
    let digest = Digest::sha256(&bytes);
    let partial = store.open_partial(&digest, Some(length(&bytes))).await.unwrap();
    partial.blocking().write_at(0, &bytes).unwrap();
    let upload = store.start_upload(&partial).unwrap();
    upload.advance(length(&bytes[..6 * MIB]));
    eventually("a part is uploaded", async || server.parts() == 1).await;
    let other_process = server.store(&root, None);
    for store in [&store, &other_process] {
        store.sweep_partials(Duration::ZERO, &Default::default()).await.unwrap();
    }
    assert_eq!(server.parts(), 1);
    store.commit(&partial, &digest, length(&bytes), Some(upload)).await.unwrap();
    assert_eq!(server.requests("POST", "uploads"), 1, "one upload was enough");
}

#[tokio::test]
async fn a_presigned_url_serves_whole_blobs_and_ranges_until_it_expires() {
    let (server, _root, store) = start().await;
    let digest = store_blob(&store, b"0123456789").await.unwrap();
    let presigner = Presigner::new(&server.config()).unwrap();
    assert!(presigner.size(&digest).await.unwrap().is_some());
    assert_eq!(presigner.size(&Digest::sha256(b"other")).await.unwrap(), None);
    let url = presigner.signed_url(&digest, Duration::from_secs(60)).await.unwrap();
    let client = reqwest::Client::new();
    let response = client.get(url.clone()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.bytes().await.unwrap(), "0123456789");
    let response = client.get(url.clone()).header("range", "bytes=3-5").send().await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(response.headers()["content-range"], "bytes 3-5/10");
    assert_eq!(response.bytes().await.unwrap(), "345");

    let other = url.as_str().replace(digest.hex(), Digest::sha256(b"other").hex());
    assert_eq!(client.get(other).send().await.unwrap().status(), 403, "the signature is valid for one blob");
    let short = presigner.signed_url(&digest, Duration::from_secs(1)).await.unwrap();
    eventually("the URL expires", async || client.get(short.clone()).send().await.unwrap().status() == 403)
        .await;
    let debug = format!("{presigner:?} {store:?} {:?}", server.config());
    assert!(!debug.contains("secret-of-a-test"), "{debug}");

    let public =
        crate::S3Config { public_endpoint: Some("https://s3.example/".parse().unwrap()), ..server.config() };
    let url = Presigner::new(&public).unwrap().signed_url(&digest, Duration::from_secs(60)).await.unwrap();
    assert!(url.as_str().starts_with("https://s3.example/layers/a/b/blobs/sha256/"), "{url}");
    let named = public.public_endpoint.clone();
    let host = crate::S3Config { addressing: crate::Addressing::VirtualHost, endpoint: named, ..public };
    let url = Presigner::new(&host).unwrap().signed_url(&digest, Duration::from_secs(60)).await.unwrap();
    assert!(url.as_str().starts_with("https://layers.s3.example/a/b/blobs/sha256/"), "{url}");
}
