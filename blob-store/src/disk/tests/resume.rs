//! Partials: resumed after a crash, shared, discarded, swept.

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

fn whole(length: u64) -> Segments {
    std::iter::once(0..length).collect()
}

#[tokio::test]
async fn a_fill_resumes_with_what_its_map_names_and_no_more() {
    let root = TempDir::new().unwrap();
    let digest = Digest::sha256(b"x");
    {
        let store = open(&root);
        let partial = store.begin(&digest, Some(1000)).await.unwrap();
        partial.write_at(0, &[1; 100]).unwrap();
        partial.write_at(500, &[2; 100]).unwrap();
        let there = Segments::from_iter([0..100, 500..600]);
        partial.save_map(&there, Some("\"tag\""), Some("hub")).unwrap();
        partial.write_at(100, &[3; 400]).unwrap();
    }
    let partial = open(&root).begin(&digest, None).await.unwrap();
    let map = partial.load_map().unwrap();
    assert_eq!(map.segments, Segments::from_iter([0..100, 500..600]), "the map is older than the data");
    assert_eq!((map.validator.as_deref(), map.source.as_deref()), (Some("\"tag\""), Some("hub")));
    assert_eq!((map.size, partial.size()), (Some(1000), Some(1000)));
    let mut bytes = [0; 100];
    assert_eq!(partial.read_at(500, &mut bytes).unwrap(), 100);
    assert_eq!(bytes, [2; 100]);
}

#[tokio::test]
async fn a_map_that_names_more_than_the_data_has_is_cut_to_it() {
    let root = TempDir::new().unwrap();
    let digest = Digest::sha256(b"x");
    {
        let partial = open(&root).begin(&digest, Some(1000)).await.unwrap();
        partial.write_at(0, &[1; 900]).unwrap();
        partial.save_map(&Segments::from_iter([0..300, 400..900]), None, None).unwrap();
        partial.file().set_len(450).unwrap();
    }
    let partial = open(&root).begin(&digest, None).await.unwrap();
    assert_eq!(partial.load_map().unwrap().segments, Segments::from_iter([0..300, 400..450]));
}

#[tokio::test]
async fn a_damaged_or_missing_map_means_starting_over() {
    let good = r#"{"version":1,"segments":[[0,4]],"size":null,"validator":null,"source":null}"#;
    let versioned = good.replace(":1", ":2");
    let turned = good.replace("0,4", "4,0");
    for text in [None, Some(""), Some("{}"), good.get(..20), Some(versioned.as_str()), Some(turned.as_str())]
    {
        let root = TempDir::new().unwrap();
        let store = open(&root);
        let digest = Digest::sha256(b"x");
        let folder = store.0.layout.partial(&digest);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("data"), b"0123").unwrap();
        fs::write(folder.join("map.new"), good).unwrap();
        if let Some(text) = text {
            fs::write(folder.join("map"), text).unwrap();
        }
        let partial = store.begin(&digest, None).await.unwrap();
        assert_eq!(partial.load_map(), None, "{text:?}");
        assert_eq!(partial.file().metadata().unwrap().len(), 0, "{text:?}");
    }
}

#[tokio::test]
async fn a_crash_between_the_rename_and_the_clean_up_leaves_a_stored_blob_and_an_empty_fill() {
    let root = TempDir::new().unwrap();
    let digest = Digest::sha256(b"0123");
    {
        let store = open(&root);
        let partial = store.begin(&digest, Some(4)).await.unwrap();
        partial.write_at(0, b"0123").unwrap();
        partial.save_map(&whole(4), None, None).unwrap();
        let blob = store.0.layout.blob(&digest);
        fs::create_dir(blob.parent().unwrap()).unwrap();
        fs::rename(partial.data_path(), blob).unwrap();
    }
    let store = open(&root);
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"0123");
    assert_eq!(counted(&store).await, 4);
    let partial = store.begin(&digest, None).await.unwrap();
    assert!(partial.load_map().unwrap().segments.is_empty());
    store.discard(&digest).await.unwrap();
    assert_eq!(files_below(root.path()), [store.0.layout.blob(&digest)]);
}

