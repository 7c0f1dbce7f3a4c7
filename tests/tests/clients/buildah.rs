//! buildah, which names Tidegate and the upstream behind it.

use tidegate_tests::image::{Format, Index};
use tidegate_tests::process::TidegateProcess;

use super::containers_home::ContainersHome;
use super::pull::{Client, cold_then_stale, cold_then_warm};
use super::source::{REPOSITORY, assert_holds, chosen, files_below, source, unpacked};

struct Buildah {
    home: ContainersHome,
    image: String,
}

impl Client for Buildah {
    const CONFIGURATION: &str = "name = 'local'\n";

    fn source() -> Index {
        source(Format::Docker)
    }

    async fn start(tidegate: &TidegateProcess) -> Self {
        let image = format!("{}/local/{REPOSITORY}:1", tidegate.listening());
        Self { home: ContainersHome::new(""), image }
    }

    async fn pull(&self) {
        self.home.tool("buildah").args(["pull", "--tls-verify=false", &self.image]).succeed().await;
    }

    async fn check(&self, index: &Index) {
        let image = chosen(index);
        let kept = files_below(&self.home.images());
        assert_holds(&kept, [image.manifest.clone(), image.config.1.clone()]);
        // Layers are put together again from what was unpacked, and not compressed, which gives other bytes.
        let pushed = self.home.path("pushed");
        let push = self.home.tool("buildah").args(["push", "--disable-compression", &self.image]);
        push.arg(format!("dir:{}", pushed.display())).succeed().await;
        assert_holds(&files_below(&pushed), unpacked(image).chain([image.config.1.clone()]));
        std::fs::remove_dir_all(pushed).unwrap();
    }

    async fn remove(&self) {
        self.home.tool("buildah").args(["rmi", &self.image]).succeed().await;
        self.home.assert_empty();
    }
}

#[tokio::test]
async fn buildah_pulls_cold_then_warm() {
    cold_then_warm::<Buildah>().await;
}

#[tokio::test]
async fn buildah_pulls_cold_then_stale() {
    cold_then_stale::<Buildah>().await;
}
