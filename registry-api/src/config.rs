//! The configuration of registry-api.

use std::{sync::Arc, time::Duration};

use blob_store::Presigner;
use globset::{GlobBuilder, GlobSet};
use internal_api::LinkKeys;
use oci_types::{RepositoryName, manifest::Platform};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, Unexpected},
};
use upstream_client::Upstream;
use url::Url;

/// The configuration of the service.
#[derive(Clone)]
pub struct Config {
    /// The name of this process among those that run jobs, different at each start.
    pub process_id: String,
    /// The upstreams.
    pub upstreams: Vec<ConfiguredUpstream>,
    /// `[[namespace]]`
    pub namespaces: Vec<Namespace>,
    /// The keys that sign content links and internal requests.
    pub link_keys: Arc<LinkKeys>,
    /// The lifetime of a content link.
    pub link_lifetime: Duration,
    /// The content-app that serves a blob.
    pub placement: Placement,
    /// The age of the last heartbeat after which a content node counts as dead.
    pub node_dead_after: Duration,
    /// Presigns URLs of the object store. `None`: content-app serves stored blobs.
    pub presigner: Option<Presigner>,
    /// `[api]`
    pub settings: ApiSettings,
    /// `[jobs]`
    pub jobs: JobSettings,
}

/// The settings of `[api]` that concern the service.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// The URL of the public listener for clients. `None`: URLs in responses have the host that the client used.
    #[serde(with = "settings::http_url::option")]
    pub public_url: Option<Url>,
    /// The maximum number of names in a page of the catalog or a tag list; `n` is limited to it.
    #[serde(deserialize_with = "settings::positive")]
    pub max_page_size: u32,
    /// The memory for manifests, in bytes.
    #[serde(with = "settings::size")]
    pub manifest_cache_bytes: u64,
    /// The memory for cached tag lists, in bytes.
    #[serde(with = "settings::size")]
    pub tag_list_cache_bytes: u64,
    /// The memory for cached referrers, in bytes.
    #[serde(with = "settings::size")]
    pub referrers_cache_bytes: u64,
    /// The lifetime of a cached 404 of an upstream.
    #[serde(with = "settings::duration")]
    pub negative_ttl: Duration,
    /// The time limit of the revalidation of a stored tag, after which a client is served the stale tag.
    #[serde(with = "settings::duration::positive")]
    pub revalidate_wait: Duration,
    /// The lifetime of an unused repository link to a blob that no manifest references.
    #[serde(with = "settings::duration")]
    pub pending_ttl: Duration,
    /// The maximum delay after which a cache observes a change of the database.
    #[serde(with = "settings::duration")]
    pub cache_max_age: Duration,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            public_url: None,
            max_page_size: 10_000,
            manifest_cache_bytes: 64 * 1024 * 1024,
            tag_list_cache_bytes: 16 * 1024 * 1024,
            referrers_cache_bytes: 16 * 1024 * 1024,
            negative_ttl: Duration::from_secs(10),
            revalidate_wait: Duration::from_secs(2),
            pending_ttl: Duration::from_hours(24),
            cache_max_age: Duration::from_secs(5),
        }
    }
}

/// The content-app that serves a blob. An empty base is the public listener of this service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// One address for all blobs: a load balancer, or content-app in the same process.
    Fixed {
        /// The base URL for clients.
        public_base: String,
        /// The base URL of the internal API. `None`: that of the node that owns the digest.
        internal_base: Option<String>,
    },
    /// The live node that owns the digest.
    Nodes,
}

/// `[jobs]`: background jobs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// The number of jobs of each kind that run concurrently in this process. 0: none.
    pub workers: usize,
    /// How long a claimed job stays claimed without being renewed.
    #[serde(with = "settings::duration::positive")]
    pub lease: Duration,
    /// The time limit of an attempt. The job is then retried like after a failure; downloads that it has started continue.
    #[serde(with = "settings::duration::positive")]
    pub attempt_timeout: Duration,
    /// The number of attempts after which a job fails permanently.
    #[serde(deserialize_with = "settings::positive")]
    pub max_attempts: i32,
    /// The delay after the first failure. It doubles with each further one.
    #[serde(with = "settings::duration")]
    pub backoff_min: Duration,
    /// The maximum delay after a failure.
    #[serde(with = "settings::duration")]
    pub backoff_max: Duration,
    /// How long jobs that have ended are listed.
    #[serde(with = "settings::duration")]
    pub history: Duration,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            workers: 4,
            lease: Duration::from_mins(1),
            attempt_timeout: Duration::from_mins(30),
            max_attempts: 10,
            backoff_min: Duration::from_secs(5),
            backoff_max: Duration::from_hours(1),
            history: Duration::from_hours(7 * 24),
        }
    }
}

/// An upstream: its client and its policy.
#[derive(Clone)]
pub struct ConfiguredUpstream {
    /// The client.
    pub client: Upstream,
    /// The policy.
    pub policy: UpstreamPolicy,
}

