//! podman, which pulls an image of Docker Hub by its own name and has Tidegate as the mirror, as the README shows it.

use tidegate_tests::image::{Format, Index};
use tidegate_tests::process::TidegateProcess;

use super::containers_home::ContainersHome;
use super::pull::{Client, cold_then_stale, cold_then_warm};
use super::source::{assert_holds, chosen, files_below, source, unpacked};

const IMAGE: &str = "docker.io/library/x:1";

struct Podman {
    home: ContainersHome,
}

impl Client for Podman {
    const CONFIGURATION: &str = "name = 'docker.io'\nhosts = ['docker.io']\n";

    fn source() -> Index {
        source(Format::Oci)
    }

    async fn start(tidegate: &TidegateProcess) -> Self {
        let mirror = format!(
            "[[registry]]\nlocation = 'docker.io'\n\
             [[registry.mirror]]\nlocation = '{}/docker.io'\ninsecure = true\n",
            tidegate.listening()
        );
        Self { home: ContainersHome::new(&mirror) }
    }

    async fn pull(&self) {
        self.home.tool("podman").args(["pull", IMAGE]).succeed().await;
    }

    async fn check(&self, index: &Index) {
        let image = chosen(index);
        let kept = files_below(&self.home.images());
        assert_holds(&kept, [image.manifest.clone(), image.config.1.clone()]);
        // Layers are put together again from what was unpacked, and not compressed, which gives other bytes.
        let saved = self.home.path("saved");
        let save = self.home.tool("podman").args(["save", "--format=oci-dir", "--uncompressed", "-o"]);
        save.arg(&saved).arg(IMAGE).succeed().await;
        assert_holds(&files_below(&saved), unpacked(image).chain([image.config.1.clone()]));
        std::fs::remove_dir_all(saved).unwrap();
    }

    async fn remove(&self) {
        self.home.tool("podman").args(["rmi", IMAGE]).succeed().await;
        self.home.assert_empty();
    }
}

#[tokio::test]
async fn podman_pulls_cold_then_warm() {
    cold_then_warm::<Podman>().await;
}

#[tokio::test]
async fn podman_pulls_cold_then_stale() {
    cold_then_stale::<Podman>().await;
}
