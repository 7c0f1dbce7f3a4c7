//! The configuration: defaults, a TOML file, environment variables and flags, each over the one before.
//!
//! `docs/configuration.md` is the reference. A key is a field of a `section`; from the fields come the parser, the
//! names of the variables, what `check-config` prints, and a test of the reference.

use std::{fs, path::Path, path::PathBuf, sync::Arc};

use crate::cli::{Common, Mode};

mod assemble;
mod checks;
mod environment;
mod error;
mod private_url;
mod registries;
mod secrets;
mod section;
mod services;
mod setting;
mod show;
mod storage;
#[cfg(test)]
mod tests;
mod tree;
mod units;

pub use self::{
    environment::environment,
    error::{ConfigError, Place, Problem},
    private_url::PrivateUrl,
    registries::{Credentials, Namespace, Prefetch, Upstream, WhenDeletedUpstream},
    services::{
        Api, Content, Database, FinishAbandoned, LinkKeyFile, Log, LogFormat, Tasks, UnverifiedRanges,
    },
    storage::{Addressing, Storage, StorageKind},
    units::{ByteSize, Period},
};
pub(crate) use self::{secrets::is_link_key, setting::http_url};

use self::{
    environment::{CONFIG_FILE, Variables, put, variable},
    error::most_like,
    section::{Key, Section, value},
    tree::{Node, Table},
};

/// The configuration that holds, checked, with its secrets read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything lies that outlives the process, as it was given.
    pub data_dir: PathBuf,
    /// `[log]`
    pub log: Log,
    /// `[api]`
    pub api: Api,
    /// `[content]`
    pub content: Content,
    /// `[database]`
    pub database: Database,
    /// `[storage]`
    pub storage: Storage,
    /// `[tasks]`
    pub tasks: Tasks,
    /// `[[upstream]]`, built-in and implied ones included.
    pub upstreams: Vec<Upstream>,
    /// `[[namespace]]`, built-in and implied ones included.
    pub namespaces: Vec<Namespace>,
    /// Where the addresses to listen on were written, for the one who finds that they are in use.
    pub listen_written: ListenWritten,
}

/// Where the addresses were written that this process listens on.
#[derive(Debug, Clone)]
pub struct ListenWritten {
    /// For clients.
    pub public: Place,
    /// For health, metrics and the other service.
    pub internal: Place,
}

impl ListenWritten {
    fn find(root: &Table, mode: Mode) -> Self {
        let section = match root.get(service_of(mode)).map(|section| &section.value) {
            Some(tree::Value::Table(keys)) => Some(keys),
            _ => None,
        };
        let place =
            |key| section.and_then(|keys| keys.get(key)).map_or(Place::Default, |node| node.place.clone());
        Self { public: place("listen"), internal: place("internal_listen") }
    }
}

/// The section with the addresses of a process in `mode`.
fn service_of(mode: Mode) -> &'static str {
    if mode == Mode::ContentApp { "content" } else { "api" }
}

impl Settings {
    /// The keys that stand outside of any section.
    pub(crate) const TOP: &'static [&'static str] = &["data_dir", "upstream", "namespace"];

    /// The sections that are tables, and their keys.
    pub(crate) const SECTIONS: &'static [(&'static str, &'static [Key])] = &[
        ("log", Log::KEYS),
        ("api", Api::KEYS),
        ("content", Content::KEYS),
        ("database", Database::KEYS),
        ("storage", Storage::KEYS),
        ("tasks", Tasks::KEYS),
    ];

    fn from_table(root: &Table, mode: Mode) -> Result<Self, ConfigError> {
        let here = Place::Default;
        Ok(Self {
            data_dir: value(&here, root, "data_dir", Some(DATA_DIR))?,
            log: value(&here, root, "log", Some("{}"))?,
            api: value(&here, root, "api", Some("{}"))?,
            content: value(&here, root, "content", Some("{}"))?,
            database: value(&here, root, "database", Some("{}"))?,
            storage: value(&here, root, "storage", Some("{}"))?,
            tasks: value(&here, root, "tasks", Some("{}"))?,
            upstreams: value(&here, root, "upstream", None)?,
            namespaces: value(&here, root, "namespace", None)?,
            listen_written: ListenWritten::find(root, mode),
        })
    }
}

