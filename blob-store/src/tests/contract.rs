//! One suite for every kind of store.

use std::collections::HashSet;

use oci_types::Algorithm;
use tempfile::TempDir;
use uuid::Uuid;

use super::{s3_server::S3Server, *};
use crate::{PartialId, SegmentMap};

/// Runs each test on the local disk, on a bucket, and on a bucket with a local cache.
macro_rules! for_every_store {
    ($($test:ident),+ $(,)?) => {
        mod local {
            $(#[tokio::test]
            async fn $test() {
                let root = super::TempDir::new().unwrap();
                super::$test(super::BlobStore::open_local(root.path()).unwrap()).await;
            })+
        }
        mod bucket {
            $(#[tokio::test]
            async fn $test() {
                let (server, root) = (super::S3Server::start().await, super::TempDir::new().unwrap());
                super::$test(server.store(&root, None)).await;
            })+
        }
        mod bucket_with_cache {
            $(#[tokio::test]
            async fn $test() {
                let (server, root) = (super::S3Server::start().await, super::TempDir::new().unwrap());
                super::$test(server.store(&root, Some(1 << 30))).await;
            })+
        }
    };
}

for_every_store!(
    a_committed_blob_is_found_read_listed_and_deleted,
    a_missing_blob_is_none,
    a_large_blob_is_read_whole_and_in_ranges,
    the_empty_blob_and_a_sha512_blob_are_stored,
    a_repeated_commit_changes_nothing,
    a_commit_without_an_upload_stores_the_same_bytes,
    a_commit_refuses_missing_bytes_and_cuts_off_extra_ones,
    a_discarded_partial_file_is_not_stored,
    a_partial_file_is_resumed,
    an_upload_is_committed_under_the_digest_that_it_turns_out_to_have,
    an_abandoned_partial_file_is_swept,
    a_working_store_passes_its_check,
);

async fn a_committed_blob_is_found_read_listed_and_deleted(store: BlobStore) {
    let (one, two) = (layer(100_000, 1), layer(7, 2));
    let digest = store_blob(&store, &one).await.unwrap();
    let other = store_blob(&store, &two).await.unwrap();
    assert_eq!(store.get(&digest).await.unwrap().unwrap().size(), 100_000);
    let head = store.head(&digest).await.unwrap().unwrap();
    assert_eq!((head.digest, head.size), (digest.clone(), 100_000));
    assert!(head.modified_at.elapsed().unwrap_or_default() < Duration::from_secs(3600));
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), one);
    assert_eq!(read_blob(&store, &other).await.unwrap().unwrap(), two);
    let mut both = [(digest.clone(), 100_000), (other.clone(), 7)];
    both.sort();
    assert_eq!(list(&store).await, both);

    assert!(store.delete(&digest).await.unwrap());
    assert!(!store.delete(&digest).await.unwrap());
    assert!(store.get(&digest).await.unwrap().is_none());
    assert!(store.get_local(&digest).await.unwrap().is_none());
    assert!(store.head(&digest).await.unwrap().is_none());
    assert_eq!(list(&store).await, [(other, 7)]);
}

async fn a_missing_blob_is_none(store: BlobStore) {
    let digest = Digest::sha256(b"nowhere");
    assert!(store.get(&digest).await.unwrap().is_none());
    assert!(store.get_local(&digest).await.unwrap().is_none());
    assert!(!store.delete(&digest).await.unwrap());
    assert!(list(&store).await.is_empty());
    store.discard_partial(&digest).await.unwrap();
}

async fn a_large_blob_is_read_whole_and_in_ranges(store: BlobStore) {
    let bytes = layer(12 * 1024 * 1024 + 345, 0);
    let digest = store_blob(&store, &bytes).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    let stored = store.get(&digest).await.unwrap().unwrap();
    for range in [0..1, 5_242_879..5_242_882, 12_582_900..12_583_257, 9..9] {
        let expected = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        assert_eq!(read_range(&stored, range).await.unwrap(), expected);
    }
}

async fn the_empty_blob_and_a_sha512_blob_are_stored(store: BlobStore) {
    let empty = store_blob(&store, b"").await.unwrap();
    assert_eq!(read_blob(&store, &empty).await.unwrap().unwrap(), b"");
    let digest = Digest::of(Algorithm::Sha512, b"x");
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, b"x").unwrap();
    store.commit(&partial, &digest, 1, None).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"x");
}

