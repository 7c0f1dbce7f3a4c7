//! The store over real files.

mod disk;
mod resume;

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::Segments;

fn layer(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

fn open(root: &TempDir) -> LocalStore {
    LocalStore::open(root.path()).unwrap()
}

async fn store_blob(store: &LocalStore, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, bytes).unwrap();
    store.commit(&partial, u64::try_from(bytes.len()).unwrap()).await.unwrap();
    digest
}

async fn read_blob(store: &LocalStore, digest: &Digest) -> Option<Vec<u8>> {
    let blob = store.stored(digest).await.unwrap()?;
    let mut bytes = vec![0; usize::try_from(blob.size).unwrap()];
    blob.file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

async fn listed(store: &LocalStore) -> Vec<(Digest, u64)> {
    let (mut list, mut found) = (store.list(), Vec::new());
    while let Some(blob) = list.recv().await {
        let blob = blob.unwrap();
        found.push((blob.digest, blob.size));
    }
    found.sort();
    found
}

async fn counted(store: &LocalStore) -> u64 {
    let give_up_at = Instant::now() + Duration::from_secs(20);
    loop {
        match store.usage().await {
            DiskUsage { bytes, complete: true } => return bytes,
            _ => assert!(Instant::now() < give_up_at, "the stored blobs were not counted"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn a_committed_blob_is_stored_listed_counted_and_removed() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let bytes = layer(100_000);
    let digest = Digest::sha256(&bytes);
    assert!(store.stored(&digest).await.unwrap().is_none());

    let partial = store.begin(&digest, Some(100_000)).await.unwrap();
    partial.reserve(100_000).unwrap();
    partial.write_at(50_000, bytes.get(50_000..).unwrap()).unwrap();
    partial.write_at(0, bytes.get(..50_000).unwrap()).unwrap();
    assert!(store.stored(&digest).await.unwrap().is_none(), "nothing half-written is stored");
    store.commit(&partial, 100_000).await.unwrap();

    assert_eq!(read_blob(&store, &digest).await.unwrap(), bytes);
    assert_eq!(listed(&store).await, [(digest.clone(), 100_000)]);
    assert_eq!(counted(&store).await, 100_000);
    assert_eq!(files_below(root.path()), [store.0.layout.blob(&digest)], "nothing else is left");

    let blob = store.stored(&digest).await.unwrap().unwrap();
    assert!(store.remove(&digest).await.unwrap());
    assert!(!store.remove(&digest).await.unwrap());
    assert!(store.stored(&digest).await.unwrap().is_none());
    assert_eq!(store.usage().await.bytes, 0);
    let mut start = [0; 10];
    blob.file.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start, bytes.get(..10).unwrap(), "whoever had it open reads on");
}

#[tokio::test]
async fn committing_again_changes_nothing() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let bytes = layer(3000);
    let digest = Digest::sha256(&bytes);
    let first = store.begin(&digest, None).await.unwrap();
    first.write_at(0, &bytes).unwrap();
    store.commit(&first, 3000).await.unwrap();
    store.commit(&first, 3000).await.unwrap();

    let second = store.begin(&digest, None).await.unwrap();
    assert!(second.load_map().is_none());
    second.write_at(0, &bytes).unwrap();
    store.commit(&first, 3000).await.unwrap();
    assert!(store.0.layout.partial(&digest).exists(), "the old handle leaves the new fill alone");
    store.commit(&second, 3000).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap(), bytes);
    assert_eq!(counted(&store).await, 3000);
    assert!(!store.0.layout.partial(&digest).exists());
}

#[tokio::test]
async fn a_stored_blob_is_never_written_through_the_partial_that_it_was() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let digest = Digest::sha256(b"good");
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, b"good").unwrap();
    store.commit(&partial, 4).await.unwrap();
    assert!(matches!(partial.write_at(0, b"evil"), Err(StoreError::Closed)));
    assert!(matches!(partial.reserve(9), Err(StoreError::Closed)));
    assert!(matches!(partial.save_map(&Segments::new(), None, None), Err(StoreError::Closed)));
    store.discard(&digest).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"good");
    let mut bytes = [0; 4];
    assert_eq!(partial.read_at(0, &mut bytes).unwrap(), 4, "a reader of the fill reads on");
}

#[tokio::test]
async fn a_commit_refuses_too_few_bytes_and_cuts_off_too_many() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let digest = Digest::sha256(b"0123");
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, b"012").unwrap();
    let error = store.commit(&partial, 4).await.unwrap_err();
    assert!(matches!(error, StoreError::Short { expected: 4, actual: 3 }), "{error}");
    partial.write_at(3, b"3456").unwrap();
    store.commit(&partial, 4).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"0123");

    let empty = store_blob(&store, b"").await;
    assert_eq!(read_blob(&store, &empty).await.unwrap(), b"");
}

#[tokio::test]
async fn a_stored_blob_that_the_disk_cut_short_is_replaced_by_the_next_commit() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let digest = store_blob(&store, b"0123").await;
    File::options().write(true).open(store.0.layout.blob(&digest)).unwrap().set_len(1).unwrap();
    store_blob(&store, b"0123").await;
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"0123");
}
