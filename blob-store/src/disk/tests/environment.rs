//! Full disks, missing directories, and runtimes that stop.

use std::{process::Command, thread};

use tokio::runtime::{Builder, Runtime};

use super::*;

/// A small filesystem in memory, unmounted on drop.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` without the privilege to mount.
    fn mount() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "blob-store-test"]).arg(directory.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_a_smaller_blob_is_still_stored() {
    // Without the privilege to mount, only the test in `error` covers a full disk.
    let Some(disk) = SmallDisk::mount() else { return };
    assert_eq!(
        rustix::fs::statvfs(disk.0.path()).unwrap().f_blocks * 4,
        1024,
        "the small filesystem is mounted"
    );
    let store = open(&disk.0);
    let digest = Digest::sha256(b"x");
    let partial = store.open_partial(&digest, Some(2 << 20)).await.unwrap();
    assert!(partial.blocking().reserve(2 << 20).unwrap_err().is_no_space());
    partial.blocking().reserve(512 << 10).unwrap();
    assert_eq!(partial.file().metadata().unwrap().len(), 0, "reserved space does not change the length");
    store.check().await.unwrap();
    let error = (0..9).find_map(|n| partial.blocking().write_at(n << 18, &layer(1 << 18)).err()).unwrap();
    assert!(error.is_no_space(), "{error}");
    assert!(store.check().await.unwrap_err().is_no_space());
    store.discard_partial(&digest).await.unwrap();
    drop(partial);
    store.check().await.unwrap();
    store_blob(&store, &layer(512 << 10)).await;
}

#[tokio::test]
async fn a_store_that_cannot_write_fails_its_check() {
    let root = TempDir::new().unwrap();
    let store = open(&root);
    let checks = check_concurrently(&store, 8).await;
    assert!(checks.iter().all(Result::is_ok), "{checks:?}");
    let partials = store.disk().layout.partials();
    fs::remove_dir_all(&partials).unwrap();
    store.check().await.unwrap();
    assert!(partials.is_dir(), "it is created again");
    fs::remove_dir_all(&partials).unwrap();
    fs::write(&partials, "").unwrap();
    assert!(matches!(store.check().await, Err(StoreError::Io { .. })));

    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(BlobStore::open_local(&file), Err(StoreError::Io { .. })));
}

async fn check_concurrently(store: &BlobStore, count: usize) -> Vec<Result<(), StoreError>> {
    let mut checks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let store = store.clone();
        checks.spawn(async move { store.check().await });
    }
    checks.join_all().await
}

#[test]
fn a_caller_may_use_another_runtime_than_the_store() {
    let root = TempDir::new().unwrap();
    assert!(matches!(BlobStore::open_local(root.path()), Err(StoreError::NoRuntime)));
    let main = Runtime::new().unwrap();
    let store = main.block_on(async { open(&root) });
    let digest = thread::scope(|scope| {
        let worker = || Builder::new_current_thread().build().unwrap().block_on(store_blob(&store, b"x"));
        scope.spawn(worker).join().unwrap()
    });
    assert_eq!(main.block_on(read_blob(&store, &digest)).unwrap(), b"x");
    main.shutdown_background();
    let worker = Builder::new_current_thread().build().unwrap();
    assert!(matches!(worker.block_on(store.get_local(&digest)), Err(StoreError::Stopped)));
}

#[tokio::test]
async fn other_files_are_neither_listed_nor_measured() {
    let root = TempDir::new().unwrap();
    let digest = store_blob(&open(&root), b"0123").await;
    let store = open(&root);
    let shard = store.disk().layout.blob(&digest).parent().unwrap().to_owned();
    fs::write(shard.join("notes.txt"), "x").unwrap();
    fs::write(shard.join(Digest::sha256(b"elsewhere").hex()), "x").unwrap();
    fs::create_dir(store.disk().layout.blobs().join("lost+found")).unwrap();
    assert_eq!(list(&store).await, [(digest, 4)]);
    assert_eq!(disk_usage(&store).await, 4);
    drop(store.list());
}

#[tokio::test]
async fn blobs_stored_and_deleted_during_the_scan_are_measured_once() {
    let root = TempDir::new().unwrap();
    let before = open(&root);
    for n in 0..60_u8 {
        store_blob(&before, &[n; 10]).await;
    }
    let store = open(&root);
    for n in 0..60_u8 {
        store_blob(&store, &[n; 7]).await;
        assert!(store.delete(&Digest::sha256(&[n; 10])).await.unwrap());
    }
    assert_eq!(disk_usage(&store).await, 60 * 7);
}
