use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::cli::{Flags, Mode};

mod errors;
mod layers;
mod lists;
mod proxies;
mod reference;
mod storage;

/// A directory with a configuration file.
struct Written {
    folder: TempDir,
    file: PathBuf,
}

impl Written {
    fn new(document: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("tidegate.toml");
        fs::write(&file, document).unwrap();
        Self { folder, file }
    }

    /// Adds a file to the directory.
    fn with(self, name: &str, content: &str) -> Self {
        fs::write(self.folder.path().join(name), content).unwrap();
        self
    }

    fn load(&self, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        // Files that the document names are in its directory.
        let document = fs::read_to_string(&self.file).unwrap();
        fs::write(&self.file, document.replace("HERE", self.folder.path().to_str().unwrap())).unwrap();
        load_with(Flags { config: Some(self.file.clone()), ..Flags::default() }, env)
    }

    /// The error, with the file's path shortened to `FILE` and the directory's to `HERE`.
    fn error(&self, env: &[(&str, &str)]) -> String {
        let text = self.load(env).unwrap_err().to_string();
        let text = text.replace(self.file.to_str().unwrap(), "FILE");
        text.replace(self.folder.path().to_str().unwrap(), "HERE")
    }
}

fn load_with(flags: Flags, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    load(&flags.overrides(Mode::Serve), variables(env))
}

fn variables(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
}

/// Each upstream with its hosts.
fn hosts(settings: &Settings) -> Vec<(&str, Vec<&str>)> {
    settings
        .upstreams
        .iter()
        .map(|upstream| {
            (upstream.client.name.as_str(), upstream.policy.hosts.iter().map(String::as_str).collect())
        })
        .collect()
}

/// Each namespace's prefix with its upstream.
fn namespaces(settings: &Settings) -> Vec<(&str, &str)> {
    settings
        .namespaces
        .iter()
        .map(|namespace| (namespace.prefix.as_str(), namespace.upstream.as_deref().unwrap_or("none")))
        .collect()
}
