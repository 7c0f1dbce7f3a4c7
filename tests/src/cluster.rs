//! Tidegate as many nodes: real processes of both services over one PostgreSQL database, before a chaos upstream.

mod config;
pub mod database;

use futures::future::join_all;
use tempfile::TempDir;

use crate::{
    assert_eventually,
    balancer::Balancer,
    chaos::ChaosUpstream,
    eventually::{PATIENCE, Patience},
    http_client::http_client,
    image::Image,
    process::{TidegateBuilder, TidegateProcess, tidegate},
    puller::Puller,
    s3_server::S3Server,
    tcp_proxy::TcpProxy,
};
use config::Config;
pub use database::{Database, Server};

/// The repository that tests pull, as upstream has it.
pub const UPSTREAM_NAME: &str = "library/x";

/// The same as clients call it.
pub const NAME: &str = "up/library/x";

/// How clients come to a content node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    /// registry-api sends them to the node that a digest's hash names.
    #[default]
    Hashing,
    /// registry-api sends them to a load balancer before all nodes.
    Balancer,
}

/// A cluster to be started: two content nodes and one registry-api by default.
#[derive(Debug)]
pub struct ClusterBuilder {
    contents: usize,
    apis: usize,
    way: Way,
    server: Server,
    config: Config,
    content_clocks: Vec<i64>,
    api_clocks: Vec<i64>,
    database_clock: bool,
    database_network: bool,
}

/// An object store and the network before it.
#[derive(Debug)]
pub struct Storage {
    /// The store.
    pub server: S3Server,
    /// Everything between the nodes and the store passes here.
    pub network: TcpProxy,
}

/// A running cluster. Everything of it ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The registry-api processes.
    pub apis: Vec<TidegateProcess>,
    /// The content-app processes; the first has the node id `content-0`.
    pub contents: Vec<TidegateProcess>,
    /// The upstream of the namespace `up`.
    pub upstream: ChaosUpstream,
    /// Their database.
    pub database: Database,
    /// The network between the processes and their database, if it can fail.
    pub database_network: Option<TcpProxy>,
    /// Where blobs are stored, unless each node has its own disk.
    pub storage: Option<Storage>,
    /// The balancer before all registry-api processes.
    pub api_balancer: Balancer,
    /// The balancer before all content nodes, if clients come through one.
    pub content_balancer: Option<Balancer>,
    // After the processes, which read files in it.
    _folder: TempDir,
}

impl ClusterBuilder {
    /// So many content nodes.
    pub fn contents(mut self, count: usize) -> Self {
        self.contents = count;
        self
    }

    /// So many registry-api processes.
    pub fn apis(mut self, count: usize) -> Self {
        self.apis = count;
        self
    }

    /// Clients come to content nodes through a round-robin load balancer.
    pub fn balanced(mut self) -> Self {
        self.way = Way::Balancer;
        self
    }

    /// With a database server that may be stopped.
    pub fn own_database_server(mut self) -> Self {
        self.server = Server::Own;
        self
    }

    /// Blobs are stored in S3. `keys` are further lines of `[storage]`.
    pub fn s3(mut self, keys: &str) -> Self {
        self.config.storage = Some(keys.to_owned());
        self
    }

    /// Further lines of `[api]`.
    pub fn api(mut self, keys: &str) -> Self {
        self.config.api = keys.to_owned();
        self
    }

    /// Further lines of `[content]`.
    pub fn content(mut self, keys: &str) -> Self {
        self.config.content = keys.to_owned();
        self
    }

    /// Further lines of `[[upstream]]`.
    pub fn upstream(mut self, keys: &str) -> Self {
        self.config.upstream = keys.to_owned();
        self
    }

    /// What the clock of each content node is ahead of that of the machine, in seconds; without an entry it is that.
    pub fn content_clocks(mut self, seconds: &[i64]) -> Self {
        self.content_clocks = seconds.to_vec();
        self
    }

    /// The same for each registry-api.
    pub fn api_clocks(mut self, seconds: &[i64]) -> Self {
        self.api_clocks = seconds.to_vec();
        self
    }

    /// With a database whose clock can be stepped.
    pub fn database_clock(mut self) -> Self {
        self.database_clock = true;
        self
    }

    /// With a network between the processes and the database that can fail.
    pub fn database_network(mut self) -> Self {
        self.database_network = true;
        self
    }

    /// Starts everything, and waits until registry-api sees all nodes.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start(self) -> Cluster {
        let folder = TempDir::with_prefix("tdg-nodes-").unwrap();
        let (upstream, database) = tokio::join!(ChaosUpstream::start(), Database::start(self.server));
        if self.database_clock {
            database.replace_clock().await;
        }
        let database_network = match self.database_network {
            true => Some(TcpProxy::start(database.address()).await),
            false => None,
        };
        let url = match &database_network {
            Some(proxy) => database.url_through(proxy),
            None => database.url().to_owned(),
        };
        let storage = match self.config.storage {
            Some(_) => Some(Storage::start().await),
            None => None,
        };
        let endpoint = storage.as_ref().map(|storage| format!("http://{}", storage.network.address()));
        // `[content]` comes last in it, so that one service's own keys can follow.
        let shared = self.config.shared(folder.path(), &url, &upstream.url(), endpoint.as_deref());
        tidegate()
            .args(["migrate", "--data-dir"])
            .arg(folder.path())
            .env(URL, database.url())
            .succeed()
            .await;

