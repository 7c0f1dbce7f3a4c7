//! The disk and the runtime under the store.

use std::process::Command;

use tokio::runtime::{Builder, Runtime};

use super::*;

/// A small filesystem of its own in memory, gone with this value.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "blob-store-test"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_no_space_and_leaves_room_for_what_still_fits() {
    // Without the right to mount, that a full device is told apart is shown by the test in `error` alone.
    let Some(disk) = SmallDisk::mount() else { return };
    assert_eq!(rustix::fs::statvfs(disk.0.path()).unwrap().f_blocks * 4, 1024, "the small disk is there");
    let store = open(&disk.0);
    let digest = Digest::sha256(b"x");
    let partial = store.begin(&digest, Some(2 << 20)).await.unwrap();
    assert!(partial.reserve(2 << 20).unwrap_err().is_no_space());
    partial.reserve(512 << 10).unwrap();
    assert_eq!(partial.file().metadata().unwrap().len(), 0, "reserved space is no bytes of the blob");
    store.ready().await.unwrap();
    let error = (0..9).find_map(|n| partial.write_at(n << 18, &layer(1 << 18)).err()).unwrap();
    assert!(error.is_no_space(), "{error}");
    assert!(store.ready().await.unwrap_err().is_no_space());
    store.discard(&digest).await.unwrap();
    drop(partial);
    store.ready().await.unwrap();
    store_blob(&store, &layer(512 << 10)).await;
}

#[tokio::test]
async fn a_store_that_cannot_write_is_not_ready() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let ready = probe_at_once(&store, 8).await;
    assert!(ready.iter().all(Result::is_ok), "probes at one time do not disturb each other: {ready:?}");
    fs::remove_dir_all(store.0.layout.partials()).unwrap();
    assert!(matches!(store.ready().await, Err(StoreError::Io { .. })));

    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(LocalStore::open(&file), Err(StoreError::Io { .. })));
}

async fn probe_at_once(store: &LocalStore, count: usize) -> Vec<Result<(), StoreError>> {
    let mut probes = tokio::task::JoinSet::new();
    for _ in 0..count {
        let store = store.clone();
        probes.spawn(async move { store.ready().await });
    }
    probes.join_all().await
}

#[test]
fn a_caller_may_be_on_a_runtime_of_its_own_that_goes_away() {
    let root = TempDir::new().unwrap();
    assert!(matches!(LocalStore::open(root.path()), Err(StoreError::NoRuntime)));
    let main = Runtime::new().unwrap();
    let store = main.block_on(async { open(&root) });
    let digest = thread::scope(|scope| {
        let worker = || Builder::new_current_thread().build().unwrap().block_on(store_blob(&store, b"x"));
        scope.spawn(worker).join().unwrap()
    });
    assert_eq!(main.block_on(read_blob(&store, &digest)).unwrap(), b"x");
    main.shutdown_background();
    let worker = Builder::new_current_thread().build().unwrap();
    assert!(matches!(worker.block_on(store.stored(&digest)), Err(StoreError::Stopped)));
}

#[tokio::test]
async fn what_is_no_blob_is_neither_listed_nor_counted() {
    let root = TempDir::new().unwrap();
    let digest = store_blob(&open(&root), b"0123").await;
    let store = open(&root);
    let shard = store.0.layout.blob(&digest).parent().unwrap().to_owned();
    fs::write(shard.join("notes.txt"), "x").unwrap();
    fs::write(shard.join(Digest::sha256(b"elsewhere").hex()), "x").unwrap();
    fs::create_dir(store.0.layout.blobs().join("lost+found")).unwrap();
    assert_eq!(listed(&store).await, [(digest, 4)]);
    assert_eq!(counted(&store).await, 4);
    drop(store.list());
}

#[tokio::test]
async fn blobs_that_come_and_go_during_the_first_count_are_counted_once() {
    let root = TempDir::new().unwrap();
    let before = open(&root);
    for n in 0..60_u8 {
        store_blob(&before, &[n; 10]).await;
    }
    let store = open(&root);
    for n in 0..60_u8 {
        store_blob(&store, &[n; 7]).await;
        assert!(store.remove(&Digest::sha256(&[n; 10])).await.unwrap());
    }
    assert_eq!(counted(&store).await, 60 * 7);
}
