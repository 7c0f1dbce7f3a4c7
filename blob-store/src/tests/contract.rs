//! One suite, run over every kind of store.

use std::collections::HashSet;

use oci_types::Algorithm;
use tempfile::TempDir;

use super::{s3_server::S3Server, *};
use crate::LocalStore;

/// Runs each function over a local folder, over a bucket, and over a bucket with a cache tier.
macro_rules! for_every_store {
    ($($test:ident),+ $(,)?) => {
        mod local {
            $(#[tokio::test]
            async fn $test() {
                let root = super::TempDir::new().unwrap();
                let store = super::LocalStore::open(root.path()).unwrap();
                super::$test(super::BlobStore::Local(store)).await;
            })+
        }
        mod bucket {
            $(#[tokio::test]
            async fn $test() {
                let (server, root) = (super::S3Server::start().await, super::TempDir::new().unwrap());
                super::$test(server.store(&root, None)).await;
            })+
        }
        mod bucket_with_cache_tier {
            $(#[tokio::test]
            async fn $test() {
                let (server, root) = (super::S3Server::start().await, super::TempDir::new().unwrap());
                super::$test(server.store(&root, Some(1 << 30))).await;
            })+
        }
    };
}

for_every_store!(
    a_committed_blob_is_located_read_listed_and_removed,
    a_blob_that_is_not_there_is_none,
    a_large_blob_is_read_whole_and_in_windows,
    the_empty_blob_and_one_by_sha512_are_stored,
    committing_again_changes_nothing,
    a_commit_without_an_upload_stores_the_same,
    a_commit_refuses_too_few_bytes_and_leaves_out_too_many,
    what_was_discarded_is_not_stored_and_cannot_be,
    a_fill_that_was_left_is_taken_up,
    a_partial_that_was_left_is_swept,
    a_store_that_works_is_ready,
);

async fn a_committed_blob_is_located_read_listed_and_removed(store: BlobStore) {
    let (one, two) = (layer(100_000, 1), layer(7, 2));
    let digest = store_blob(&store, &one).await.unwrap();
    let other = store_blob(&store, &two).await.unwrap();
    assert_eq!(store.locate(&digest).await.unwrap().unwrap().size(), 100_000);
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), one);
    assert_eq!(read_blob(&store, &other).await.unwrap().unwrap(), two);
    let mut both = [(digest.clone(), 100_000), (other.clone(), 7)];
    both.sort();
    assert_eq!(listed(&store).await, both);

    assert!(store.remove(&digest).await.unwrap());
    assert!(!store.remove(&digest).await.unwrap());
    assert!(store.locate(&digest).await.unwrap().is_none());
    assert!(store.stored(&digest).await.unwrap().is_none());
    assert_eq!(listed(&store).await, [(other, 7)]);
}

async fn a_blob_that_is_not_there_is_none(store: BlobStore) {
    let digest = Digest::sha256(b"nowhere");
    assert!(store.locate(&digest).await.unwrap().is_none());
    assert!(store.stored(&digest).await.unwrap().is_none());
    assert!(!store.remove(&digest).await.unwrap());
    assert!(listed(&store).await.is_empty());
    store.discard(&digest).await.unwrap();
}

async fn a_large_blob_is_read_whole_and_in_windows(store: BlobStore) {
    let bytes = layer(12 * 1024 * 1024 + 345, 0);
    let digest = store_blob(&store, &bytes).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    let stored = store.locate(&digest).await.unwrap().unwrap();
    for window in [0..1, 5_242_879..5_242_882, 12_582_900..12_583_257, 9..9] {
        let expected = &bytes[usize::try_from(window.start).unwrap()..usize::try_from(window.end).unwrap()];
        assert_eq!(read_range(&stored, window).await.unwrap(), expected);
    }
}

async fn the_empty_blob_and_one_by_sha512_are_stored(store: BlobStore) {
    let empty = store_blob(&store, b"").await.unwrap();
    assert_eq!(read_blob(&store, &empty).await.unwrap().unwrap(), b"");
    let digest = Digest::of(Algorithm::Sha512, b"x");
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, b"x").unwrap();
    store.commit(&partial, 1).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"x");
}

async fn committing_again_changes_nothing(store: BlobStore) {
    let digest = Digest::sha256(b"0123");
    let first = store.begin(&digest, None).await.unwrap();
    first.write_at(0, b"0123").unwrap();
    store.commit(&first, 4).await.unwrap();
    store.commit(&first, 4).await.unwrap();
    assert!(matches!(first.write_at(0, b"evil"), Err(StoreError::Closed)));
    let mut bytes = [0; 4];
    assert_eq!(first.read_at(0, &mut bytes).unwrap(), 4, "a reader of the fill reads on");
    assert_eq!(&bytes, b"0123");
    store_blob(&store, b"0123").await.unwrap();
    assert_eq!(listed(&store).await, [(digest, 4)]);
}

async fn a_commit_without_an_upload_stores_the_same(store: BlobStore) {
    let bytes = layer(11 * 1024 * 1024, 3);
    let digest = Digest::sha256(&bytes);
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, &bytes).unwrap();
    store.commit(&partial, length(&bytes)).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
}

async fn a_commit_refuses_too_few_bytes_and_leaves_out_too_many(store: BlobStore) {
    let digest = Digest::sha256(b"0123");
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, b"012").unwrap();
    let error = store.commit(&partial, 4).await.unwrap_err();
    assert!(matches!(error, StoreError::Short { expected: 4, actual: 3 }), "{error}");
    partial.write_at(3, b"3456").unwrap();
    store.commit(&partial, 4).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"0123");
}

async fn what_was_discarded_is_not_stored_and_cannot_be(store: BlobStore) {
    let digest = Digest::sha256(b"0123");
    let partial = store.begin(&digest, None).await.unwrap();
    partial.write_at(0, b"0123").unwrap();
    store.discard(&digest).await.unwrap();
    assert!(matches!(store.commit(&partial, 4).await, Err(StoreError::Closed)));
    assert!(store.locate(&digest).await.unwrap().is_none());
}

async fn a_fill_that_was_left_is_taken_up(store: BlobStore) {
    let digest = Digest::sha256(b"0123");
    let partial = store.begin(&digest, Some(4)).await.unwrap();
    partial.write_at(0, b"01").unwrap();
    partial.save_map(&std::iter::once(0..2).collect(), None, None).unwrap();
    drop(partial);
    assert!(store.locate(&digest).await.unwrap().is_none());
    let partial = store.begin(&digest, Some(4)).await.unwrap();
    assert_eq!(partial.load_map().unwrap().segments.end_from(0), 2);
    partial.write_at(2, b"23").unwrap();
    store.commit(&partial, 4).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"0123");
}

async fn a_partial_that_was_left_is_swept(store: BlobStore) {
    let [left, kept] = [b"a", b"b"].map(|bytes| Digest::sha256(bytes));
    for digest in [&left, &kept] {
        store.begin(digest, None).await.unwrap().write_at(0, b"x").unwrap();
    }
    let keep = HashSet::from([kept]);
    assert_eq!(store.sweep_partials(Duration::ZERO, &keep).await.unwrap(), [left]);
}

async fn a_store_that_works_is_ready(store: BlobStore) {
    store.ready().await.unwrap();
    store_blob(&store, b"x").await.unwrap();
    store.ready().await.unwrap();
}
