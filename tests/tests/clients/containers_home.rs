//! Where skopeo, podman and buildah find their configuration and keep what they have: nowhere but in one folder.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate_tests::tool::Tool;

/// A home folder for programs that use containers/image and containers/storage.
#[derive(Debug)]
pub(super) struct ContainersHome {
    folder: TempDir,
}

impl ContainersHome {
    /// A home with this `registries.conf`.
    pub(super) fn new(registries: &str) -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        let policy = home.path(".config/containers/policy.json");
        std::fs::create_dir_all(policy.parent().unwrap()).unwrap();
        std::fs::write(policy, r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#).unwrap();
        std::fs::write(home.path("registries.conf"), registries).unwrap();
        // Locks in files and not in shared memory, which other processes of this machine would share.
        let containers = format!(
            "[engine]\ncgroup_manager = 'cgroupfs'\nevents_logger = 'none'\nlock_type = 'file'\ntmp_dir = '{}'\n",
            home.path("engine").display()
        );
        std::fs::write(home.path("containers.conf"), containers).unwrap();
        let storage = format!(
            "[storage]\ndriver = 'vfs'\ngraphroot = '{}'\nrunroot = '{}'\n",
            home.path("store").display(),
            home.path("run/store").display()
        );
        std::fs::write(home.path("storage.conf"), storage).unwrap();
        for folder in ["run", "tmp"] {
            std::fs::create_dir(home.path(folder)).unwrap();
        }
        home
    }

    /// A place in this home.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// One of these programs.
    pub(super) fn tool(&self, program: &str) -> Tool {
        let tool = Tool::new(program).dir(self.folder.path());
        self.variables().into_iter().fold(tool, |tool, (name, place)| tool.env(name, place))
    }

    /// The variables with which these programs use this home.
    pub(super) fn variables(&self) -> [(&'static str, PathBuf); 7] {
        [
            ("HOME", ""),
            ("XDG_CONFIG_HOME", ".config"),
            ("XDG_RUNTIME_DIR", "run"),
            ("TMPDIR", "tmp"),
            ("CONTAINERS_CONF", "containers.conf"),
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
        ]
        .map(|(name, place)| (name, self.path(place)))
    }

    /// Where podman and buildah have the manifests and configurations of their images.
    pub(super) fn images(&self) -> PathBuf {
        self.path("store/vfs-images")
    }

    /// Asserts that podman and buildah have no image and no layer.
    pub(super) fn assert_empty(&self) {
        for folder in [self.images(), self.path("store/vfs/dir")] {
            let folders = folders_in(&folder);
            assert!(folders.is_empty(), "{folders:?}");
        }
    }
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}
