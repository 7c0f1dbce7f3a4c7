//! The sections `[log]`, `[api]`, `[content]`, `[database]` and `[jobs]`, and the parts of them that concern the process.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use clap::ValueEnum;
use content_app::{FillPolicy, NodeSettings};
use internal_api::is_key_id;
use registry_api::{ApiSettings, JobSettings};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use shared_models::db::DbConfig;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{
    error::ConfigError,
    files::LinkKeyFile,
    section::{Keys, Section, ensure_unique},
};

/// `[log]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The format of a line.
    pub format: LogFormat,
    /// The lines that are written: directives of tracing-subscriber's `EnvFilter`.
    #[serde(deserialize_with = "log_filter")]
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info,actix_server=warn,actix_http=off".to_owned() }
    }
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One readable line per event
    Text,
    /// One JSON object per line
    Json,
}

fn log_filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let filter = String::deserialize(deserializer)?;
    match EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(D::Error::custom(format_args!("invalid log filter: {error}"))),
    }
}

impl Section for Log {
    type Parts = (Self,);

    fn from_parts((log,): (Self,), _: &Keys<'_>) -> Result<Self, ConfigError> {
        Ok(log)
    }
}

/// `[api]`
#[derive(Debug, Clone, Serialize)]
pub struct Api {
    /// The part for the process.
    #[serde(flatten)]
    pub server: ApiServer,
    /// The part for registry-api.
    #[serde(flatten)]
    pub service: ApiSettings,
}

/// The settings of `[api]` that concern the process.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiServer {
    /// The address to listen on for clients.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// The address of the internal listener: health, metrics, internal API; in serve mode those of both services.
    #[serde(deserialize_with = "address")]
    pub internal_listen: SocketAddr,
    /// The number of HTTP worker threads. `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// The time after which an idle connection is closed: longer than load balancers keep theirs.
    #[serde(with = "settings::duration::positive")]
    pub keep_alive: Duration,
    /// How long requests are still accepted after SIGTERM while `/readyz` fails.
    #[serde(with = "settings::duration")]
    pub drain_grace: Duration,
    /// The time limit of running requests after that.
    #[serde(with = "settings::duration")]
    pub shutdown_timeout: Duration,
}

impl Default for ApiServer {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            internal_listen: SocketAddr::from(([127, 0, 0, 1], 5100)),
            workers: None,
            keep_alive: Duration::from_secs(75),
            drain_grace: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

impl Section for Api {
    type Parts = (ApiServer, ApiSettings);

    fn from_parts((server, service): Self::Parts, keys: &Keys<'_>) -> Result<Self, ConfigError> {
        ensure_distinct(server.listen, server.internal_listen, keys)?;
        Ok(Self { server, service })
    }
}

/// `[content]`
#[derive(Debug, Clone, Serialize)]
pub struct Content {
    /// The part for the process.
    #[serde(flatten)]
    pub server: ContentServer,
    /// The part for content links.
    #[serde(flatten)]
    pub links: Links,
    /// The part for the node.
    #[serde(flatten)]
    pub node: NodeSettings,
    /// The part for fills.
    #[serde(flatten)]
    pub fills: FillPolicy,
}

/// The settings of `[content]` that concern the process.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContentServer {
    /// The address to listen on for clients. Not used in serve mode.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// The address of the internal listener: health, metrics, internal API. Not used in serve mode.
    #[serde(deserialize_with = "address")]
    pub internal_listen: SocketAddr,
    /// The URL of this node for clients. For registry-api: that of a load balancer before all nodes.
    #[serde(with = "settings::http_url::option")]
    pub public_url: Option<Url>,
    /// The URL of `internal_listen` for the other processes.
    #[serde(with = "settings::http_url::option")]
    pub internal_url: Option<Url>,
    /// The name of this node. `None`: its internal URL.
    pub node_id: Option<String>,
    /// The number of HTTP worker threads. `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// The time after which an idle connection is closed: longer than load balancers keep theirs.
    #[serde(with = "settings::duration::positive")]
    pub keep_alive: Duration,
    /// How long requests are still accepted after SIGTERM while `/readyz` fails.
    #[serde(with = "settings::duration")]
    pub drain_grace: Duration,
    /// The time limit of streams after that. In serve mode, `api.shutdown_timeout` applies.
    #[serde(with = "settings::duration")]
    pub drain_timeout: Duration,
}

impl Default for ContentServer {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5001)),
            internal_listen: SocketAddr::from(([127, 0, 0, 1], 5101)),
            public_url: None,
            internal_url: None,
            node_id: None,
            workers: None,
            keep_alive: Duration::from_secs(75),
            drain_grace: Duration::from_secs(5),
            drain_timeout: Duration::from_mins(5),
        }
    }
}

/// The settings of `[content]` that concern content links.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Links {
    /// The lifetime of a content link.
    #[serde(with = "settings::duration::positive")]
    pub link_lifetime: Duration,
    /// The first signs, all verify. Empty: the key of the data directory.
    pub link_keys: Vec<ConfiguredLinkKey>,
}

impl Default for Links {
    fn default() -> Self {
        Self { link_lifetime: Duration::from_mins(20), link_keys: Vec::new() }
    }
}

/// An element of `link_keys`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredLinkKey {
    /// The id of the key in content links.
    #[serde(deserialize_with = "key_id")]
    pub id: String,
    /// The file with the key.
    pub file: LinkKeyFile,
}

fn key_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected = "1 to 64 letters, digits, '.', '_' or '-'";
    settings::from_text(deserializer, expected, |id| is_key_id(id).then(|| id.to_owned()))
}

impl Section for Content {
    type Parts = (ContentServer, Links, NodeSettings, FillPolicy);

    fn from_parts((server, links, node, fills): Self::Parts, keys: &Keys<'_>) -> Result<Self, ConfigError> {
        ensure_distinct(server.listen, server.internal_listen, keys)?;
        keys.ensure(
            fills.backoff_min <= fills.backoff_max,
            "fill_backoff_min",
            "`fill_backoff_min` is longer than `fill_backoff_max`",
        )?;
        let ids = links
            .link_keys
            .iter()
            .enumerate()
            .map(|(index, key)| (key.id.as_str(), keys.element_location("link_keys", index)));
        ensure_unique("link key", ids)?;
        Ok(Self { server, links, node, fills })
    }
}

impl Section for DbConfig {
    type Parts = (Self,);

    fn from_parts((database,): (Self,), _: &Keys<'_>) -> Result<Self, ConfigError> {
        Ok(database)
    }
}

impl Section for JobSettings {
    type Parts = (Self,);

    fn from_parts((jobs,): (Self,), keys: &Keys<'_>) -> Result<Self, ConfigError> {
        let ascending = jobs.backoff_min <= jobs.backoff_max;
        keys.ensure(ascending, "backoff_min", "`backoff_min` is longer than `backoff_max`")?;
        Ok(jobs)
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let expected = "an address and port such as \"127.0.0.1:5000\" or \"[::]:5000\"";
    settings::from_text(deserializer, expected, |text| text.parse().ok())
}

fn ensure_distinct(listen: SocketAddr, internal: SocketAddr, keys: &Keys<'_>) -> Result<(), ConfigError> {
    let message = "`internal_listen` is the same address as `listen`";
    keys.ensure(listen != internal || listen.port() == 0, "internal_listen", message)
}
