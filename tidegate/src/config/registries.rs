//! The lists `[[upstream]]` and `[[namespace]]`: the built-in entries or those of the file, those of flags, and the hosts
//! and namespaces that follow from them.

use std::collections::BTreeSet;

use registry_api::{Namespace, UpstreamPolicy};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use upstream_client::{Credentials, UpstreamConfig};
use url::Url;

use super::{
    environment::Variables,
    error::{ConfigError, Location, suggestion},
    files::{PemFile, SecretFile},
    section::{Keys, Section, ensure_unique},
    value::{self, Data, Table, Value},
};

const BUILT_IN: &str = include_str!("built_in.toml");

const FLAG: Location = Location::Flag("--upstream");

/// `--upstream NAME=URL`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFlag {
    /// The name of the upstream and the prefix of its namespace.
    pub name: String,
    /// The URL.
    pub url: Url,
}

/// An element of `[[upstream]]`.
#[derive(Debug, Clone, Serialize)]
pub struct Upstream {
    /// The part for requests.
    #[serde(flatten)]
    pub client: UpstreamConfig,
    /// The part for the content.
    #[serde(flatten)]
    pub policy: UpstreamPolicy,
    /// The part for the login and the trusted certificates.
    #[serde(flatten)]
    login: Login,
}

/// The settings of `[[upstream]]` that concern the login and the trusted certificates.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Login {
    username: Option<String>,
    password_file: Option<SecretFile>,
    /// The environment variable with the password.
    password_env: Option<String>,
    /// The program that prints the login, as Docker's credential helpers do.
    #[serde(deserialize_with = "credential_helper")]
    credential_helper: Option<String>,
    ca_file: Option<PemFile>,
}

fn credential_helper<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let expected = "the name or the path of a program such as \"docker-credential-ecr-login\"";
    settings::from_text(deserializer, expected, |text| {
        let name = text.rsplit('/').next().unwrap_or_default();
        name.starts_with("docker-credential-").then(|| Some(text.to_owned()))
    })
}

impl Section for Upstream {
    type Parts = (UpstreamConfig, UpstreamPolicy, Login);

    fn from_parts((mut client, policy, login): Self::Parts, _: &Keys<'_>) -> Result<Self, ConfigError> {
        client.ca_pem = login.ca_file.as_ref().map(|file| file.pem.clone());
        Ok(Self { client, policy, login })
    }
}

impl Section for Namespace {
    type Parts = (Self,);

    fn from_parts((namespace,): (Self,), _: &Keys<'_>) -> Result<Self, ConfigError> {
        Ok(namespace)
    }
}

impl Upstream {
    /// The login.
    fn credentials(
        &self,
        keys: &Keys<'_>,
        variables: &Variables,
    ) -> Result<Option<Credentials>, ConfigError> {
        let name = &self.client.name;
        let error = |key: &str, message: String| Err(ConfigError::new(keys.location(key), message));
        let Login { username, password_file, password_env, credential_helper, .. } = &self.login;
        let sources = [
            ("password_file", password_file.is_some()),
            ("password_env", password_env.is_some()),
            ("credential_helper", credential_helper.is_some()),
        ];
        let mut sources = sources.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key);
        let (source, other) = (sources.next(), sources.next());
        if let (Some(source), Some(other)) = (source, other) {
            return error(other, format!("the upstream `{name}` has both `{source}` and `{other}`"));
        }
        if let Some(program) = credential_helper {
            let server = authority(&self.client.url).unwrap_or_default();
            return match username {
                Some(_) => error(
                    "username",
                    format!("the upstream `{name}` has both `credential_helper` and `username`"),
                ),
                None => Ok(Some(Credentials::Helper { program: program.clone(), server })),
            };
        }
        let username = match (username.clone(), source) {
            (Some(username), Some(_)) => username,
            (None, None) => return Ok(None),
            (Some(_), None) => {
                let message = format!(
                    "the upstream `{name}` has a `username`, but neither `password_file` nor `password_env`"
                );
                return error("username", message);
            }
            (None, Some(key)) => {
                return error(key, format!("the upstream `{name}` has a password, but no `username`"));
            }
        };
        if let Some(file) = password_file {
            return Ok(Some(Credentials::File { username, path: file.path.clone() }));
        }
        let variable = password_env.as_deref().unwrap_or_default();
        match variables.get(variable) {
            Some(password) => {
                let password = SecretString::from(password.as_str());
                Ok(Some(Credentials::Fixed { username, password }))
            }
            None => error("password_env", format!("`password_env`: the variable {variable} is not set")),
        }
    }
}