async fn a_repeated_commit_changes_nothing(store: BlobStore) {
    let digest = Digest::sha256(b"0123");
    let first = store.open_partial(&digest, None).await.unwrap();
    first.blocking().write_at(0, b"0123").unwrap();
    store.commit(&first, &digest, 4, None).await.unwrap();
    store.commit(&first, &digest, 4, None).await.unwrap();
    assert!(matches!(first.blocking().write_at(0, b"evil"), Err(StoreError::Closed)));
    let mut bytes = [0; 4];
    assert_eq!(first.blocking().read_at(0, &mut bytes).unwrap(), 4, "open readers are not affected");
    assert_eq!(&bytes, b"0123");
    store_blob(&store, b"0123").await.unwrap();
    assert_eq!(list(&store).await, [(digest, 4)]);
}

async fn a_commit_without_an_upload_stores_the_same_bytes(store: BlobStore) {
    let bytes = layer(11 * 1024 * 1024, 3);
    let digest = Digest::sha256(&bytes);
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, &bytes).unwrap();
    store.commit(&partial, &digest, length(&bytes), None).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
}

async fn a_commit_refuses_missing_bytes_and_cuts_off_extra_ones(store: BlobStore) {
    let digest = Digest::sha256(b"0123");
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, b"012").unwrap();
    let error = store.commit(&partial, &digest, 4, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { expected: 4, actual: 3 }), "{error}");
    partial.blocking().write_at(3, b"3456").unwrap();
    store.commit(&partial, &digest, 4, None).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"0123");
}

async fn a_discarded_partial_file_is_not_stored(store: BlobStore) {
    let digest = Digest::sha256(b"0123");
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, b"0123").unwrap();
    store.discard_partial(&digest).await.unwrap();
    assert!(matches!(store.commit(&partial, &digest, 4, None).await, Err(StoreError::Closed)));
    assert!(store.get(&digest).await.unwrap().is_none());
}

async fn a_partial_file_is_resumed(store: BlobStore) {
    let digest = Digest::sha256(b"0123");
    let partial = store.open_partial(&digest, Some(4)).await.unwrap();
    partial.blocking().write_at(0, b"01").unwrap();
    let map = SegmentMap { segments: std::iter::once(0..2).collect(), ..SegmentMap::default() };
    partial.blocking().save_segment_map(map).unwrap();
    drop(partial);
    assert!(store.get(&digest).await.unwrap().is_none());
    let partial = store.open_partial(&digest, Some(4)).await.unwrap();
    assert_eq!(partial.segment_map().unwrap().segments.end_from(0), 2);
    partial.blocking().write_at(2, b"23").unwrap();
    store.commit(&partial, &digest, 4, None).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"0123");
}

async fn an_upload_is_committed_under_the_digest_that_it_turns_out_to_have(store: BlobStore) {
    let id = PartialId::Upload(Uuid::from_u128(7));
    let partial = store.open_partial(&id, None).await.unwrap();
    assert!(store.start_upload(&partial).is_none());
    partial.blocking().write_at(0, b"pushed").unwrap();
    let digest = Digest::sha256(b"pushed");
    store.commit(&partial, &digest, 6, None).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"pushed");
    assert_eq!(store.sweep_partials(Duration::ZERO, &HashSet::new()).await.unwrap(), []);

    let other = store.open_partial(&digest, None).await.unwrap();
    let error = store.commit(&other, &Digest::sha256(b"other"), 0, None).await.unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { .. }), "{error}");
}

async fn an_abandoned_partial_file_is_swept(store: BlobStore) {
    let [abandoned, kept] = [b"a", b"b"].map(|bytes| PartialId::Blob(Digest::sha256(bytes)));
    for id in [&abandoned, &kept] {
        store.open_partial(id, None).await.unwrap().blocking().write_at(0, b"x").unwrap();
    }
    let keep = HashSet::from([kept]);
    assert_eq!(store.sweep_partials(Duration::ZERO, &keep).await.unwrap(), [abandoned]);
}

async fn a_working_store_passes_its_check(store: BlobStore) {
    store.check().await.unwrap();
    store_blob(&store, b"x").await.unwrap();
    store.check().await.unwrap();
}
