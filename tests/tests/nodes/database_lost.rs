//! The database is unavailable while clients pull.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::Client;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    cluster::{
        Cluster, NAME, UPSTREAM_NAME,
        database::{Database, Server},
    },
    http_client::http_client_without_pool,
    image::{Image, Layer},
    process::TidegateProcess,
    puller::Puller,
    tcp_proxy::TcpProxy,
};
use tokio::sync::watch;
use url::Url;

use crate::support::{MIB, count};

const AWAY: Duration = Duration::from_secs(60);
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// The longest that a client waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// How long a query waits for the database at least.
const DATABASE_WAIT: Duration = Duration::from_secs(5);

/// Tables whose rows are never deleted here.
const KEPT: [&str; 7] = [
    "repositories",
    "tags",
    "manifests",
    "repository_manifests",
    "blobs",
    "repository_blobs",
    "blobs WHERE state = 1",
];

/// How a request may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Right,
    /// 503 with `Retry-After`.
    Later,
}

/// Asks and follows redirects.
///
/// # Panics
/// When the answer is neither right nor "later", or too late.
async fn ask(client: &Client, registry: &str, path: &str, expected: &Bytes) -> End {
    let began = Instant::now();
    let mut url = Url::parse(registry).unwrap().join(path).unwrap();
    let answer = loop {
        let answer = client.get(url.clone()).send().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let Some(location) = answer.headers().get("location") else { break answer };
        url = url.join(location.to_str().unwrap()).unwrap();
    };
    let (status, later) = (answer.status(), answer.headers().contains_key("retry-after"));
    let body = answer.bytes().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    assert!(began.elapsed() < ANSWER_WITHIN, "{url}: {status} after {:?}", began.elapsed());
    match status.as_u16() {
        200 => assert!(body == *expected, "{url}: wrong bytes"),
        503 => assert!(later, "{url}: 503 without Retry-After: {body:?}"),
        _ => panic!("{url}: {status} {body:?}"),
    }
    if status == 200 { End::Right } else { End::Later }
}

/// What clients ask for all the time, and never before: image `number` of those.
fn fresh(number: usize) -> Image {
    Image::random(1_000_000 + count(number), &[20_000])
}

