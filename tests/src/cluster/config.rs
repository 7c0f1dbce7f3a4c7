//! What the processes of a cluster find in their configuration files.

use std::path::Path;

use crate::s3_server::{ACCESS_KEY, BUCKET, SECRET_KEY};

/// The sections of a configuration file, as lines of TOML.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    pub(super) api: String,
    pub(super) content: String,
    pub(super) upstream: String,
    /// The keys of `[storage]`, if any.
    pub(super) storage: Option<String>,
}

impl Config {
    /// Writes the files that the sections name, and all sections but those of one service alone.
    pub(super) fn shared(&self, folder: &Path, database: &str, upstream: &str, s3: Option<&str>) -> String {
        let file = |name: &str, content: &str| {
            let path = folder.join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        // Any would do, as long as all have the same.
        let link_key = file("link.key", &"5a".repeat(32));
        let mut toml = format!(
            "[log]\nfilter = \"info,content_app::node=debug\"\n\
             [database]\nurl = \"{database}\"\n\
             [[upstream]]\nname = \"up\"\nurl = \"{upstream}\"\n{}\n\
             [[namespace]]\nprefix = \"up\"\nupstream = \"up\"\nprefetch = \"none\"\n",
            self.upstream
        );
        if let (Some(keys), Some(endpoint)) = (&self.storage, s3) {
            let (access, secret) = (file("access.key", ACCESS_KEY), file("secret.key", SECRET_KEY));
            toml += &format!(
                "[storage]\nkind = \"s3\"\nbucket = \"{BUCKET}\"\nendpoint = \"{endpoint}\"\n\
                 access_key_file = \"{access}\"\nsecret_key_file = \"{secret}\"\n{keys}\n"
            );
        }
        toml += &format!("[api]\n{}\n", self.api);
        toml += &format!(
            "[content]\nlink_keys = [{{ id = \"nodes\", file = \"{link_key}\" }}]\n{}\n",
            self.content
        );
        toml
    }
}
