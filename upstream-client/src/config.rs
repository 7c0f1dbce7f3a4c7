//! The configuration of one upstream.

use std::{fmt, time::Duration};

use oci_types::{RepositoryName, manifest::MAX_MANIFEST_BYTES};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, Unexpected},
};
use settings::proxy::{Proxies, ProxySetting};
use url::Url;

use crate::Credentials;

/// The settings of `[[upstream]]` that concern requests to it.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The name in configuration, logs and metrics.
    #[serde(deserialize_with = "upstream_name")]
    pub name: String,
    /// `http(s)://host[:port][/prefix]`; requests append `/v2/…`.
    #[serde(serialize_with = "settings::http_url::serialize", deserialize_with = "registry_url")]
    pub url: Url,
    /// `None`: anonymous.
    #[serde(skip)]
    pub credentials: Option<Credentials>,
    /// Additional trusted certificate authorities, in PEM format.
    #[serde(skip)]
    pub ca_pem: Option<Vec<u8>>,
    /// The HTTP proxy of requests to this upstream, to its token service, and of redirects. It resolves the names in
    /// redirects, so that only hosts written as addresses are checked by this process.
    #[serde(default, with = "settings::proxy")]
    pub proxy: ProxySetting,
    /// The proxies of the environment, for [`ProxySetting::Environment`].
    #[serde(skip)]
    pub env_proxies: Proxies,
    /// Whether redirects and token realms may lead to loopback, link-local and private addresses.
    #[serde(default)]
    pub allow_private: bool,
    /// Additional hosts (`host` or `host:port`) that may issue tokens.
    #[serde(default, deserialize_with = "settings::host::list")]
    pub realms: Vec<String>,
    /// Whether all requests fail without being sent.
    #[serde(default)]
    pub offline: bool,
    /// The time limit of connecting, TLS included.
    #[serde(default = "default::connect_timeout", with = "settings::duration::positive")]
    pub connect_timeout: Duration,
    /// The time limit between two pieces of a body.
    #[serde(default = "default::read_timeout", with = "settings::duration::positive")]
    pub read_timeout: Duration,
    /// The time limit of the `GET` of a blob until its response begins: redirects and retries. A registry may store a blob
    /// before it sends it.
    #[serde(default = "default::first_byte_timeout", with = "settings::duration::positive")]
    pub first_byte_timeout: Duration,
    /// The time limit of a metadata request: token, redirects, retries and, for manifests and lists, the body.
    #[serde(default = "default::answer_timeout", with = "settings::duration::positive")]
    pub answer_timeout: Duration,
    /// The maximum size of a manifest, in bytes.
    #[serde(
        default = "default::max_manifest_bytes",
        serialize_with = "settings::size::serialize",
        deserialize_with = "manifest_limit"
    )]
    pub max_manifest_bytes: usize,
    /// The number of consecutive failures that opens the circuit breaker.
    #[serde(default = "default::breaker_failures", deserialize_with = "settings::positive")]
    pub breaker_failures: u32,
    /// How long the circuit breaker stays open.
    #[serde(default = "default::breaker_open_for", with = "settings::duration")]
    pub breaker_open_for: Duration,
    /// The maximum number of concurrent requests whose response has not begun, metadata included.
    #[serde(default = "default::max_requests", deserialize_with = "settings::positive")]
    pub max_requests: usize,
    /// The maximum number of requests that wait for one of them. Further ones fail at once.
    #[serde(default = "default::max_queued_requests")]
    pub max_queued_requests: usize,
    /// The memory for manifests and tag lists that are being received and recorded, in bytes.
    #[serde(default = "default::metadata_memory", with = "settings::size::positive")]
    pub metadata_memory: u64,
    /// The part of the upstream's rate limit that is reserved for client requests. 0: none.
    #[serde(default)]
    pub ratelimit_reserve: u64,
}

/// Defaults that differ from those of the types.
mod default {
    use std::time::Duration;

    pub(super) fn connect_timeout() -> Duration {
        Duration::from_secs(5)
    }

    pub(super) fn read_timeout() -> Duration {
        Duration::from_secs(30)
    }

    pub(super) fn first_byte_timeout() -> Duration {
        Duration::from_mins(5)
    }

    pub(super) fn answer_timeout() -> Duration {
        Duration::from_secs(8)
    }

    pub(super) fn max_manifest_bytes() -> usize {
        super::MAX_MANIFEST_BYTES
    }

    pub(super) fn max_requests() -> usize {
        64
    }

    pub(super) fn max_queued_requests() -> usize {
        256
    }

