//! Disks that are full: clients get their bytes all the same. The data folder is a small tmpfs, which takes root.

use std::{path::PathBuf, process::Command, time::Duration};

use reqwest::StatusCode;
use tempfile::TempDir;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    image::Layer,
    world::{TestWorld, WorldBuilder},
};

use crate::cold::{Cold, MIB, NAME, REPOSITORY, image, sections, within};

const NO_SPACE: &str = "tidegate; fwd=bypass; detail=no-space";

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
    let builder = TestWorld::builder().in_dir(dir).sections(&database).sections(&sections(""));
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
    assert_eq!((whole.status, whole.header("cache-status")), (StatusCode::OK, NO_SPACE));
    assert!(whole.body == cold.bytes);
    let window = cold.range("bytes=10000000-10000999").await;
    assert_eq!((window.status, window.header("cache-status")), (StatusCode::PARTIAL_CONTENT, NO_SPACE));
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
        assert_eq!((wrong.status, wrong.header("cache-status")), (status, NO_SPACE), "{range}");
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
    assert_eq!(cold.get(&[]).await.header("cache-status"), NO_SPACE);
    assert_nothing_left(&cold).await;
    std::fs::remove_file(&ballast).unwrap();
    assert_eventually!(cold.get(&[]).await.header("cache-status") != NO_SPACE);
    cold.assert_stored().await;
}