        let contents = join_all((0..self.contents).map(|number| {
            let config = format!("{shared}node_id = \"content-{number}\"\n");
            let content = TidegateProcess::builder().args(["content-app"]).config(config);
            with_clock(content, self.content_clocks.get(number)).start()
        }))
        .await;
        let content_balancer = match self.way {
            Way::Hashing => None,
            Way::Balancer => Some(Balancer::start(contents.iter().map(TidegateProcess::listening)).await),
        };
        let public_url = content_balancer.as_ref().map(|it| format!("public_url = \"{}\"\n", it.url()));
        let config = format!("{shared}{}", public_url.unwrap_or_default());
        let apis = join_all((0..self.apis).map(|number| {
            let api = TidegateProcess::builder().args(["registry-api"]).config(config.as_str());
            with_clock(api, self.api_clocks.get(number)).start()
        }))
        .await;
        let api_balancer = Balancer::start(apis.iter().map(TidegateProcess::listening)).await;
        let cluster = Cluster {
            apis,
            contents,
            upstream,
            database,
            database_network,
            storage,
            api_balancer,
            content_balancer,
            _folder: folder,
        };
        cluster.all_nodes_live().await;
        cluster
    }
}

fn with_clock(process: TidegateBuilder, ahead: Option<&i64>) -> TidegateBuilder {
    match ahead {
        Some(seconds) => process.clock_ahead(*seconds),
        None => process,
    }
}

/// The variable of the database's URL.
const URL: &str = "TIDEGATE_DATABASE__URL";

impl Storage {
    async fn start() -> Self {
        let server = S3Server::start().await;
        let network = TcpProxy::start(server.address()).await;
        Self { server, network }
    }
}

impl Cluster {
    /// A cluster that is still to be described.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            contents: 2,
            apis: 1,
            way: Way::default(),
            server: Server::default(),
            config: Config::default(),
            content_clocks: Vec::new(),
            api_clocks: Vec::new(),
            database_clock: false,
            database_network: false,
        }
    }

    /// Waits until every content node has said that it lives, since it was started the last time.
    pub async fn all_nodes_live(&self) {
        for (number, node) in self.contents.iter().enumerate() {
            let said = format!(
                "content_nodes WHERE id = 'content-{number}' AND NOT draining AND heartbeat_at >= {}",
                node.started_at().0
            );
            assert_eventually!(self.database.rows(&said).await == 1, "content-{number} does not live");
        }
    }

    /// A client, by way of the balancer before the registry-api processes.
    pub fn puller(&self) -> Puller {
        Puller::new(&self.api_balancer.url())
    }

    /// Gives upstream an image of one layer under `library/x:1`, and lets registry-api learn of it.
    pub async fn announce(&self, image: &Image) {
        self.upstream.put_image(UPSTREAM_NAME, "1", image);
        let url = format!("{}/v2/{NAME}/manifests/1", self.api_balancer.url());
        assert_eq!(http_client().get(url).send().await.unwrap().status(), 200);
    }

    /// Which node downloads a blob, as its lease says.
    pub async fn holder(&self, digest: &str) -> usize {
        let query = format!("SELECT node_id AS text FROM fills WHERE digest = '{digest}'");
        let mut patience = Patience::of(PATIENCE);
        loop {
            if let [holder] = &self.database.texts(&query).await[..] {
                return holder.strip_prefix("content-").unwrap().parse().unwrap();
            }
            assert!(patience.lasts().await, "nobody holds a lease of {digest}");
        }
    }

    /// Which node registry-api sends clients to for a blob.
    pub async fn owner(&self, digest: &str) -> usize {
        let url = format!("{}/v2/{NAME}/blobs/{digest}", self.apis[0].url());
        let answer = http_client().get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 307, "{url}");
        let location = answer.headers()["location"].to_str().unwrap();
        let is_owner = |node: &TidegateProcess| location.starts_with(&node.url());
        self.contents.iter().position(is_owner).unwrap_or_else(|| panic!("{location} is no node"))
    }

    /// Body bytes that upstream sent of a blob, as a part of its size.
    pub fn upstream_ratio(&self, digest: &str, size: usize) -> f64 {
        let [sent, size] = [self.upstream.blob_bytes(digest), u64::try_from(size).unwrap()]
            .map(|it| u32::try_from(it).unwrap());
        f64::from(sent) / f64::from(size)
    }

    /// Waits until no node holds a lease.
    pub async fn assert_no_leases(&self) {
        let held = "SELECT digest || ' by ' || node_id AS text FROM fills";
        assert_eventually!(
            self.database.rows("fills").await == 0,
            "leases are left: {:?}",
            self.database.texts(held).await
        );
    }
}
