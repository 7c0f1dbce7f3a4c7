//! Disks that are full: clients get their bytes all the same. The data folder is a small tmpfs, which takes root.

use std::{path::PathBuf, process::Command, time::Duration};

use bytes::Bytes;
use reqwest::StatusCode;
use tempfile::TempDir;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    image::Layer,
    world::{TestWorld, WorldBuilder},
};

use crate::cold::{Cold, MIB, NAME, REPOSITORY, count, image, sections, within};

const NOT_STORED: &str = "tidegate; fwd=bypass; detail=not-stored";

/// A file system of a given size, mounted until this is dropped: before the folder that it lies in, which could not be
/// removed otherwise.
struct Small {
    at: PathBuf,
}

impl Small {
    fn mount(dir: &TempDir, mebibytes: usize) -> Self {
        let at = dir.path().join("data");
        std::fs::create_dir(&at).unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).status();
        assert!(mounted.unwrap().success(), "this test mounts a tmpfs: run it as root");
        Self { at }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: files may still be open in the process under test.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.at).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// A world with so much space for blobs; its database lies elsewhere.
fn world(upstream: &ChaosUpstream, mebibytes: usize) -> (Small, WorldBuilder) {
    let dir = TempDir::with_prefix("tdg-").unwrap();
    let small = Small::mount(&dir, mebibytes);
    let database = format!("[database]\nurl = \"sqlite://{}\"\n", dir.path().join("outside.db").display());
    let storage = "[storage]\nkeep_free = \"0\"\n";
    let builder =
        TestWorld::builder().in_dir(dir).sections(&database).sections(storage).sections(&sections(""));
    (small, builder.upstream("up", upstream, ""))
}

/// A blob whose size is known, and so much space for blobs.
async fn with_space(size: usize, mebibytes: usize) -> (Cold, Small) {
    let upstream = ChaosUpstream::start().await;
    let (small, builder) = world(&upstream, mebibytes);
    (Cold::build(size, upstream, builder).await, small)
}