/// An element of a list, and the table that it was read from.
struct Entry<T> {
    item: T,
    table: Value,
}

impl<T: Section> Entry<T> {
    fn read(table: Value, list: &str) -> Result<Self, ConfigError> {
        Ok(Self { item: T::read(&Keys::of(&table, list)?)?, table })
    }

    fn location(&self, key: &str) -> &Location {
        match &self.table.data {
            Data::Table(keys) => keys.get(key).map_or(&self.table.location, |value| &value.location),
            _ => &self.table.location,
        }
    }

    fn has(&self, key: &str) -> bool {
        matches!(&self.table.data, Data::Table(keys) if keys.contains_key(key))
    }
}

fn entries<T: Section>(root: &Table, list: &str) -> Result<Option<Vec<Entry<T>>>, ConfigError> {
    let Some(value) = root.get(list) else { return Ok(None) };
    match &value.parsed()?.data {
        Data::Array(tables) => {
            tables.iter().map(|table| Entry::read(table.clone(), list)).collect::<Result<_, _>>().map(Some)
        }
        _ => Err(value.invalid(list, &format!("a list of tables: each begins with [[{list}]]"))),
    }
}

/// Reads the lists.
///
/// - An `upstream` list that is set replaces the built-in upstreams and namespaces.
/// - A `namespace` list alone replaces the built-in namespaces. Of the built-in upstreams, those remain that it names: what
///   it leaves out or excludes cannot be pulled in another way.
/// - A flag adds an upstream and a namespace of its name, replacing those of the same name.
/// - An upstream without a namespace gets one of its name.
/// - An upstream whose hosts are not set gets the host of its URL, unless one of its namespaces leads to names below a
///   prefix only, and its name if that is a host name, unless another upstream has them.
pub(super) fn read(
    root: &Table,
    flags: &[UpstreamFlag],
    variables: &Variables,
) -> Result<(Vec<Upstream>, Vec<Namespace>), ConfigError> {
    let built_in = value::parse(BUILT_IN, &|_| Location::Default)?;
    let (upstreams, namespaces) = (entries(root, "upstream")?, entries(root, "namespace")?);
    let only_namespaces = upstreams.is_none() && namespaces.is_some();
    let replaced = if upstreams.is_some() || only_namespaces { &Table::new() } else { &built_in };
    let mut upstreams = match upstreams {
        Some(upstreams) => upstreams,
        None => entries(&built_in, "upstream")?.unwrap_or_default(),
    };
    let mut namespaces = match namespaces {
        Some(namespaces) => namespaces,
        None => entries(replaced, "namespace")?.unwrap_or_default(),
    };
    for flag in flags {
        add(&mut upstreams, &mut namespaces, flag)?;
    }
    refuse_unknown_upstreams(&upstreams, &namespaces)?;
    let is_named = |upstream: &Entry<Upstream>| {
        let name = Some(&upstream.item.client.name);
        namespaces.iter().any(|namespace| namespace.item.upstream.as_ref() == name)
    };
    if only_namespaces {
        upstreams.retain(|upstream| upstream.table.location != Location::Default || is_named(upstream));
    }
    let implied: Vec<Entry<Namespace>> = upstreams
        .iter()
        .filter(|upstream| !is_named(upstream))
        .map(|upstream| namespace(&upstream.item.client.name, upstream.location("name")))
        .collect::<Result<_, _>>()?;
    namespaces.extend(implied);
    add_hosts(&mut upstreams, &namespaces);
    refuse_duplicates(&upstreams, &namespaces)?;
    for Entry { item: upstream, table } in &mut upstreams {
        upstream.client.credentials = upstream.credentials(&Keys::of(table, "upstream")?, variables)?;
    }
    let upstreams = upstreams.into_iter().map(|entry| entry.item).collect();
    Ok((upstreams, namespaces.into_iter().map(|entry| entry.item).collect()))
}

