use oci_types::{Algorithm, Digest, Hasher};
use tempfile::TempDir;

use super::*;
use crate::{
    Segments,
    partial::{HashedPrefix, LockAttempt},
};

fn partial_file(directory: &TempDir) -> PartialFile {
    let LockAttempt::Acquired(lock) = PartialLock::try_acquire(directory.path()).unwrap() else {
        panic!("the directory is locked")
    };
    PartialFile::open(&PartialId::Blob(Digest::sha256(b"x")), directory.path(), None, lock).unwrap()
}

fn map_of(segments: Segments) -> SegmentMap {
    SegmentMap { segments, ..SegmentMap::default() }
}

#[test]
fn after_a_failed_sync_the_previous_map_remains_and_no_other_is_saved() {
    let directory = TempDir::new().unwrap();
    let file = partial_file(&directory);
    file.write_at(0, b"0123").unwrap();
    let first: Segments = std::iter::once(0..4).collect();
    file.save_segment_map(map_of(first.clone())).unwrap();

    // The kernel reports a failed sync once; the next one succeeds although the bytes are lost.
    file.sync_failed.store(true, Ordering::Release);
    file.write_at(4, b"4567").unwrap();
    let more = map_of(std::iter::once(0..8).collect());
    assert!(matches!(file.save_segment_map(more), Err(StoreError::SyncFailed { .. })));
    assert_eq!(file.segment_map().unwrap().segments, first);
    assert_eq!(SegmentMap::read(directory.path(), 8).unwrap().segments, first);
}

#[test]
fn a_partial_file_is_sparse_and_has_the_size_that_was_set() {
    let directory = TempDir::new().unwrap();
    let file = partial_file(&directory);
    assert_eq!(file.size(), None);
    file.set_size(1 << 40);
    file.write_at((1 << 40) - 1, b"x").unwrap();
    assert_eq!(file.size(), Some(file.length().unwrap()));
    let mut byte = [7];
    assert_eq!(file.read_at(9, &mut byte).unwrap(), 1);
    assert_eq!(byte, [0]);
    assert_eq!(file.read_at(1 << 40, &mut byte).unwrap(), 0);
    file.reserve(0).unwrap();
    assert_eq!(file.id().digest(), Some(&Digest::sha256(b"x")));
}

#[test]
fn a_saved_hash_continues_after_a_restart_and_is_dropped_when_its_bytes_are_missing() {
    let directory = TempDir::new().unwrap();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(b"0123");
    let hashed = Some(HashedPrefix { end: 4, hasher: hasher.save() });
    {
        let file = partial_file(&directory);
        file.write_at(0, b"012345").unwrap();
        let segments = std::iter::once(0..6).collect();
        file.save_segment_map(SegmentMap { segments, hashed, ..SegmentMap::default() }).unwrap();
    }
    let saved = partial_file(&directory).segment_map().unwrap().hashed.unwrap();
    let mut hasher = Hasher::restore(&saved.hasher).unwrap();
    hasher.update(b"45");
    assert_eq!((saved.end, hasher.finish()), (4, Digest::sha256(b"012345")));

    let cut = SegmentMap::read(directory.path(), 3).unwrap();
    assert_eq!((cut.segments.end_from(0), cut.hashed), (3, None));
}
