//! The environment variables of the configuration: `TIDEGATE_API__LISTEN` is the key `listen` of `[api]`.

use std::collections::BTreeMap;

use settings::proxy::Proxies;

use super::{
    error::{ConfigError, Location},
    value::{Table, Value, set},
};

/// The prefix of the variables.
const PREFIX: &str = "TIDEGATE_";

/// The separator of section and key.
const SEPARATOR: &str = "__";

/// The variable that names the configuration file.
pub(super) const CONFIG_FILE: &str = "TIDEGATE_CONFIG";

/// Short forms of `TIDEGATE_LOG__FILTER`, in ascending precedence.
const LOG_FILTERS: [&str; 2] = ["RUST_LOG", "TIDEGATE_LOG"];

/// The variables of a process that are not empty: an empty one counts as not set, as in `${X:-}`.
pub(super) type Variables = BTreeMap<String, String>;

/// The variables of this process. Those that are not UTF-8 are left out.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Sets those of `keys`, each with its section, whose variable is set.
///
/// # Errors
/// A variable `TIDEGATE_…__…` without a key. Others are ignored: Kubernetes sets variables such as `TIDEGATE_PORT` for a
/// service of this name.
pub(super) fn apply(
    root: &mut Table,
    keys: &[(Option<&'static str>, &'static str)],
    variables: &Variables,
) -> Result<(), ConfigError> {
    let keys: Vec<_> = keys.iter().map(|(section, key)| (variable(*section, key), *section, *key)).collect();
    let known = || keys.iter().map(|(variable, ..)| variable.as_str());
    let is_ours = |name: &str| name.starts_with(PREFIX) && name.contains(SEPARATOR);
    if let Some(name) = variables.keys().find(|name| is_ours(name) && !known().any(|known| known == *name)) {
        let location = Location::Variable(name.clone());
        return Err(ConfigError::unknown("variable", name, known()).at(&location));
    }
    let short = LOG_FILTERS.iter().map(|name| (*name, Some("log"), "filter"));
    let long = keys.iter().map(|(name, section, key)| (name.as_str(), *section, *key));
    for (name, section, key) in short.chain(long) {
        if let Some(text) = variables.get(name) {
            set(root, section, key, Value::untyped(Location::Variable(name.to_owned()), text));
        }
    }
    Ok(())
}

/// The proxies that variables name, as for other programs.
///
/// # Errors
/// A variable that applies does not name an HTTP proxy.
pub(super) fn proxies(variables: &Variables) -> Result<Proxies, ConfigError> {
    let proxies = Proxies::of_environment(|name| variables.get(name).map(String::as_str));
    proxies
        .map_err(|error| ConfigError::new(&Location::Variable(error.variable.to_owned()), error.to_string()))
}

/// The variable of a key.
pub(super) fn variable(section: Option<&str>, key: &str) -> String {
    let section = section.map(|section| format!("{section}{SEPARATOR}")).unwrap_or_default();
    format!("{PREFIX}{}", format!("{section}{key}").to_uppercase())
}