/// How many requests of each kind ended how.
type Ends = BTreeMap<(&'static str, End), usize>;

/// Asks for what is here and for what is not, until told.
async fn load(registry: String, warm: Image, stop: watch::Receiver<()>) -> Ends {
    let client = http_client_without_pool();
    let mut ends = Ends::new();
    let mut number = 0;
    while stop.has_changed().is_ok() {
        let cold = fresh(number);
        number += 1;
        let path = |image: &Image| format!("/v2/{NAME}/blobs/{}", image.layers[0].digest);
        let asks = [
            ("warm tag", format!("/v2/{NAME}/manifests/warm"), &warm.manifest),
            ("warm digest", format!("/v2/{NAME}/manifests/{}", warm.digest), &warm.manifest),
            ("warm blob", path(&warm), &warm.layers[0].bytes),
            ("cold tag", format!("/v2/{NAME}/manifests/cold-{}", number - 1), &cold.manifest),
            ("cold blob", path(&cold), &cold.layers[0].bytes),
        ];
        for (kind, path, expected) in asks {
            *ends.entry((kind, ask(&client, &registry, &path, expected).await)).or_default() += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ends
}

struct World {
    cluster: Arc<Cluster>,
    warm: Image,
}

impl World {
    async fn start() -> Self {
        let cluster =
            Cluster::builder().apis(2).own_database_server().upstream("tag_ttl = \"1s\"").start().await;
        let warm = Image::random(1, &[100_000]);
        cluster.upstream.put_image(UPSTREAM_NAME, "warm", &warm);
        for number in 0..1000 {
            cluster.upstream.put_image(UPSTREAM_NAME, &format!("cold-{number}"), &fresh(number));
        }
        cluster.puller().image(NAME, "warm", &warm).await.unwrap();
        Self { cluster: Arc::new(cluster), warm }
    }

    /// Starts a stream that takes so long, and waits until its bytes come.
    async fn stream(&self, tag: &str, seed: u64, takes: u64) -> (Layer, tokio::task::JoinHandle<Duration>) {
        let image = Image::random(seed, &[16 * MIB]);
        let layer = image.layers[0].clone();
        let upstream = &self.cluster.upstream;
        upstream.put_image(UPSTREAM_NAME, tag, &image);
        let bytes_per_second = count(16 * MIB) / takes;
        upstream.on(Rule::on("GET", &layer.digest).then(Fault::Throttle { bytes_per_second }));
        let client = self.cluster.puller();
        client.image_manifest(NAME, tag, &image).await.unwrap();
        let (digest, bytes) = (layer.digest.clone(), layer.bytes.clone());
        let pulling = tokio::spawn(async move {
            let pull = client.blob(NAME, &digest, &bytes).await.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(pull.retries(), 0, "{pull:?}");
            pull.took
        });
        assert_eventually!(upstream.blob_bytes(&layer.digest) > 0);
        (layer, pulling)
    }

    async fn rows(&self) -> Vec<usize> {
        let database = &self.cluster.database;
        futures::future::join_all(KEPT.iter().map(|table| database.rows(table))).await
    }

    async fn assert_stored(&self, digest: &str) {
        let table = format!("blobs WHERE digest = '{digest}' AND state = 1");
        assert_eventually!(self.cluster.database.rows(&table).await == 1, "{digest} is not stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_a_database_costs_patience_and_nothing_else() {
    let world = World::start().await;
    let cluster = &world.cluster;
    let (stop, stopped) = watch::channel(());
    let loads: Vec<_> = cluster
        .apis
        .iter()
        .map(|api| tokio::spawn(load(api.url(), world.warm.clone(), stopped.clone())))
        .collect();
    let (within, ends_within) = world.stream("within", 2, 15).await;
    let (beyond, ends_beyond) = world.stream("beyond", 3, 90).await;
    let before = world.rows().await;

    cluster.database.stop().await;
    let lost = Instant::now();
    assert!(ends_within.await.unwrap() < AWAY);
    tokio::time::sleep(AWAY.saturating_sub(lost.elapsed())).await;
    // The worst of moments: a heartbeat has just failed, and the next one is furthest away.
    let failed = || cluster.contents[0].log().matches("failed to send heartbeat").count();
    let already = failed();
    assert_eventually!(failed() > already);
    cluster.database.start_again().await;

    let back = Instant::now();
    let (client, last) = (http_client_without_pool(), fresh(999));
    let (manifest, blob) = (format!("/v2/{NAME}/manifests/cold-999"), &last.layers[0]);
    let path = format!("/v2/{NAME}/blobs/{}", blob.digest);
    for api in &cluster.apis {
        let url = api.url();
        assert_eventually!(within BACK_WITHIN, ask(&client, &url, &manifest, &last.manifest).await == End::Right);
        assert_eventually!(within BACK_WITHIN, ask(&client, &url, &path, &blob.bytes).await == End::Right);
    }
    let recovered = back.elapsed();
    assert!(recovered <= BACK_WITHIN, "{recovered:?}");
    let logged = |line: &str| cluster.contents[0].log().matches(line).count();
    assert_eventually!(logged("heartbeats recovered") == 1);
    assert_eq!(logged("heartbeats are failing"), 1, "a failure that lasts is told once");

    // Its lease ran out meanwhile, and is its node's again: nobody else begins to download the blob.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let leased = format!("fills WHERE digest = '{}' AND lease_until > {now}", beyond.digest);
    assert_eventually!(cluster.database.rows(&leased).await == 1, "the lease is lost");
    assert!(ends_beyond.await.unwrap() > AWAY, "it spans the whole time without a database");
    drop((stop, stopped));
    let mut ends = Ends::new();
    for load in loads {
        load.await.unwrap().into_iter().for_each(|(end, times)| *ends.entry(end).or_default() += times);
    }
    for kind in ["warm tag", "warm digest", "warm blob", "cold tag", "cold blob"] {
        assert!(ends.contains_key(&(kind, End::Right)), "{kind} is served before and after");
    }
    assert!(ends.contains_key(&("cold tag", End::Later)), "nothing was asked for while it was away");
    for kind in ["warm tag", "warm digest", "warm blob"] {
        assert!(!ends.contains_key(&(kind, End::Later)), "{kind} is served without a database: {ends:?}");
    }

    for (table, (before, after)) in KEPT.iter().zip(before.iter().zip(world.rows().await)) {
        assert!(after >= *before, "{table}: {before} rows before, {after} after");
    }
    for layer in [&within, &beyond, blob] {
        world.assert_stored(&layer.digest).await;
        assert_eq!(cluster.upstream.count("GET", &layer.digest), 1, "{}", layer.digest);
    }
    cluster.assert_no_leases().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_without_its_database_server_serves_all_that_is_warm() {
    let database = Database::start(Server::Own).await;
    let url = Url::parse(database.url()).unwrap();
    let network = TcpProxy::start(([127, 0, 0, 1], url.port().unwrap()).into()).await;
    let mut through = url;
    through.set_port(Some(network.address().port())).unwrap();
    let upstream = ChaosUpstream::start().await;
    let warm = Image::random(1, &[100_000]);
    upstream.put_image(UPSTREAM_NAME, "warm", &warm);
    for number in 0..1000 {
        upstream.put_image(UPSTREAM_NAME, &format!("cold-{number}"), &fresh(number));
    }
    let (url, prefix) = (upstream.url(), NAME.split_once('/').unwrap().0);
    let config = format!(
        "[database]\nurl = \"{through}\"\n[[upstream]]\nname = \"u\"\nurl = \"{url}\"\ntag_ttl = \"1s\"\n\
         [[namespace]]\nprefix = \"{prefix}\"\nupstream = \"u\"\nprefetch = \"none\"\n"
    );
    let process = TidegateProcess::builder().config(config).start().await;
    Puller::new(&process.url()).image(NAME, "warm", &warm).await.unwrap();
    let (stop, stopped) = watch::channel(());
    let loading = tokio::spawn(load(process.url(), warm, stopped.clone()));
    let client = http_client_without_pool();
    for (number, is_silent) in [(998, true), (999, false)] {
        if is_silent {
            network.fall_silent();
            tokio::time::sleep(AWAY / 4).await;
        } else {
            network.refuse();
            tokio::time::sleep(AWAY).await;
        }
        network.heal();
        let path = format!("/v2/{NAME}/manifests/cold-{number}");
        let cold = fresh(number);
        let url = process.url();
        assert_eventually!(within BACK_WITHIN, ask(&client, &url, &path, &cold.manifest).await == End::Right);
    }
    drop((stop, stopped));
    let ends = loading.await.unwrap();
    assert!(ends.contains_key(&("cold tag", End::Later)), "nothing was asked for while it was away");
    for kind in ["warm tag", "warm digest", "warm blob"] {
        assert!(!ends.contains_key(&(kind, End::Later)), "{kind} is served without a database: {ends:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_blobs_do_not_wait_for_a_database_that_is_silent() {
    let cluster = Cluster::builder().database_network().start().await;
    let image = Image::random(1, &[100_000]);
    cluster.upstream.put_image(UPSTREAM_NAME, "warm", &image);
    cluster.puller().image(NAME, "warm", &image).await.unwrap();
    let stored = "blobs WHERE state = 1";
    assert_eventually!(cluster.database.rows(stored).await == image.blobs().count());
    cluster.assert_no_leases().await;

    cluster.database_network.as_ref().unwrap().fall_silent();
    let processes = || cluster.apis.iter().chain(&cluster.contents);
    assert_eventually!(processes().all(|process| process.log().contains("database unavailable")));
    let pull = cluster.puller().image(NAME, "warm", &image).await.unwrap();
    assert_eq!(pull.retries(), 0, "{pull:?}");
    assert!(pull.longest_wait < DATABASE_WAIT, "{pull:?}");
}
