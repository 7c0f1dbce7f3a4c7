//! What is configured of one upstream.

use std::{fmt, time::Duration};

use secrecy::SecretString;
use url::Url;

/// A login at an upstream. It is sent to that upstream and to the token realms allowed for it, nowhere else.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password or access token.
    pub password: SecretString,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Credentials")
    }
}

/// One upstream: where it is, how to log in, and how long to wait for it.
#[derive(Clone)]
pub struct UpstreamConfig {
    /// The name it has in configuration, logs and metrics.
    pub name: String,
    /// `https://host[:port][/prefix]`; `/v2/…` is appended. http is taken as meant.
    pub url: Url,
    /// None: anonymous.
    pub credentials: Option<Credentials>,
    /// Certificate authorities in PEM, trusted besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// An HTTP proxy for everything asked of this upstream. Proxies of the environment are ignored. Behind a proxy
    /// the names in redirects are resolved by it, so only hosts written as addresses are checked here.
    pub proxy: Option<Url>,
    /// Whether redirects and realms may lead to loopback, link-local and private addresses.
    pub allow_private: bool,
    /// Hosts (`host` or `host:port`) that may give tokens, besides the upstream's own.
    pub realms: Vec<String>,
    /// Never ask: every call fails at once.
    pub offline: bool,
    /// Until a connection stands, TLS included.
    pub connect_timeout: Duration,
    /// Between two pieces of a body, and until the answer to a request for a blob begins.
    pub read_timeout: Duration,
    /// For the whole of a metadata request: token, redirects, retries and, for manifests and lists, the body.
    pub answer_timeout: Duration,
    /// The largest manifest that is accepted, in bytes.
    pub max_manifest_bytes: usize,
    /// After how many failures in a row the circuit opens.
    pub breaker_failures: u32,
    /// How long it then stays open.
    pub breaker_open_for: Duration,
    /// How much of the upstream's quota is kept for clients; 0: background requests may use it all.
    pub ratelimit_reserve: u64,
}

impl fmt::Debug for UpstreamConfig {
    // The proxy's URL may carry a login.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_str();
        out.debug_struct("UpstreamConfig")
            .field("name", &self.name)
            .field("url", &url)
            .finish_non_exhaustive()
    }
}

impl UpstreamConfig {
    /// An anonymous upstream with the default limits.
    pub fn new(name: &str, url: Url) -> Self {
        Self {
            name: name.to_owned(),
            url,
            credentials: None,
            ca_pem: None,
            proxy: None,
            allow_private: false,
            realms: Vec::new(),
            offline: false,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(8),
            max_manifest_bytes: 4 * 1024 * 1024,
            breaker_failures: 5,
            breaker_open_for: Duration::from_secs(10),
            ratelimit_reserve: 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), UpstreamConfigError> {
        let web = matches!(self.url.scheme(), "http" | "https") && self.url.has_host();
        let login = !self.url.username().is_empty() || self.url.password().is_some();
        if !web || login || self.url.query().is_some() || self.url.fragment().is_some() {
            return Err(UpstreamConfigError::Url);
        }
        if self.credentials.as_ref().is_some_and(|credentials| credentials.username.contains(':')) {
            return Err(UpstreamConfigError::Username);
        }
        Ok(())
    }
}

/// What is wrong with an [`UpstreamConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamConfigError {
    /// Not http(s), or with a login, a query or a fragment.
    #[error("an upstream's url is http(s)://host[:port][/prefix], without a login, query or fragment")]
    Url,
    /// An entry of `realms` is neither `host` nor `host:port`.
    #[error("an entry of an upstream's realms is written host or host:port")]
    Realm,
    /// The user's name has a colon, which Basic authentication cannot carry.
    #[error("an upstream's username cannot have a colon")]
    Username,
    /// `ca_pem` has no certificate, or one that cannot be read.
    #[error("an upstream's certificate authorities cannot be read: {0}")]
    Authorities(String),
    /// The proxy's URL is not understood.
    #[error("an upstream's proxy is not a proxy URL")]
    Proxy,
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}