async fn assert_nothing_left(cold: &Cold) {
    assert!(!cold.world.blob_path(&cold.digest).exists());
    let partial = cold.world.data_dir().join("partial");
    // The client is told before what had landed is removed.
    let left = || {
        std::fs::read_dir(&partial).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
    };
    assert_eventually!(left() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_does_not_fit_is_streamed_past_the_disk() {
    let (cold, _small) = with_space(20 * MIB, 8).await;
    let whole = cold.get(&[]).await;
    assert_eq!((whole.status, whole.header("cache-status")), (StatusCode::OK, NOT_STORED));
    assert!(whole.body == cold.bytes);
    let window = cold.range("bytes=10000000-10000999").await;
    assert_eq!((window.status, window.header("cache-status")), (StatusCode::PARTIAL_CONTENT, NOT_STORED));
    assert!(window.body == cold.bytes[10_000_000..10_001_000]);
    assert_eq!(cold.range("bytes=99999999-").await.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_nothing_left(&cold).await;
    assert!(cold.world.metric("tidegate_fills_total{outcome=\"no-space\"}").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_disk_a_download_that_breaks_is_resumed_and_wrong_bytes_are_not_served_whole() {
    let (cold, _small) = with_space(20 * MIB, 8).await;
    let half = u64::try_from(10 * MIB).unwrap();
    cold.on_blob(1, [Fault::CutAfter(half)]);
    cold.assert_served().await;
    assert_eq!(cold.asked_ranges().last().unwrap(), &format!("bytes={half}-"));
    let all = format!("bytes=0-{}", 20 * MIB - 1);
    for (range, status) in [("bytes=0-", 206), (all.as_str(), 206), ("bytes=0-1,5-6", 200)] {
        cold.on_blob(1, [Fault::WrongByteAt(half)]);
        let wrong = cold.raw(&[("range", range)]).await;
        assert_eq!((wrong.status, wrong.header("cache-status")), (status, NOT_STORED), "{range}");
        assert!(!wrong.rest().await.complete, "{range}");
    }
    cold.assert_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_disk_fills_up_in_the_middle_clients_go_on_from_upstream() {
    let upstream = ChaosUpstream::start().await;
    let (small, builder) = world(&upstream, 12);
    // For a blob whose size nobody knows before the first byte nothing is reserved.
    upstream.on(Rule::on("HEAD", "/blobs/").then(Fault::NoContentLength));
    upstream.put_image(REPOSITORY, "1", &image(20 * MIB));
    let world = builder.start().await;
    let Layer { digest, bytes } = image(20 * MIB).layers[0].clone();
    let url = world.content_url(NAME, &digest).await;
    let (cold, _small) = (Cold { upstream, world, digest, bytes, url }, small);
    cold.on_blob(1, [within(20 * MIB, Duration::from_millis(800))]);
    let (early, other) = (cold.raw(&[]).await, cold.raw(&[("range", "bytes=0-")]).await);
    let window = cold.raw(&[("range", "bytes=2000000-19999999")]).await;
    assert_eq!((early.status, other.status, window.status), (200, 206, 206));
    let (early, other, window) = tokio::join!(early.rest(), other.rest(), window.rest());
    assert!(early.complete && early.bytes == cold.bytes);
    assert!(other.complete && other.bytes == cold.bytes);
    assert!(window.complete && window.bytes == cold.bytes[2_000_000..20_000_000]);
    cold.idle().await;
    assert_nothing_left(&cold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_there_is_space_again_the_blob_is_stored() {
    let (cold, _small) = with_space(6 * MIB, 8).await;
    let ballast = cold.world.data_dir().join("ballast");
    std::fs::write(&ballast, vec![0; 5 * MIB]).unwrap();
    assert_eq!(cold.get(&[]).await.header("cache-status"), NOT_STORED);
    assert_nothing_left(&cold).await;
    std::fs::remove_file(&ballast).unwrap();
    assert_eventually!(cold.get(&[]).await.header("cache-status") != NOT_STORED);
    cold.assert_stored().await;
}

/// An image whose manifest states another size for its layer.
fn manifest_with_size(size: usize, stated: usize) -> Bytes {
    let text = String::from_utf8(image(size).manifest.to_vec()).unwrap();
    let (before, after) = (format!("\"size\":{size}"), format!("\"size\":{stated}"));
    assert_eq!(text.matches(&before).count(), 1, "{text}");
    Bytes::from(text.replace(&before, &after))
}

/// The free space of the file system of the data directory, in bytes.
fn free(world: &TestWorld) -> u64 {
    let disk = rustix::fs::statvfs(world.data_dir()).unwrap();
    disk.f_bavail * disk.f_frsize
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_only_a_manifest_states_reserves_no_space() {
    let upstream = ChaosUpstream::start().await;
    let (_small, builder) = world(&upstream, 40);
    let (manifest, media_type) = (manifest_with_size(1000, 30 * MIB), image(1000).media_type);
    let Layer { digest, bytes } = image(1000).layers[0].clone();
    upstream.put_image(REPOSITORY, "1", &image(1000));
    upstream.put_manifest(REPOSITORY, "large", &media_type, manifest);
    let world = builder.start().await;
    assert_eq!(world.get(&format!("/v2/{NAME}/manifests/large")).await.status, StatusCode::OK);
    let url = world.content_url(NAME, &digest).await;
    upstream.on(Rule::on("GET", &digest).times(1).then(Fault::Delay(Duration::MAX)));
    let cold = Cold { upstream, world, digest, bytes, url };
    let before = free(&cold.world);
    let waiting = tokio::spawn(cold.world.client().get(&cold.url).send());
    assert_eventually!(cold.asked().len() == 1);
    assert!(free(&cold.world) + count(MIB) > before, "space is reserved before the upstream answers");
    waiting.abort();
    cold.idle().await;
    assert!(free(&cold.world) + count(MIB) > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_ends_without_its_blob_frees_the_reserved_space() {
    let upstream = ChaosUpstream::start().await;
    let (small, builder) = world(&upstream, 40);
    let (cold, _small) = (Cold::build(30 * MIB, upstream, builder).await, small);
    cold.on_blob(1, [Fault::StallForever(count(MIB))]);
    let before = free(&cold.world);
    let client = cold.raw(&[]).await;
    assert_eventually!(before - free(&cold.world) > count(29 * MIB));
    drop(client);
    cold.idle().await;
    assert_eventually!(before - free(&cold.world) < count(3 * MIB));
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_space_that_is_to_stay_free_stays_free() {
    for size_is_known in [true, false] {
        let dir = TempDir::with_prefix("tdg-").unwrap();
        let _small = Small::mount(&dir, 40);
        let upstream = ChaosUpstream::start().await;
        let database = format!("[database]\nurl = \"sqlite://{}\"\n", dir.path().join("x.db").display());
        let builder = TestWorld::builder().in_dir(dir).sections("[storage]\nkeep_free = \"20MiB\"\n");
        let builder = builder.sections(&database).sections(&sections("")).upstream("up", &upstream, "");
        upstream.put_image(REPOSITORY, "1", &image(30 * MIB));
        if !size_is_known {
            upstream.on(Rule::on("*", "/blobs/").then(Fault::NoContentLength));
        }
        let world = builder.start().await;
        let Layer { digest, bytes } = image(30 * MIB).layers[0].clone();
        let url = world.content_url(NAME, &digest).await;
        let cold = Cold { upstream, world, digest, bytes, url };
        let client = cold.raw(&[]).await;
        if size_is_known {
            let rest = client.rest().await;
            assert!(rest.complete && rest.bytes == cold.bytes);
        } else {
            assert_eq!(client.status, 507, "a blob whose size is not known is not streamed past the disk");
        }
        assert!(free(&cold.world) >= count(20 * MIB), "{} bytes are free", free(&cold.world));
        cold.idle().await;
        assert!(!cold.world.blob_path(&cold.digest).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_file_of_a_wrong_size_is_never_served_and_is_downloaded_again() {
    for size in [0, MIB - 1, MIB + 1] {
        let cold = Cold::start(MIB).await;
        cold.assert_served().await;
        cold.assert_stored().await;
        let cold = cold.restart("").await;
        let mut bytes = cold.bytes.to_vec();
        bytes.resize(size, 7);
        std::fs::write(cold.world.blob_path(&cold.digest), bytes).unwrap();
        cold.assert_served().await;
        cold.assert_stored().await;
        let kept = std::fs::read_dir(cold.world.data_dir().join("quarantine")).unwrap().count();
        assert_eq!(kept, 1, "{size}");
        assert_eventually!(cold.world.rows("blobs WHERE state = 1") == 1, "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_file_of_a_wrong_size_that_cannot_be_moved_is_not_served() {
    let cold = Cold::start(MIB).await;
    cold.assert_served().await;
    cold.assert_stored().await;
    let cold = cold.restart("").await;
    std::fs::write(cold.world.data_dir().join("quarantine"), "no directory").unwrap();
    std::fs::write(cold.world.blob_path(&cold.digest), "short").unwrap();
    cold.on_blob(2, [Fault::Empty(404)]);
    for _ in 0..2 {
        assert_eq!(cold.get(&[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    cold.assert_served().await;
    let stored = || std::fs::read(cold.world.blob_path(&cold.digest)).unwrap();
    assert_eventually!(stored() == cold.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_file_that_became_shorter_while_it_is_open_is_downloaded_again() {
    let cold = Cold::start(MIB).await;
    cold.assert_served().await;
    cold.assert_stored().await;
    cold.assert_served().await;
    let file = std::fs::File::options().write(true).open(cold.world.blob_path(&cold.digest)).unwrap();
    file.set_len(1000).unwrap();
    assert!(!cold.raw(&[]).await.rest().await.complete);
    assert_eventually!(!cold.world.blob_path(&cold.digest).exists());
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_file_that_became_shorter_is_downloaded_again() {
    let cold = Cold::with(4 * MIB, "finish_abandoned = \"never\"").await;
    cold.on_blob(1, [Fault::StallForever(count(MIB))]);
    let mut client = cold.raw(&[]).await;
    client.read(MIB / 2).await;
    drop(client);
    cold.idle().await;
    let folder = cold.world.data_dir().join("partial").join(cold.digest.replace(':', "-"));
    let file = std::fs::File::options().write(true).open(folder.join("data")).unwrap();
    file.set_len(1000).unwrap();
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_disk_clients_that_do_not_read_hold_up_no_other() {
    let (cold, _small) = with_space(20 * MIB, 8).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        // Without a place: the request waits until a client before it has given up its own.
        silent.push(crate::raw::Raw::ask(&cold.url, &[]).await);
    }
    assert_eventually!(cold.asked().len() >= 32);
    let answer = cold.get(&[]).await;
    assert_eq!((answer.status, answer.header("cache-status")), (StatusCode::OK, NOT_STORED));
    assert!(answer.body == cold.bytes);
    // A client that reads again gets its bytes.
    let mut first = silent.swap_remove(0);
    first.head().await;
    let rest = first.rest().await;
    assert!(rest.complete && rest.bytes == cold.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_disk_a_source_that_sends_a_byte_at_a_time_is_not_asked_for_each() {
    let (cold, _small) = with_space(20 * MIB, 8).await;
    cold.on_blob(usize::MAX, [Fault::CutAfter(1)]);
    assert!(!cold.raw(&[]).await.rest().await.complete);
    assert!(cold.asked().len() < 50, "{} requests", cold.asked().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_disk_a_blob_has_the_size_that_upstream_states() {
    let upstream = ChaosUpstream::start().await;
    let (_small, builder) = world(&upstream, 8);
    let size = 20 * MIB;
    let layer = image(size).layers[0].clone();
    upstream.put_image(REPOSITORY, "1", &image(size));
    let manifest = manifest_with_size(size, 30 * MIB);
    upstream.put_manifest(REPOSITORY, "large", &image(size).media_type, manifest);
    let world = builder.start().await;
    assert_eq!(world.get(&format!("/v2/{NAME}/manifests/large")).await.status, StatusCode::OK);
    let url = world.content_url(NAME, &layer.digest).await;
    let cold = Cold { upstream, world, digest: layer.digest, bytes: layer.bytes, url };
    for _ in 0..2 {
        let answer = cold.get(&[]).await;
        assert_eq!((answer.status, answer.header("cache-status")), (StatusCode::OK, NOT_STORED));
        assert!(answer.body == cold.bytes, "{} bytes", answer.body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_that_became_read_only_blobs_are_streamed_without_being_stored() {
    let (cold, small) = with_space(MIB, 8).await;
    let remounted = |options: &str| {
        let status = Command::new("mount").args(["-o", options]).arg(&small.at).status().unwrap();
        assert!(status.success());
    };
    remounted("remount,ro");
    let answer = cold.get(&[]).await;
    assert_eq!((answer.status, answer.header("cache-status")), (StatusCode::OK, NOT_STORED));
    assert!(answer.body == cold.bytes);
    assert!(cold.world.metric("tidegate_fills_total{outcome=\"disk-failed\"}").await >= 1.0);
    remounted("remount,rw");
    assert_eventually!(cold.get(&[]).await.header("cache-status") != NOT_STORED);
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_were_removed_are_created_again() {
    let cold = Cold::start(MIB).await;
    for folder in ["partial", "blobs"] {
        std::fs::remove_dir_all(cold.world.data_dir().join(folder)).unwrap();
    }
    cold.assert_served().await;
    cold.assert_stored().await;
}