/// The data folder when nothing else is said: one in the working directory.
const DATA_DIR: &str = "./tidegate-data";

/// Resolves the configuration for a process in `mode`: defaults, below the file that `--config` or `TIDEGATE_CONFIG`
/// names, below the variables in `env`, below the flags. Reads the password, key and certificate files it names.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn load(
    flags: &Common,
    mode: Mode,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    let variables: Variables = env.collect();
    let from_env = || variable(&variables, CONFIG_FILE).map(PathBuf::from);
    let mut root = match flags.config.clone().or_else(from_env) {
        Some(path) => read(&path)?,
        None => Table::new(),
    };
    refuse_unknown_sections(&root)?;
    environment::apply(&mut root, &variables)?;
    apply_flags(&mut root, flags, mode)?;
    assemble::registries(&mut root, &flags.upstream)?;
    imply_database(&mut root)?;

    let mut settings = Settings::from_table(&root, mode)?;
    checks::check(&root, &settings)?;
    for (upstream, node) in settings.upstreams.iter_mut().zip(checks::list(&root, "upstream")) {
        secrets::of_upstream(upstream, node, &variables)?;
    }
    if let Some(content) = root.get("content") {
        secrets::of_link_keys(&mut settings.content, assemble::items(content, "link_keys"))?;
    }
    if let Some(storage) = root.get("storage") {
        secrets::of_storage(&mut settings.storage, storage)?;
    }
    Ok(settings)
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let path: Arc<Path> = Arc::from(path);
    let document = fs::read_to_string(&path)
        .map_err(|error| Problem::Unreadable(error.to_string()).at(&Place::File(Arc::clone(&path))))?;
    tree::parse(&document, &path)
}

fn refuse_unknown_sections(root: &Table) -> Result<(), ConfigError> {
    let known = || Settings::TOP.iter().copied().chain(Settings::SECTIONS.iter().map(|(name, _)| *name));
    match root.iter().find(|(name, _)| !known().any(|known| known == name.as_str())) {
        None => Ok(()),
        Some((name, node)) => {
            let known = most_like(name, known());
            Err(Problem::Unknown { kind: "key", name: name.clone(), known }.at(&node.place))
        }
    }
}

fn apply_flags(root: &mut Table, flags: &Common, mode: Mode) -> Result<(), ConfigError> {
    let service = service_of(mode);
    let mut flag =
        |section, key, name, text: String| put(root, section, key, Node::raw(&Place::Flag(name), text));
    if let Some(address) = flags.listen {
        flag(Some(service), "listen", "--listen", address.to_string());
    }
    if let Some(address) = flags.internal_listen {
        flag(Some(service), "internal_listen", "--internal-listen", address.to_string());
    }
    if let Some(format) = flags.log {
        flag(Some("log"), "format", "--log", format.word().to_owned());
    }
    if let Some(folder) = &flags.data_dir {
        let text = folder.to_str().ok_or_else(|| {
            Problem::Conflict("the name of the data folder is not UTF-8".to_owned())
                .at(&Place::Flag("--data-dir"))
        })?;
        flag(None, "data_dir", "--data-dir", text.to_owned());
    }
    Ok(())
}

/// The database that is used when none is named: a file in the data folder.
fn imply_database(root: &mut Table) -> Result<(), ConfigError> {
    let here = Place::Default;
    let data_dir: PathBuf = value(&here, root, "data_dir", Some(DATA_DIR))?;
    let written = root.get("database").is_some_and(|database| match &database.value {
        tree::Value::Table(keys) => keys.contains_key("url"),
        _ => true,
    });
    if !written {
        let url = format!("sqlite://{}", data_dir.join("tidegate.db").display());
        put(root, Some("database"), "url", Node::raw(&here, url));
    }
    Ok(())
}
