//! The configuration: defaults, a TOML file, environment variables and flags, in ascending precedence.
//!
//! A setting is a field of one struct, with its default, in the crate that uses it. A section consists
//! of one or several of these structs. The names of variables, the output of `check-config` and the tests of the reference
//! (`docs/configuration.md`) derive from the fields. A value from any source is deserialized from a `Value`, which keeps
//! its location for error messages.

mod environment;
mod error;
mod files;
mod path;
mod registries;
mod section;
mod services;
mod show;
mod storage;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use registry_api::{JobSettings, Namespace};
use serde::{Deserialize, Serialize};
use shared_models::db::DbConfig;

pub use self::{
    environment::environment,
    error::{ConfigError, Location},
    files::{LinkKeyFile, PemFile, SecretFile},
    registries::{Upstream, UpstreamFlag},
    services::{Api, ApiServer, ConfiguredLinkKey, Content, ContentServer, Links, Log, LogFormat},
    storage::{Storage, StorageKind, StorageTier},
};
use self::{
    environment::{CONFIG_FILE, Variables},
    section::{Keys, Section},
    value::{Data, Table, Value},
};
pub(crate) use files::LINK_KEY_FORMAT;

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of all persistent data.
    pub data_dir: PathBuf,
    /// `[log]`
    pub log: Log,
    /// `[api]`
    pub api: Api,
    /// `[content]`
    pub content: Content,
    /// `[database]`
    pub database: DbConfig,
    /// `[storage]`
    pub storage: Storage,
    /// `[jobs]`
    pub jobs: JobSettings,
    /// `[[upstream]]`
    pub upstreams: Vec<Upstream>,
    /// `[[namespace]]`
    pub namespaces: Vec<Namespace>,
    /// The locations of the keys of sections that are set.
    locations: BTreeMap<(String, String), Location>,
}

/// The keys outside of sections that are not lists.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct TopLevel {
    #[serde(with = "path")]
    data_dir: PathBuf,
}

impl Default for TopLevel {
    fn default() -> Self {
        Self { data_dir: PathBuf::from("./tidegate-data") }
    }
}

/// The lists of tables.
const LISTS: [&str; 2] = ["upstream", "namespace"];

/// What flags set.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--upstream`
    pub upstreams: Vec<UpstreamFlag>,
    /// All others.
    pub values: Vec<Override>,
}

/// A flag that sets a key.
#[derive(Debug, Clone)]
pub struct Override {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// The section. `None`: the top level.
    pub section: Option<&'static str>,
    /// The key.
    pub key: &'static str,
    /// The value.
    pub value: String,
}

/// Loads the configuration from the file that `--config` or `TIDEGATE_CONFIG` names, from variables and from flags. Reads
/// the password, key and certificate files that it names.
///
/// # Errors
/// The first invalid setting, with its location.
pub fn load(
    overrides: &Overrides,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    let variables: Variables = environment.filter(|(_, value)| !value.is_empty()).collect();
    let file = overrides.file.clone().or_else(|| variables.get(CONFIG_FILE).map(PathBuf::from));
    let mut root = file.map_or_else(|| Ok(Table::new()), |path| read_file(&path))?;
    let keys = all_keys();
    refuse_unknown_sections(&root, &keys)?;
    environment::apply(&mut root, &keys, &variables)?;
    for Override { flag, section, key, value } in &overrides.values {
        value::set(&mut root, *section, key, Value::untyped(Location::Flag(flag), value));
    }
    let (mut upstreams, namespaces) = registries::read(&root, &overrides.upstreams, &variables)?;
    let mut storage: Storage = section(&root, "storage")?;
    let proxies = environment::proxies(&variables)?;
    for upstream in &mut upstreams {
        upstream.client.env_proxies = proxies.clone();
    }
    storage.s3.env_proxies = proxies;
    let TopLevel { data_dir } = TopLevel::deserialize(&Keys::root(&root))?;
    let mut database: DbConfig = section(&root, "database")?;
    if database.url.is_empty() {
        database.url = format!("sqlite://{}", data_dir.join("tidegate.db").display());
    }
    Ok(Settings {
        data_dir,
        log: section(&root, "log")?,
        api: section(&root, "api")?,
        content: section(&root, "content")?,
        database,
        storage,
        jobs: section(&root, "jobs")?,
        upstreams,
        namespaces,
        locations: locations(&root),
    })
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let path: Arc<Path> = Arc::from(path);
    let document = fs::read_to_string(&path).map_err(|error| {
        let message = format!("failed to read the configuration file: {error}");
        ConfigError::new(&Location::File(Arc::clone(&path)), message)
    })?;
    let line = |offset| document.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    value::parse(&document, &|offset| Location::Line(Arc::clone(&path), line(offset)))
}

/// The keys with a variable, each with its section. An element of a list has none.
fn all_keys() -> Vec<(Option<&'static str>, &'static str)> {
    let sections = [
        ("log", Log::keys()),
        ("api", Api::keys()),
        ("content", Content::keys()),
        ("database", DbConfig::keys()),
        ("storage", Storage::keys()),
        ("jobs", JobSettings::keys()),
    ];
    let top_level = section::fields::<TopLevel>().iter().chain(&LISTS).map(|key| (None, *key));
    let sections = sections
        .into_iter()
        .flat_map(|(section, keys)| keys.into_iter().map(move |key| (Some(section), key)));
    top_level.chain(sections).collect()
}

fn refuse_unknown_sections(
    root: &Table,
    keys: &[(Option<&'static str>, &'static str)],
) -> Result<(), ConfigError> {
    let known = || keys.iter().map(|(section, key)| section.unwrap_or(key));
    match root.iter().find(|(name, _)| !known().any(|known| known == name.as_str())) {
        Some((name, value)) => Err(ConfigError::unknown("key", name, known()).at(&value.location)),
        None => Ok(()),
    }
}

fn section<T: Section>(root: &Table, name: &str) -> Result<T, ConfigError> {
    match root.get(name) {
        Some(value) => T::read(&Keys::of(value, name)?),
        None => T::read(&Keys::NONE),
    }
}

fn locations(root: &Table) -> BTreeMap<(String, String), Location> {
    let mut locations = BTreeMap::new();
    for (section, value) in root {
        let Data::Table(table) = &value.data else { continue };
        let keys = table.iter().map(|(key, value)| ((section.clone(), key.clone()), value.location.clone()));
        locations.extend(keys);
    }
    locations
}

impl Settings {
    /// Where a key of a section is set.
    pub fn location(&self, section: &str, key: &str) -> Location {
        let key = (section.to_owned(), key.to_owned());
        self.locations.get(&key).cloned().unwrap_or(Location::Default)
    }
}
