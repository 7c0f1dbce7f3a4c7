//! What the deciding service is told at its start.

use std::{sync::Arc, time::Duration};

use blob_store::Presigner;
use globset::GlobSet;
use internal_api::LinkKeys;
use oci_types::manifest::Platform;
use upstream_client::Upstream;

/// Everything that can be set of registry-api.
#[derive(Clone)]
pub struct Config {
    /// Names this process among the claimants of tasks.
    pub process_id: String,
    /// Where pulls may go.
    pub upstreams: Vec<UpstreamPolicy>,
    /// Which names lead to which upstream.
    pub namespaces: Vec<Namespace>,
    /// The keys that sign links and internal requests.
    pub link_keys: Arc<LinkKeys>,
    /// How long a link to content is valid.
    pub link_lifetime: Duration,
    /// Where clients are sent for blobs.
    pub placement: Placement,
    /// A content node that has not been heard of for so long is dead.
    pub node_dead_after: Duration,
    /// Signs URLs of the object store, where clients are sent there for what is stored.
    pub presigner: Option<Presigner>,
    /// The most names that one page of the catalog or of a tag list has; `n` is clamped to it.
    pub page_max: u32,
    /// How much memory manifests may take, in bytes.
    pub manifest_cache_bytes: u64,
    /// How long a 404 of upstream is remembered.
    pub negative_ttl: Duration,
    /// How long memory may lag behind the database.
    pub cache_max_age: Duration,
    /// Blobs that no manifest names are forgotten after this long.
    pub pending_ttl: Duration,
    /// How long a client with a local copy waits for upstream before it is served the copy.
    pub revalidate_wait: Duration,
    /// How background work is done.
    pub tasks: TaskPolicy,
}

/// Where clients are sent for blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// To one address, whatever nodes there are: a load balancer, or the node in this process.
    Fixed {
        /// Before the path of a link; empty when the node shares this service's listener.
        public_base: String,
        /// The internal API, where it is one, too; else that of the node that owns the digest.
        internal_base: Option<String>,
    },
    /// To the live node that owns the digest; a node without an address of its own shares this service's listener.
    Nodes,
}

/// How background work is done.
#[derive(Debug, Clone)]
pub struct TaskPolicy {
    /// Tasks at once in this process.
    pub workers: usize,
    /// How long a claim on a task lasts without being renewed.
    pub lease: Duration,
    /// A task that failed so often is given up.
    pub max_attempts: i32,
    /// The first pause after a failure.
    pub backoff_min: Duration,
    /// The longest pause after a failure.
    pub backoff_max: Duration,
}

/// One upstream and how far it is trusted to change.
#[derive(Clone)]
pub struct UpstreamPolicy {
    /// The client that speaks to it.
    pub client: Upstream,
    /// What `?ns=` may say to mean it, each `HOST` or `HOST:PORT`.
    pub hosts: Vec<String>,
    /// How long a checked tag counts as fresh.
    pub tag_ttl: Duration,
    /// How long after its last check a tag is served when upstream cannot say; `None` is without end.
    pub stale_if_error: Option<Duration>,
    /// What becomes of a tag that upstream no longer has.
    pub when_deleted: WhenDeleted,
    /// Whether a client's `HEAD` of an unknown tag starts the fetch of its manifest.
    pub fetch_on_head: bool,
    /// Nothing is ever asked of it.
    pub offline: bool,
}

/// What becomes of a tag that upstream no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDeleted {
    /// Our copy is served, stale.
    Serve,
    /// It is answered like a tag that never was.
    Gone,
}

/// A prefix of repository names and what stands behind it.
#[derive(Clone)]
pub struct Namespace {
    /// Whole leading path segments; empty for the root default.
    pub prefix: String,
    /// The name of the upstream behind it.
    pub upstream: String,
    /// Only upstream repositories that match one of these, when there is one.
    pub include: Rules,
    /// No upstream repository that matches one of these.
    pub exclude: Rules,
    /// What is fetched without being asked for.
    pub prefetch: Prefetch,
    /// The platforms of an index that are fetched; when empty, those that clients have asked for.
    pub platforms: Vec<Platform>,
    /// Tags that never move: never checked again.
    pub immutable_tags: Rules,
}

/// Globs, and how each was written.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    globs: GlobSet,
    written: Vec<String>,
}

impl Rules {
    /// Compiles globs; `*` does not cross a `/`, `**` does.
    ///
    /// # Errors
    /// What is wrong with the first glob that is none.
    pub fn new(written: &[String]) -> Result<Self, globset::Error> {
        let mut globs = GlobSet::builder();
        for glob in written {
            globs.add(globset::GlobBuilder::new(glob).literal_separator(true).build()?);
        }
        Ok(Self { globs: globs.build()?, written: written.to_vec() })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// The first rule that `text` matches, as it was written.
    pub fn matching(&self, text: &str) -> Option<&str> {
        let index = *self.globs.matches(text).first()?;
        self.written.get(index).map(String::as_str)
    }
}

/// What is fetched beyond what a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetch {
    /// Nothing.
    None,
    /// The blobs of a platform's manifest; of an index the platforms that count.
    Image,
    /// Every child and every blob.
    All,
}