    pub(super) fn metadata_memory() -> u64 {
        64 * 1024 * 1024
    }

    pub(super) fn breaker_failures() -> u32 {
        5
    }

    pub(super) fn breaker_open_for() -> Duration {
        Duration::from_secs(10)
    }
}

fn upstream_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected =
        "lower-case letters and digits, separated by '.', '_' or '-', in segments separated by '/'";
    settings::from_text(deserializer, expected, |text| {
        RepositoryName::parse(text).is_ok().then(|| text.to_owned())
    })
}

/// The URL of a registry, which may be below a path.
fn registry_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let url = settings::http_url::deserialize(deserializer)?;
    match api_path(&url) {
        Some(message) => Err(D::Error::custom(message)),
        None => Ok(url),
    }
}

/// The message that a URL contains the path of the API, which requests append, and what to write in its place.
fn api_path(url: &Url) -> Option<String> {
    let segments: Vec<&str> = url.path_segments()?.filter(|segment| !segment.is_empty()).collect();
    let (base, rest) = segments.split_at(segments.iter().position(|segment| *segment == "v2")?);
    let name = rest.get(1..).unwrap_or_default().join("/");
    let mut registry = url.clone();
    registry.set_path(&base.join("/"));
    let registry = registry.as_str().trim_end_matches('/');
    let hint = match name.as_str() {
        "" => String::new(),
        name => format!(", and `upstream_prefix = \"{name}\"` in its namespaces"),
    };
    Some(format!("the URL of a registry does not contain /v2: write \"{registry}\"{hint}"))
}

fn manifest_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let bytes = settings::size::positive::deserialize(deserializer)?;
    if bytes > MAX_MANIFEST_BYTES {
        let text = |bytes: usize| settings::size::format(u64::try_from(bytes).unwrap_or(u64::MAX));
        let expected = format!("{} at most", text(MAX_MANIFEST_BYTES));
        return Err(D::Error::invalid_value(Unexpected::Str(&text(bytes)), &expected.as_str()));
    }
    Ok(bytes)
}

impl fmt::Debug for UpstreamConfig {
    // The proxy's URL may contain a password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_str();
        out.debug_struct("UpstreamConfig")
            .field("name", &self.name)
            .field("url", &url)
            .finish_non_exhaustive()
    }
}

impl UpstreamConfig {
    /// An anonymous upstream with the default settings.
    pub fn new(name: &str, url: Url) -> Self {
        Self {
            name: name.to_owned(),
            url,
            credentials: None,
            ca_pem: None,
            proxy: ProxySetting::default(),
            env_proxies: Proxies::default(),
            allow_private: false,
            realms: Vec::new(),
            offline: false,
            connect_timeout: default::connect_timeout(),
            read_timeout: default::read_timeout(),
            first_byte_timeout: default::first_byte_timeout(),
            answer_timeout: default::answer_timeout(),
            max_manifest_bytes: default::max_manifest_bytes(),
            max_requests: default::max_requests(),
            max_queued_requests: default::max_queued_requests(),
            metadata_memory: default::metadata_memory(),
            breaker_failures: default::breaker_failures(),
            breaker_open_for: default::breaker_open_for(),
            ratelimit_reserve: 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), UpstreamConfigError> {
        if settings::http_url::parse(self.url.as_str()).is_none() {
            return Err(UpstreamConfigError::Url);
        }
        if let Some(message) = api_path(&self.url) {
            return Err(UpstreamConfigError::ApiPath(message));
        }
        let username = self.credentials.as_ref().and_then(Credentials::username);
        if username.is_some_and(|username| username.contains(':')) {
            return Err(UpstreamConfigError::Username);
        }
        Ok(())
    }
}

/// An invalid [`UpstreamConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamConfigError {
    /// Not http(s), or with a login, a query or a fragment.
    #[error("the URL must be http(s)://host[:port][/prefix], without user, password, query or fragment")]
    Url,
    /// The URL contains the path of the API: what to write in its place.
    #[error("{0}")]
    ApiPath(String),
    /// An entry of `realms` is neither `host` nor `host:port`.
    #[error("`realms` must be a list of host or host:port")]
    Realm,
    /// The user name contains a colon, which Basic authentication cannot represent.
    #[error("`username` must not contain a colon")]
    Username,
    /// `ca_pem` contains no valid certificate.
    #[error("invalid certificate authorities: {0}")]
    Authorities(String),
    /// The proxy's URL is invalid.
    #[error("invalid proxy URL")]
    Proxy,
    /// The HTTP client could not be built.
    #[error("failed to build the HTTP client: {0}")]
    Client(String),
}
