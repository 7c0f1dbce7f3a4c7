//! The database behind a network that fails: a real PostgreSQL behind a proxy.
#![expect(clippy::unwrap_used, reason = "a surprise ends the test at the line where it shows")]

use std::time::{Duration, Instant};

use oci_types::{Digest, Manifest, Millis, RepositoryName, Tag};
use shared_models::{
    db::{
        Db, DbConfig, DbError, links,
        record::{self, NewManifest, TagCheck},
        repositories::{NewRepository, Repository},
        tags,
    },
    migrate::migrate,
    test_postgres::TestPostgres,
};
use tidegate_tests::tcp_proxy::TcpProxy;

/// How long a caller may wait when the network is silent: for a connection, and for the longest of transactions.
const WAIT: Duration = Duration::from_secs(4);
const SILENCE: Duration = Duration::from_secs(20);
/// For a machine that does other things, too.
const SLACK: Duration = Duration::from_secs(8);

struct Remote {
    db: Db,
    proxy: TcpProxy,
    _server: TestPostgres,
}

async fn remote() -> Remote {
    let (server, url) = tokio::task::spawn_blocking(|| {
        let server = TestPostgres::start().unwrap();
        let url = server.create_database("x").unwrap();
        (server, url)
    })
    .await
    .unwrap();
    let proxy = TcpProxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let url = url.replace(&server.port().to_string(), &proxy.address().port().to_string());
    let config = DbConfig { url, max_connections: 4, wait: WAIT, prepared_statements: true };
    migrate(&config).await.unwrap();
    Remote { db: Db::connect(&config).await.unwrap(), proxy, _server: server }
}

fn repository(text: &str) -> NewRepository {
    let name = RepositoryName::parse(text).unwrap();
    let repository = Repository::Proxy { upstream: "hub".to_owned(), upstream_name: name.clone() };
    NewRepository { name, repository }
}

fn image() -> NewManifest {
    let blob = |text: &str| {
        format!(r#"{{"mediaType":"x","digest":"{}","size":3}}"#, Digest::sha256(text.as_bytes()))
    };
    let body = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, blob("config"), blob("layer"));
    NewManifest {
        digest: Digest::sha256(body.as_bytes()),
        parsed: Manifest::parse(body.as_bytes(), None).unwrap(),
        body: body.into(),
    }
}

async fn record(db: &Db, name: &str) -> Result<(), DbError> {
    let check = TagCheck { tag: Tag::parse("t").unwrap(), began: Millis(1) };
    record::manifest(db, &repository(name), &image(), Some(&check), Millis(1)).await.map(drop)
}

/// Whether a repository has what `record` writes; all of it or nothing.
async fn recorded(db: &Db, name: &str) -> bool {
    let key = repository(name).repository.key();
    let linked = links::manifest(db, &key, &image().digest, false).await.unwrap().proof.is_some();
    let blob = links::blob(db, &key, &Digest::sha256(b"layer")).await.unwrap();
    let tag = tags::find(db, &key, &Tag::parse("t").unwrap()).await.unwrap();
    assert_eq!((linked, linked), (blob.is_some(), tag.is_some()), "{name} is half recorded");
    linked
}

/// Keeps several connections busy, so that there are several in the pool.
async fn warm_up(db: &Db) {
    futures::future::try_join_all((0..8).map(|_| db.ping())).await.unwrap();
}

async fn back_within(db: &Db, bound: Duration) {
    let healed = Instant::now();
    while let Err(error) = db.ping().await {
        assert!(matches!(error, DbError::Unavailable(_)), "{error}");
        assert!(healed.elapsed() < bound, "still {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_falls_silent_costs_a_bounded_wait_and_half_records_nothing() {
    let Remote { db, proxy, _server } = remote().await;
    warm_up(&db).await;
    record(&db, "before").await.unwrap();
    proxy.fall_silent();
    let asked = Instant::now();
    let (read, write) = tokio::join!(db.ping(), record(&db, "during"));
    assert!(matches!(read, Err(DbError::Unavailable(_))), "{read:?}");
    assert!(matches!(write, Err(DbError::Unavailable(_))), "{write:?}");
    assert!(asked.elapsed() < SILENCE + WAIT, "{:?}", asked.elapsed());
    // From then on nobody waits for the other connections of that time to be silent, too.
    for _ in 0..4 {
        let asked = Instant::now();
        assert!(matches!(db.ping().await, Err(DbError::Unavailable(_))));
        assert!(asked.elapsed() < WAIT + SLACK, "{:?}", asked.elapsed());
    }
    proxy.heal();
    back_within(&db, Duration::from_secs(5)).await;
    assert!(recorded(&db, "before").await);
    recorded(&db, "during").await;
    record(&db, "during").await.unwrap();
    assert!(recorded(&db, "during").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_were_lost_without_a_word_are_replaced_before_they_are_used() {
    let Remote { db, proxy, _server } = remote().await;
    warm_up(&db).await;
    let before = proxy.accepted();
    proxy.fall_silent();
    // Longer than a connection may be idle without being asked.
    tokio::time::sleep(Duration::from_millis(5_200)).await;
    let asked = Instant::now();
    assert!(matches!(db.ping().await, Err(DbError::Unavailable(_))));
    assert!(asked.elapsed() < WAIT + SLACK, "{:?}", asked.elapsed());
    let tried = proxy.accepted();
    assert!(tried > before, "a new connection was tried while there was time");
    proxy.heal();
    back_within(&db, Duration::from_secs(5)).await;
    assert!(proxy.accepted() > tried, "the other old ones were not trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_cut_are_replaced_at_once() {
    let Remote { db, proxy, _server } = remote().await;
    for _ in 0..5 {
        warm_up(&db).await;
        proxy.cut();
        back_within(&db, Duration::from_secs(10)).await;
    }
    proxy.cut();
    proxy.refuse();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = Instant::now();
    let refused = record(&db, "x").await;
    assert!(matches!(refused, Err(DbError::Unavailable(_))), "{refused:?}");
    assert!(asked.elapsed() < WAIT, "{:?}", asked.elapsed());
    proxy.heal();
    back_within(&db, Duration::from_secs(10)).await;
    assert!(!recorded(&db, "x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_is_slow_and_nothing_worse() {
    let Remote { db, proxy, _server } = remote().await;
    proxy.delay(Duration::from_millis(15));
    futures::future::try_join_all((0..6).map(|number| {
        let db = db.clone();
        async move { record(&db, &format!("slow/{number}")).await }
    }))
    .await
    .unwrap();
    assert!(recorded(&db, "slow/5").await);
}
