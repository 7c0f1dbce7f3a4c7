//! Partial files: resumed after a crash, shared, discarded, swept.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::*;

fn whole(length: u64) -> Segments {
    std::iter::once(0..length).collect()
}

#[tokio::test]
async fn a_partial_file_is_resumed_with_the_bytes_of_its_map_only() {
    let root = TempDir::new().unwrap();
    let digest = Digest::sha256(b"x");
    {
        let store = open(&root);
        let partial = store.open_partial(&digest, Some(1000)).await.unwrap();
        partial.blocking().write_at(0, &[1; 100]).unwrap();
        partial.blocking().write_at(500, &[2; 100]).unwrap();
        let segments = Segments::from_iter([0..100, 500..600]);
        let map = SegmentMap { segments, ..SegmentMap::default() };
        partial.blocking().save_segment_map(map).unwrap();
        partial.blocking().write_at(100, &[3; 400]).unwrap();
    }
    let partial = open(&root).open_partial(&digest, None).await.unwrap();
    let map = partial.segment_map().unwrap();
    assert_eq!(map.segments, Segments::from_iter([0..100, 500..600]), "the map is older than the data");
    assert_eq!((map.size, partial.size()), (Some(1000), Some(1000)));
    let mut bytes = [0; 100];
    assert_eq!(partial.blocking().read_at(500, &mut bytes).unwrap(), 100);
    assert_eq!(bytes, [2; 100]);
}

#[tokio::test]
async fn a_map_is_cut_to_the_length_of_the_data_file() {
    let root = TempDir::new().unwrap();
    let digest = Digest::sha256(b"x");
    {
        let partial = open(&root).open_partial(&digest, Some(1000)).await.unwrap();
        partial.blocking().write_at(0, &[1; 900]).unwrap();
        partial.blocking().save_segment_map(map_of(Segments::from_iter([0..300, 400..900]))).unwrap();
        partial.file().set_len(450).unwrap();
    }
    let partial = open(&root).open_partial(&digest, None).await.unwrap();
    assert_eq!(partial.segment_map().unwrap().segments, Segments::from_iter([0..300, 400..450]));
}

#[tokio::test]
async fn a_corrupt_or_missing_map_restarts_the_download() {
    let good = r#"{"version":1,"segments":[[0,4]],"size":null,"validator":null,"source":null}"#;
    let versioned = good.replace(":1", ":2");
    let reversed = good.replace("0,4", "4,0");
    for text in
        [None, Some(""), Some("{}"), good.get(..20), Some(versioned.as_str()), Some(reversed.as_str())]
    {
        let root = TempDir::new().unwrap();
        let store = open(&root);
        let digest = Digest::sha256(b"x");
        let directory = store.disk().layout.partial(&(&digest).into());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("data"), b"0123").unwrap();
        fs::write(directory.join("map.new"), good).unwrap();
        if let Some(text) = text {
            fs::write(directory.join("map"), text).unwrap();
        }
        let partial = store.open_partial(&digest, None).await.unwrap();
        assert_eq!(partial.segment_map(), None, "{text:?}");
        assert_eq!(partial.file().metadata().unwrap().len(), 0, "{text:?}");
    }
}

#[tokio::test]
async fn a_crash_after_the_rename_leaves_a_stored_blob_and_an_empty_partial_file() {
    let root = TempDir::new().unwrap();
    let digest = Digest::sha256(b"0123");
    {
        let store = open(&root);
        let partial = store.open_partial(&digest, Some(4)).await.unwrap();
        partial.blocking().write_at(0, b"0123").unwrap();
        partial.blocking().save_segment_map(map_of(whole(4))).unwrap();
        let blob = store.disk().layout.blob(&digest);
        fs::create_dir(blob.parent().unwrap()).unwrap();
        fs::rename(partial.blocking().data_path(), blob).unwrap();
    }
    let store = open(&root);
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"0123");
    assert_eq!(disk_usage(&store).await, 4);
    let partial = store.open_partial(&digest, None).await.unwrap();
    assert!(partial.segment_map().unwrap().segments.is_empty());
    store.discard_partial(&digest).await.unwrap();
    assert_eq!(files_below(root.path()), [store.disk().layout.blob(&digest)]);
}

#[tokio::test(start_paused = true)]
async fn a_partial_file_is_shared_in_a_process_and_locked_for_others() {
    let root = TempDir::new().unwrap();
    // Locks belong to open files, so a second store in the directory acts as a second process.
    let (ours, theirs) = (open(&root), open(&root));
    let digest = Digest::sha256(b"x");
    let (first, again) = tokio::join!(ours.open_partial(&digest, None), ours.open_partial(&digest, Some(9)));
    let (first, again) = (first.unwrap(), again.unwrap());
    assert_eq!(first.downgrade().upgrade().unwrap().size(), again.size(), "both are the same file");
    assert!(matches!(theirs.open_partial(&digest, None).await, Err(StoreError::Busy { .. })));
    assert!(matches!(theirs.discard_partial(&digest).await, Err(StoreError::Busy { .. })));
    assert_eq!(theirs.sweep_partials(Duration::ZERO, &HashSet::new()).await.unwrap(), []);
    drop((first, again));
    theirs.open_partial(&digest, None).await.unwrap();
}