fn add(
    upstreams: &mut Vec<Entry<Upstream>>,
    namespaces: &mut Vec<Entry<Namespace>>,
    flag: &UpstreamFlag,
) -> Result<(), ConfigError> {
    let table = table([("name", &flag.name), ("url", flag.url.as_str())], &FLAG);
    let mut added: Entry<Upstream> = Entry::read(table, "upstream")?;
    if let Some(index) = upstreams.iter().position(|entry| entry.item.client.name == flag.name) {
        // Clients that send `?ns=` of the replaced upstream mean this one.
        added.item.policy.hosts = upstreams.remove(index).item.policy.hosts;
    }
    upstreams.push(added);
    namespaces.retain(|entry| entry.item.prefix != flag.name);
    namespaces.push(namespace(&flag.name, &FLAG)?);
    Ok(())
}

/// The namespace of an upstream, with its name as prefix.
fn namespace(upstream: &str, location: &Location) -> Result<Entry<Namespace>, ConfigError> {
    Entry::read(table([("prefix", upstream), ("upstream", upstream)], location), "namespace")
}

fn table<const N: usize>(keys: [(&str, &str); N], location: &Location) -> Value {
    let key = |(key, text): (&str, &str)| (key.to_owned(), Value::untyped(location.clone(), text));
    Value { location: location.clone(), data: Data::Table(keys.map(key).into()) }
}

fn refuse_unknown_upstreams(
    upstreams: &[Entry<Upstream>],
    namespaces: &[Entry<Namespace>],
) -> Result<(), ConfigError> {
    let names: Vec<&str> = upstreams.iter().map(|entry| entry.item.client.name.as_str()).collect();
    for namespace in namespaces {
        let Some(upstream) = namespace.item.upstream.as_deref() else { continue };
        if !names.contains(&upstream) {
            let prefix = &namespace.item.prefix;
            let suggestion = suggestion(upstream, names.iter().copied());
            let message =
                format!("the namespace `{prefix}` has the unknown upstream `{upstream}`{suggestion}");
            return Err(ConfigError::new(namespace.location("upstream"), message));
        }
    }
    Ok(())
}

fn add_hosts(upstreams: &mut [Entry<Upstream>], namespaces: &[Entry<Namespace>]) {
    let set = upstreams.iter().flat_map(|upstream| &upstream.item.policy.hosts);
    let mut claimed: BTreeSet<String> = set.cloned().collect();
    for upstream in upstreams.iter_mut().filter(|upstream| !upstream.has("hosts")) {
        let UpstreamConfig { name, url, .. } = &upstream.item.client;
        // `?ns=` with the host of the URL means whole names at the upstream.
        let has_whole_names = namespaces.iter().all(|namespace| {
            namespace.item.upstream.as_ref() != Some(name) || namespace.item.upstream_prefix.is_empty()
        });
        let host_of_url = authority(url).filter(|_| has_whole_names);
        let name = Some(name).filter(|name| name.contains('.') && !name.contains('/')).cloned();
        let implied = host_of_url.into_iter().chain(name);
        upstream.item.policy.hosts.extend(implied.filter(|host| claimed.insert(host.clone())));
    }
}

/// `HOST`, or `HOST:PORT` if the port is not that of the scheme.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn refuse_duplicates(
    upstreams: &[Entry<Upstream>],
    namespaces: &[Entry<Namespace>],
) -> Result<(), ConfigError> {
    let names = upstreams.iter().map(|entry| (entry.item.client.name.as_str(), entry.location("name")));
    ensure_unique("upstream", names)?;
    let hosts = upstreams.iter().flat_map(|entry| {
        entry.item.policy.hosts.iter().map(|host| (host.as_str(), entry.location("hosts")))
    });
    ensure_unique("host", hosts)?;
    let prefixes = namespaces.iter().map(|entry| (entry.item.prefix.as_str(), entry.location("prefix")));
    ensure_unique("namespace prefix", prefixes)
}