impl ConfiguredUpstream {
    /// Whether `?ns=` with this host selects the upstream.
    pub(crate) fn has_host(&self, host: &str) -> bool {
        self.policy.hosts.iter().any(|other| other.eq_ignore_ascii_case(host))
    }
}

/// The settings of `[[upstream]]` that concern the content pulled through from it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamPolicy {
    /// The values of `?ns=` that select the upstream, each `HOST` or `HOST:PORT`.
    #[serde(deserialize_with = "settings::host::list")]
    pub hosts: Vec<String>,
    /// How long a tag is fresh after its revalidation.
    #[serde(with = "settings::duration")]
    pub tag_ttl: Duration,
    /// How long a tag that is no longer fresh is served if upstream is unavailable. `None`: forever.
    #[serde(with = "settings::duration::or_forever")]
    pub stale_if_error: Option<Duration>,
    /// The treatment of a stored tag that upstream has deleted.
    pub when_deleted_upstream: WhenDeleted,
}

impl Default for UpstreamPolicy {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            tag_ttl: Duration::from_mins(1),
            stale_if_error: None,
            when_deleted_upstream: WhenDeleted::Serve,
        }
    }
}

/// The treatment of a stored tag that upstream has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenDeleted {
    /// The stored manifest is served, stale.
    Serve,
    /// 404.
    Gone,
}

/// `[[namespace]]`: a prefix of repository names and the upstream behind it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Whole leading segments of a repository name. Empty: the root default.
    #[serde(deserialize_with = "prefix")]
    pub prefix: String,
    /// The name of the upstream. `None`: a hosted namespace.
    pub upstream: Option<String>,
    /// The leading segments of all names at the upstream: a project or repository of a registry that is shared. Empty: none.
    #[serde(default, deserialize_with = "prefix", skip_serializing_if = "String::is_empty")]
    pub upstream_prefix: String,
    /// Repositories that may be pulled, by their names below `upstream_prefix`. Empty: all.
    #[serde(default)]
    pub include: Rules,
    /// Repositories that may not be pulled, by their names below `upstream_prefix`.
    #[serde(default)]
    pub exclude: Rules,
    /// The content that is fetched ahead of clients.
    #[serde(default)]
    pub prefetch: Prefetch,
    /// The platforms that are fetched ahead. Empty: those that clients have requested.
    #[serde(default, serialize_with = "serialize_platforms", deserialize_with = "platforms")]
    pub platforms: Vec<Platform>,
    /// Tags that are never revalidated.
    #[serde(default)]
    pub immutable_tags: Rules,
}

impl Namespace {
    /// A namespace of an upstream with the default settings.
    pub fn new(prefix: &str, upstream: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            upstream: Some(upstream.to_owned()),
            upstream_prefix: String::new(),
            include: Rules::default(),
            exclude: Rules::default(),
            prefetch: Prefetch::default(),
            platforms: Vec::new(),
            immutable_tags: Rules::default(),
        }
    }

    pub(crate) fn upstream_name(&self) -> &str {
        self.upstream.as_deref().unwrap_or_default()
    }
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected =
        "lower-case letters and digits, separated by '.', '_' or '-', in segments separated by '/'";
    settings::from_text(deserializer, expected, |text| {
        (text.is_empty() || RepositoryName::parse(text).is_ok()).then(|| text.to_owned())
    })
}

fn platforms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Platform>, D::Error> {
    let expected = "a platform such as \"linux/amd64\" or \"linux/arm/v7\"";
    settings::list_from_text(deserializer, expected, |text| text.parse().ok())
}

fn serialize_platforms<S: Serializer>(platforms: &[Platform], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(platforms.iter().map(ToString::to_string))
}

/// A list of globs.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    set: GlobSet,
    globs: Vec<String>,
}

impl Rules {
    /// Compiles globs. `*` does not match `/`, `**` does.
    ///
    /// # Errors
    /// The first invalid glob.
    pub fn new(globs: &[String]) -> Result<Self, globset::Error> {
        let mut set = GlobSet::builder();
        for glob in globs {
            set.add(GlobBuilder::new(glob).literal_separator(true).build()?);
        }
        Ok(Self { set: set.build()?, globs: globs.to_vec() })
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// The first glob that matches `text`.
    pub fn matching(&self, text: &str) -> Option<&str> {
        let index = *self.set.matches(text).first()?;
        self.globs.get(index).map(String::as_str)
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&Vec::deserialize(deserializer)?).map_err(|error| {
            let glob = Unexpected::Str(error.glob().unwrap_or_default());
            D::Error::invalid_value(glob, &format!("a glob: {}", error.kind()).as_str())
        })
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.globs.serialize(serializer)
    }
}

/// The content that is fetched ahead of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefetch {
    /// Nothing.
    None,
    /// The blobs of an image; of an index, those of the selected platforms.
    #[default]
    Image,
    /// All manifests and blobs of an index.
    All,
}