#[tokio::test]
async fn a_discarded_partial_file_restarts_and_its_readers_are_not_affected() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let digest = Digest::sha256(b"x");
    let old = store.open_partial(&digest, Some(4)).await.unwrap();
    old.blocking().write_at(0, b"evil").unwrap();
    old.blocking().save_segment_map(map_of(whole(4))).unwrap();
    store.discard_partial(&digest).await.unwrap();
    store.discard_partial(&digest).await.unwrap();
    assert!(matches!(old.blocking().write_at(0, b"evil"), Err(StoreError::Closed)));
    assert!(matches!(store.commit(&old, &digest, 4, None).await, Err(StoreError::Closed)));

    let new = store.open_partial(&digest, None).await.unwrap();
    assert_eq!((new.segment_map(), new.size()), (None, None));
    new.blocking().write_at(0, b"x").unwrap();
    let mut bytes = [0; 4];
    assert_eq!((old.blocking().read_at(0, &mut bytes).unwrap(), &bytes), (4, b"evil"));
    drop(old);
    store.commit(&new, &digest, 1, None).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_sweep_removes_old_partial_files_except_those_kept_or_open() {
    let root = TempDir::new().unwrap();
    let ids: Vec<PartialId> = (0..4_u8)
        .map(|n| PartialId::Blob(Digest::sha256(&[n])))
        .chain([PartialId::Upload(Uuid::from_u128(1))])
        .collect();
    let [old, kept, used, young, upload] = ids.as_slice() else { unreachable!() };
    let day = Duration::from_secs(86_400);
    let store = open(&root);
    for id in &ids {
        let partial = store.open_partial(id, None).await.unwrap();
        partial.blocking().write_at(0, b"x").unwrap();
        if id != young {
            for file in files_below(partial.blocking().directory()) {
                File::options()
                    .write(true)
                    .open(file)
                    .unwrap()
                    .set_modified(SystemTime::now() - 2 * day)
                    .unwrap();
            }
        }
    }
    fs::create_dir(store.disk().layout.partials().join("lost+found")).unwrap();
    let in_use = store.open_partial(used, None).await.unwrap();
    let mut swept = store.sweep_partials(day, &HashSet::from([kept.clone()])).await.unwrap();
    swept.sort();
    assert_eq!(swept, [old.clone(), upload.clone()]);
    for (id, is_left) in [(old, false), (kept, true), (used, true), (young, true)] {
        assert_eq!(store.disk().layout.partial(id).exists(), is_left);
    }
    drop(in_use);
    assert_eq!(store.sweep_partials(Duration::ZERO, &HashSet::new()).await.unwrap().len(), 3);
}

/// An operation on a partial file between two starts of the process.
#[derive(Debug, Clone)]
enum Step {
    Write(u64, u8),
    Save,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..20_u64, 1..=9_u8).prop_map(|(chunk, length)| Step::Write(chunk, length)),
        1 => Just(Step::Save),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_bytes_of_a_map_are_intact_after_a_crash(steps in steps()) {
        let blob = layer(200);
        let digest = Digest::sha256(&blob);
        let root = TempDir::new().unwrap();
        let runtime = Runtime::new().unwrap();
        let open_partial = || runtime.block_on(async { open(&root).open_partial(&digest, Some(200)).await.unwrap() });
        let mut partial = open_partial();
        let (mut written, mut saved) = (Segments::new(), Segments::new());
        for step in steps {
            match step {
                Step::Write(chunk, length) => {
                    let (start, end) = (chunk * 10, chunk * 10 + u64::from(length));
                    let bytes = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                    partial.blocking().write_at(start, blob.get(bytes).unwrap()).unwrap();
                    written.insert(start..end);
                }
                Step::Save => {
                    partial.blocking().save_segment_map(map_of(written.clone())).unwrap();
                    saved = written.clone();
                }
                Step::Crash => {
                    drop(partial);
                    partial = open_partial();
                    written = saved.clone();
                }
            }
            let map = partial.segment_map().map(|map| map.segments).unwrap_or_default();
            prop_assert_eq!(&map, &saved);
            for run in map.iter() {
                let run = usize::try_from(run.start).unwrap()..usize::try_from(run.end).unwrap();
                let mut bytes = vec![0; run.len()];
                partial.file().read_exact_at(&mut bytes, u64::try_from(run.start).unwrap()).unwrap();
                prop_assert_eq!(bytes.as_slice(), blob.get(run).unwrap());
            }
        }
    }
}