#[tokio::test]
async fn one_process_fills_a_blob_and_may_begin_it_twice() {
    let root = TempDir::new().unwrap();
    // Locks are kept by open file: a second store on the folder stands for a second process.
    let (ours, theirs) = (open(&root), open(&root));
    let digest = Digest::sha256(b"x");
    let (first, again) = tokio::join!(ours.begin(&digest, None), ours.begin(&digest, Some(9)));
    let (first, again) = (first.unwrap(), again.unwrap());
    assert_eq!(first.downgrade().upgrade().unwrap().size(), again.size(), "both are one partial");
    assert!(matches!(theirs.begin(&digest, None).await, Err(StoreError::Busy { .. })));
    assert!(matches!(theirs.discard(&digest).await, Err(StoreError::Busy { .. })));
    assert_eq!(theirs.sweep_partials(Duration::ZERO, &HashSet::new()).await.unwrap(), []);
    drop((first, again));
    theirs.begin(&digest, None).await.unwrap();
}

#[tokio::test]
async fn a_discarded_fill_starts_from_nothing_while_its_readers_read_on() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let digest = Digest::sha256(b"x");
    let old = store.begin(&digest, Some(4)).await.unwrap();
    old.write_at(0, b"evil").unwrap();
    old.save_map(&whole(4), None, None).unwrap();
    store.discard(&digest).await.unwrap();
    store.discard(&digest).await.unwrap();
    assert!(matches!(old.write_at(0, b"evil"), Err(StoreError::Closed)));
    assert!(matches!(store.commit(&old, 4).await, Err(StoreError::Closed)));

    let new = store.begin(&digest, None).await.unwrap();
    assert_eq!((new.load_map(), new.size()), (None, None));
    new.write_at(0, b"x").unwrap();
    let mut bytes = [0; 4];
    assert_eq!((old.read_at(0, &mut bytes).unwrap(), &bytes), (4, b"evil"));
    drop(old);
    store.commit(&new, 1).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_sweep_takes_old_partials_but_not_those_to_keep_or_in_use() {
    let root = TempDir::new().unwrap();
    let digests: Vec<Digest> = (0..4_u8).map(|n| Digest::sha256(&[n])).collect();
    let [old, kept, used, young] = digests.as_slice() else { unreachable!() };
    let day = Duration::from_secs(86_400);
    let store = open(&root);
    for digest in &digests {
        let partial = store.begin(digest, None).await.unwrap();
        partial.write_at(0, b"x").unwrap();
        if digest != young {
            for file in files_below(partial.folder()) {
                File::options()
                    .write(true)
                    .open(file)
                    .unwrap()
                    .set_modified(SystemTime::now() - 2 * day)
                    .unwrap();
            }
        }
    }
    fs::create_dir(store.0.layout.partials().join("lost+found")).unwrap();
    let in_use = store.begin(used, None).await.unwrap();
    let swept = store.sweep_partials(day, &HashSet::from([kept.clone()])).await.unwrap();
    assert_eq!(swept, std::slice::from_ref(old));
    for (digest, left) in [(old, false), (kept, true), (used, true), (young, true)] {
        assert_eq!(store.0.layout.partial(digest).exists(), left);
    }
    drop(in_use);
    assert_eq!(store.sweep_partials(Duration::ZERO, &HashSet::new()).await.unwrap().len(), 3);
}

/// What happens to a fill, between two starts of the process.
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
    fn whatever_a_map_names_after_a_crash_reads_as_it_was_written(steps in steps()) {
        let blob = layer(200);
        let digest = Digest::sha256(&blob);
        let root = TempDir::new().unwrap();
        let runtime = Runtime::new().unwrap();
        let begin = || runtime.block_on(async { open(&root).begin(&digest, Some(200)).await.unwrap() });
        let mut partial = begin();
        let (mut written, mut saved) = (Segments::new(), Segments::new());
        for step in steps {
            match step {
                Step::Write(chunk, length) => {
                    let (start, end) = (chunk * 10, chunk * 10 + u64::from(length));
                    let bytes = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                    partial.write_at(start, blob.get(bytes).unwrap()).unwrap();
                    written.insert(start..end);
                }
                Step::Save => {
                    partial.save_map(&written, None, None).unwrap();
                    saved = written.clone();
                }
                Step::Crash => {
                    drop(partial);
                    partial = begin();
                    written = saved.clone();
                }
            }
            let map = partial.load_map().map(|map| map.segments).unwrap_or_default();
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
