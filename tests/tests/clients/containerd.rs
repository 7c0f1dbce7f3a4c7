//! containerd, which asks Tidegate in place of any registry and adds the name of that registry: `?ns=`.

use std::path::PathBuf;
use std::process::Command;

use reqwest::StatusCode;
use tempfile::TempDir;
use tidegate_tests::assert_eventually;
use tidegate_tests::http_client::http_client;
use tidegate_tests::image::{Format, Index};
use tidegate_tests::process::{Daemon, TidegateProcess};
use tidegate_tests::tool::Tool;

use super::pull::{Client, cold_then_stale, cold_then_warm};
use super::source::{REPOSITORY, assert_holds, chosen, files_below, source};

/// A name that leads nowhere: nobody but Tidegate can answer for it.
const IMAGE: &str = "registry.example/library/x:1";

struct Containerd {
    // Before the folder, so that it has ended when that is removed.
    _daemon: Daemon,
    folder: TempDir,
}

impl Containerd {
    fn ctr(&self) -> Tool {
        Tool::new("ctr").arg("--address").arg(self.folder.path().join("socket"))
    }

    /// Where it keeps the very bytes that came.
    fn content(&self) -> PathBuf {
        self.folder.path().join("root/io.containerd.content.v1.content/blobs")
    }
}

/// Everything in one folder, and nothing that a pull has no use for: those plugins would touch other places.
fn configuration(folder: &TempDir) -> String {
    let folder = folder.path().display();
    let unused = [
        "grpc.v1.cri",
        "internal.v1.opt",
        "snapshotter.v1.aufs",
        "snapshotter.v1.btrfs",
        "snapshotter.v1.devmapper",
        "snapshotter.v1.overlayfs",
        "snapshotter.v1.zfs",
    ];
    let unused = unused.map(|plugin| format!("'io.containerd.{plugin}'")).join(", ");
    format!(
        "version = 2\nroot = '{folder}/root'\nstate = '{folder}/state'\ndisabled_plugins = [{unused}]\n\
         [debug]\nlevel = 'warn'\n[grpc]\naddress = '{folder}/socket'\n[ttrpc]\naddress = '{folder}/socket.ttrpc'\n"
    )
}

impl Client for Containerd {
    // No namespace leads to the repository but the one whose name is not asked for: without `?ns=` nothing is found.
    const CONFIGURATION: &str = "name = 'elsewhere'\nhosts = ['registry.example']\n";

    fn source() -> Index {
        source(Format::Oci)
    }

    async fn start(tidegate: &TidegateProcess) -> Self {
        let without = format!("{}/v2/{REPOSITORY}/manifests/1", tidegate.url());
        assert_eq!(http_client().get(without).send().await.unwrap().status(), StatusCode::NOT_FOUND);

        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("certs.d/_default");
        std::fs::create_dir_all(&hosts).unwrap();
        let mirror = format!("[host.'{}']\ncapabilities = ['pull', 'resolve']\n", tidegate.url());
        std::fs::write(hosts.join("hosts.toml"), mirror).unwrap();
        let config = folder.path().join("config.toml");
        std::fs::write(&config, configuration(&folder)).unwrap();
        let log = folder.path().join("log");
        let daemon = Daemon::start(Command::new("containerd").arg("--config").arg(config), &log);
        let containerd = Self { _daemon: daemon, folder };
        assert_eventually!(containerd.ctr().arg("version").run().await.succeeded());
        containerd
    }

    async fn pull(&self) {
        let pull = self.ctr().args(["images", "pull", "--snapshotter=native", "--hosts-dir"]);
        pull.arg(self.folder.path().join("certs.d")).arg(IMAGE).succeed().await;
    }

    async fn check(&self, index: &Index) {
        let image = chosen(index);
        let blobs = image.blobs().map(|(_, bytes)| bytes.clone());
        assert_holds(
            &files_below(&self.content()),
            [index.manifest.clone(), image.manifest.clone()].into_iter().chain(blobs),
        );
    }

    async fn remove(&self) {
        self.ctr().args(["images", "rm", "--sync", IMAGE]).succeed().await;
        assert!(files_below(&self.content()).is_empty());
    }
}

#[tokio::test]
async fn containerd_pulls_cold_then_warm() {
    cold_then_warm::<Containerd>().await;
}

#[tokio::test]
async fn containerd_pulls_cold_then_stale() {
    cold_then_stale::<Containerd>().await;
}
