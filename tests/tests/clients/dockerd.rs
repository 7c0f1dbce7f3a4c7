//! dockerd, which asks Tidegate as a mirror of Docker Hub.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_tests::assert_eventually;
use tidegate_tests::image::{Format, Index};
use tidegate_tests::process::{Daemon, TidegateProcess};
use tidegate_tests::tool::Tool;

use super::pull::{Client, cold_then_stale, cold_then_warm};
use super::source::{assert_holds, chosen, source, unpacked};

const IMAGE: &str = "library/x:1";

struct Dockerd {
    daemon: Daemon,
    folder: TempDir,
}

impl Dockerd {
    fn docker(&self) -> Tool {
        let folder = self.folder.path();
        // Without contexts and credentials of whoever runs the tests.
        let docker = Tool::new("docker").env("DOCKER_HOST", "").env("DOCKER_CONTEXT", "").arg("--config");
        docker.arg(folder).arg("--host").arg(format!("unix://{}", folder.join("socket").display()))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // It mounts its folder onto itself, and its end at once leaves that as it is.
        self.daemon.kill9();
        let root = self.folder.path().join("root");
        drop(Command::new("umount").args(["--quiet", "--lazy"]).arg(root).output());
    }
}

impl Client for Dockerd {
    const CONFIGURATION: &str = "name = 'docker.io'\nhosts = ['docker.io', 'registry-1.docker.io']\n\
        [[namespace]]\nprefix = ''\nupstream = 'docker.io'\n";

    fn source() -> Index {
        source(Format::Docker)
    }

    async fn start(tidegate: &TidegateProcess) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let configuration = serde_json::json!({
            "registry-mirrors": [tidegate.url()],
            "hosts": [format!("unix://{}", path("socket").display())],
            "data-root": path("root"),
            "exec-root": path("exec"),
            "pidfile": path("pid"),
            "storage-driver": "vfs",
            "bridge": "none",
            "iptables": false,
            "ip6tables": false,
            "log-level": "warn",
        });
        std::fs::write(path("dockerd.json"), configuration.to_string()).unwrap();
        let mut command = Command::new("dockerd");
        command.arg("--config-file").arg(path("dockerd.json"));
        let daemon = Daemon::start(&mut command, &path("log"));
        let dockerd = Self { daemon, folder };
        let patience = Duration::from_secs(30);
        assert_eventually!(within patience, dockerd.docker().arg("version").run().await.succeeded());
        dockerd
    }

    async fn pull(&self) {
        self.docker().args(["pull", IMAGE]).succeed().await;
    }

    async fn check(&self, index: &Index) {
        let image = chosen(index);
        let digests = ["image", "inspect", "--format={{json .RepoDigests}}", IMAGE];
        let digests = self.docker().args(digests).succeed().await.stdout;
        assert_eq!(digests.trim(), format!("[\"x@{}\"]", index.digest));
        let saved = self.folder.path().join("saved.tar");
        self.docker().args(["save", "--output"]).arg(&saved).arg(IMAGE).succeed().await;
        let saved = files_in(File::open(saved).unwrap());
        assert_holds(&saved, unpacked(image).chain([image.config.1.clone()]));
    }

    async fn remove(&self) {
        self.docker().args(["rmi", IMAGE]).succeed().await;
        for kind in ["imagedb/content/sha256", "layerdb/sha256"] {
            let left = self.folder.path().join("root/image/vfs").join(kind).read_dir().unwrap();
            assert_eq!(left.count(), 0, "{kind}");
        }
    }
}

/// The content of every file in an archive.
fn files_in(archive: File) -> HashSet<Bytes> {
    let mut archive = tar::Archive::new(archive);
    let contents = archive.entries().unwrap().map(|entry| {
        let mut content = Vec::new();
        entry.unwrap().read_to_end(&mut content).unwrap();
        Bytes::from(content)
    });
    contents.collect()
}

#[tokio::test]
async fn dockerd_pulls_cold_then_warm() {
    cold_then_warm::<Dockerd>().await;
}

#[tokio::test]
async fn dockerd_pulls_cold_then_stale() {
    cold_then_stale::<Dockerd>().await;
}
