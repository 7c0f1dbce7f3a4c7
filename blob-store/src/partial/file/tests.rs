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
    PartialFile::open(&PartialId::Blob(Digest::sha256(b"x")), directory.path(), None, 0, lock).unwrap()
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
    file.set_size(Some(1 << 20));
    file.write_at((1 << 20) - 1, b"x").unwrap();
    assert_eq!(file.size(), Some(file.length().unwrap()));
    let mut byte = [7];
    assert_eq!(file.read_at(9, &mut byte).unwrap(), 1);
    assert_eq!(byte, [0]);
    assert_eq!(file.read_at(1 << 20, &mut byte).unwrap(), 0);
    file.reserve(0).unwrap();
    assert_eq!(file.id().digest(), Some(&Digest::sha256(b"x")));
}

#[test]
fn reserved_space_that_was_not_written_is_released() {
    let directory = TempDir::new().unwrap();
    let file = partial_file(&directory);
    let allocated = || file.data.metadata().unwrap().blocks() * 512;
    file.reserve(1 << 20).unwrap();
    file.write_at(0, &[1; 4096]).unwrap();
    file.write_at(512 * 1024, &[2; 4096]).unwrap();
    assert!(allocated() >= 1 << 20);
    let present: Segments = [0..4096, 512 * 1024..512 * 1024 + 4096].into_iter().collect();
    file.release_reservation(&present).unwrap();
    assert!(allocated() <= 64 * 1024, "{}", allocated());
    let mut bytes = [0; 2];
    file.read_at(512 * 1024, &mut bytes).unwrap();
    assert_eq!(bytes, [2, 2]);
}

#[test]
fn a_reservation_leaves_the_free_space_of_the_disk_that_is_to_be_kept() {
    let directory = TempDir::new().unwrap();
    let lock = match PartialLock::try_acquire(directory.path()).unwrap() {
        LockAttempt::Acquired(lock) => lock,
        _ => panic!("the directory is locked"),
    };
    let id = PartialId::Blob(Digest::sha256(b"x"));
    let file = PartialFile::open(&id, directory.path(), None, u64::MAX, lock).unwrap();
    for refused in [file.reserve(1), file.check_room(1), file.write_at(0, b"x")] {
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
    }
    assert_eq!(file.length().unwrap(), 0);
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
