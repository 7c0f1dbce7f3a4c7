use tempfile::TempDir;

use super::*;

fn partial(folder: &TempDir) -> Partial {
    let Attempt::Taken(lock) = PartialLock::attempt(folder.path()).unwrap() else {
        panic!("the folder is held")
    };
    Partial::open(&Digest::sha256(b"x"), folder.path(), None, lock).unwrap()
}

#[test]
fn after_a_failed_sync_the_map_before_it_stands_and_nothing_more_is_claimed() {
    let folder = TempDir::new().unwrap();
    let partial = partial(&folder);
    partial.write_at(0, b"0123").unwrap();
    let first: Segments = std::iter::once(0..4).collect();
    partial.save_map(&first, None, None).unwrap();

    // The next sync would succeed, though the bytes are gone: the system tells of a failure once.
    partial.0.lost.store(true, Ordering::Release);
    partial.write_at(4, b"4567").unwrap();
    let more = std::iter::once(0..8).collect();
    assert!(matches!(partial.save_map(&more, None, None), Err(StoreError::Lost { .. })));
    assert_eq!(partial.load_map().unwrap().segments, first);
    assert_eq!(SavedMap::read(folder.path(), 8).unwrap().segments, first);
}

#[test]
fn a_partial_is_sparse_and_knows_its_size_when_told() {
    let folder = TempDir::new().unwrap();
    let partial = partial(&folder);
    assert_eq!(partial.size(), None);
    partial.set_size(1 << 40);
    partial.write_at((1 << 40) - 1, b"x").unwrap();
    assert_eq!(partial.size(), Some(partial.file().metadata().unwrap().len()));
    let mut byte = [7];
    assert_eq!(partial.read_at(9, &mut byte).unwrap(), 1);
    assert_eq!(byte, [0]);
    assert_eq!(partial.read_at(1 << 40, &mut byte).unwrap(), 0);
    partial.reserve(0).unwrap();
    assert_eq!(partial.digest(), &Digest::sha256(b"x"));
}
