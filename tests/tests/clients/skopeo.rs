//! skopeo, which names Tidegate and the upstream behind it.

use std::collections::HashSet;

use bytes::Bytes;
use tidegate_tests::image::{Format, Image, Index};
use tidegate_tests::process::TidegateProcess;
use tidegate_tests::real_registry::RealRegistry;

use super::containers_home::ContainersHome;
use super::pull::{Client, cold_then_stale, cold_then_warm};
use super::source::{REPOSITORY, assert_holds, chosen, files_below, source};

/// `skopeo copy` to a folder, which gets the very bytes that came.
pub(super) struct Skopeo {
    home: ContainersHome,
    image: String,
}

impl Skopeo {
    /// For this image, as in `127.0.0.1:5000/local/library/x:1`.
    pub(super) fn of(image: String) -> Self {
        Self { home: ContainersHome::new(""), image }
    }

    async fn copy(&self, options: &[&str]) {
        let skopeo = self.home.tool("skopeo").args(["copy", "--src-tls-verify=false"]).args(options.to_vec());
        skopeo.arg(format!("docker://{}", self.image)).arg("dir:copy").succeed().await;
    }

    /// What it has copied.
    fn copied(&self) -> HashSet<Bytes> {
        files_below(&self.home.path("copy"))
    }

    /// Asserts that the copy is this image.
    pub(super) fn assert_copied(&self, image: &Image) {
        assert_holds(&self.copied(), image.blobs().map(|(_, bytes)| bytes.clone()));
        assert_eq!(std::fs::read(self.home.path("copy/manifest.json")).unwrap(), image.manifest);
    }
}

impl Client for Skopeo {
    const CONFIGURATION: &str = "name = 'local'\n";

    fn source() -> Index {
        source(Format::Oci)
    }

    async fn start(tidegate: &TidegateProcess) -> Self {
        Self::of(format!("{}/local/{REPOSITORY}:1", tidegate.listening()))
    }

    async fn pull(&self) {
        self.copy(&[]).await;
    }

    async fn check(&self, index: &Index) {
        self.assert_copied(chosen(index));
    }

    async fn remove(&self) {
        std::fs::remove_dir_all(self.home.path("copy")).unwrap();
    }
}

#[tokio::test]
async fn skopeo_pulls_cold_then_warm() {
    cold_then_warm::<Skopeo>().await;
}

#[tokio::test]
async fn skopeo_pulls_cold_then_stale() {
    cold_then_stale::<Skopeo>().await;
}

#[tokio::test]
async fn skopeo_copies_an_index_with_all_its_images() {
    let mut upstream = RealRegistry::start().await;
    let index = source(Format::Oci);
    upstream.push_index(REPOSITORY, "1", &index).await;
    let local = format!("local={}", upstream.url());
    let tidegate = TidegateProcess::start(["--upstream", &local]).await;
    let skopeo = Skopeo::start(&tidegate).await;
    for warm in [false, true] {
        skopeo.copy(&["--all"]).await;
        let manifests = index.images.iter().map(|image| image.manifest.clone());
        let blobs = index.images.iter().flat_map(Image::blobs).map(|(_, bytes)| bytes.clone());
        let expected = std::iter::once(index.manifest.clone()).chain(manifests).chain(blobs);
        assert_holds(&skopeo.copied(), expected);
        if !warm {
            skopeo.remove().await;
            upstream.stop();
        }
    }
}
