//! The store on a local disk.

mod environment;
mod partials;

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use futures::TryStreamExt;
use tempfile::TempDir;

use super::*;
use crate::{BlobStore, SegmentMap, Segments, tests::eventually};

fn layer(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

fn open(root: &TempDir) -> BlobStore {
    BlobStore::open_local(root.path()).unwrap()
}

async fn store_blob(store: &BlobStore, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, bytes).unwrap();
    store.commit(&partial, &digest, u64::try_from(bytes.len()).unwrap(), None).await.unwrap();
    digest
}

async fn read_blob(store: &BlobStore, digest: &Digest) -> Option<Vec<u8>> {
    let blob = store.get_local(digest).await.unwrap()?;
    let mut bytes = vec![0; usize::try_from(blob.size).unwrap()];
    blob.file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

async fn list(store: &BlobStore) -> Vec<(Digest, u64)> {
    let blobs: Vec<BlobMeta> = store.list().try_collect().await.unwrap();
    let mut blobs: Vec<_> = blobs.into_iter().map(|blob| (blob.digest, blob.size)).collect();
    blobs.sort();
    blobs
}

/// Bytes on the disk, after the scan.
async fn disk_usage(store: &BlobStore) -> u64 {
    eventually("the scan is complete", async || store.disk_usage().complete).await;
    store.disk_usage().bytes
}

fn map_of(segments: Segments) -> SegmentMap {
    SegmentMap { segments, ..SegmentMap::default() }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn a_committed_blob_is_stored_listed_measured_and_deleted() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let bytes = layer(100_000);
    let digest = Digest::sha256(&bytes);
    assert!(store.get_local(&digest).await.unwrap().is_none());

    let partial = store.open_partial(&digest, Some(100_000)).await.unwrap();
    partial.blocking().reserve(100_000).unwrap();
    partial.blocking().write_at(50_000, bytes.get(50_000..).unwrap()).unwrap();
    partial.blocking().write_at(0, bytes.get(..50_000).unwrap()).unwrap();
    assert!(store.get_local(&digest).await.unwrap().is_none(), "an unfinished blob is not stored");
    store.commit(&partial, &digest, 100_000, None).await.unwrap();

    assert_eq!(read_blob(&store, &digest).await.unwrap(), bytes);
    assert_eq!(list(&store).await, [(digest.clone(), 100_000)]);
    assert_eq!(disk_usage(&store).await, 100_000);
    assert_eq!(files_below(root.path()), [store.disk().layout.blob(&digest)], "there are no other files");

    let blob = store.get_local(&digest).await.unwrap().unwrap();
    assert!(store.delete(&digest).await.unwrap());
    assert!(!store.delete(&digest).await.unwrap());
    assert!(store.get_local(&digest).await.unwrap().is_none());
    assert_eq!(store.disk_usage().bytes, 0);
    let mut start = [0; 10];
    blob.file.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start, bytes.get(..10).unwrap(), "open readers are not affected");
}

#[tokio::test]
async fn a_repeated_commit_changes_nothing() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let bytes = layer(3000);
    let digest = Digest::sha256(&bytes);
    let first = store.open_partial(&digest, None).await.unwrap();
    first.blocking().write_at(0, &bytes).unwrap();
    store.commit(&first, &digest, 3000, None).await.unwrap();
    store.commit(&first, &digest, 3000, None).await.unwrap();

    let second = store.open_partial(&digest, None).await.unwrap();
    assert!(second.segment_map().is_none());
    second.blocking().write_at(0, &bytes).unwrap();
    store.commit(&first, &digest, 3000, None).await.unwrap();
    assert!(
        store.disk().layout.partial(&(&digest).into()).exists(),
        "the old handle does not affect the new partial file"
    );
    store.commit(&second, &digest, 3000, None).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap(), bytes);
    assert_eq!(disk_usage(&store).await, 3000);
    assert!(!store.disk().layout.partial(&(&digest).into()).exists());
}

#[tokio::test]
async fn a_stored_blob_is_never_written_through_its_partial_file() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let digest = Digest::sha256(b"good");
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, b"good").unwrap();
    store.commit(&partial, &digest, 4, None).await.unwrap();
    assert!(matches!(partial.blocking().write_at(0, b"evil"), Err(StoreError::Closed)));
    assert!(matches!(partial.blocking().reserve(9), Err(StoreError::Closed)));
    assert!(matches!(partial.blocking().save_segment_map(map_of(Segments::new())), Err(StoreError::Closed)));
    store.discard_partial(&digest).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"good");
    let mut bytes = [0; 4];
    assert_eq!(partial.blocking().read_at(0, &mut bytes).unwrap(), 4, "open readers are not affected");
}

#[tokio::test]
async fn a_commit_refuses_too_few_bytes_and_cuts_off_too_many() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let digest = Digest::sha256(b"0123");
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, b"012").unwrap();
    let error = store.commit(&partial, &digest, 4, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { expected: 4, actual: 3 }), "{error}");
    partial.blocking().write_at(3, b"3456").unwrap();
    store.commit(&partial, &digest, 4, None).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"0123");

    let empty = store_blob(&store, b"").await;
    assert_eq!(read_blob(&store, &empty).await.unwrap(), b"");
}

#[tokio::test]
async fn a_truncated_stored_blob_is_replaced_by_the_next_commit() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let digest = store_blob(&store, b"0123").await;
    File::options().write(true).open(store.disk().layout.blob(&digest)).unwrap().set_len(1).unwrap();
    store_blob(&store, b"0123").await;
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"0123");
}
