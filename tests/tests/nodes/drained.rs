//! A node that is told to end finishes what it has begun and takes nothing new.

use std::time::{Duration, Instant};

use tidegate_tests::{
    assert_eventually,
    cluster::{Cluster, NAME},
};

use crate::support::{Cold, MIB};

const CLIENTS: usize = 6;
/// How long registry-api goes by its list of nodes.
const NODES_REFRESH: Duration = Duration::from_secs(2);
/// What a busy machine may take longer.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_finishes_its_streams_and_gets_no_more() {
    let cluster = Cluster::builder().contents(3).content("drain_grace = \"3s\"").start().await;
    let mut cold = Cold::of(cluster, 24 * MIB, Duration::from_secs(8)).await;
    let owner = cold.cluster.owner(&cold.digest).await;
    let pulling = {
        let (puller, digest, bytes) = (cold.cluster.puller(), cold.digest.clone(), cold.bytes.clone());
        tokio::spawn(async move {
            futures::future::join_all((0..CLIENTS).map(|_| puller.blob(NAME, &digest, &bytes))).await
        })
    };
    assert_eventually!(cold.has_come(20));
    cold.cluster.contents[owner].terminate();
    let told = Instant::now();

    assert_eventually!(within NODES_REFRESH + SLACK, cold.cluster.owner(&cold.digest).await != owner);
    let heir = cold.cluster.owner(&cold.digest).await;
    let late = cold.pulls(2).await;
    for url in late.iter().flat_map(|pull| &pull.sent_by) {
        assert!(url.as_str().starts_with(&cold.cluster.contents[heir].url()), "{url} is not content-{heir}");
    }
    let pulls: Vec<_> = pulling.await.unwrap().into_iter().map(Result::unwrap).collect();
    let finished = told.elapsed();
    assert!(finished > Duration::from_secs(3), "the streams were over before the node was told to end");
    for pull in &pulls {
        assert_eq!(pull.retries(), 0, "{pull:?}");
        assert_eq!(pull.sent_by.len(), 1);
        assert!(pull.sent_by[0].as_str().starts_with(&cold.cluster.contents[owner].url()));
    }
    assert!(cold.cluster.contents[owner].wait().await.success());
    assert!(told.elapsed() < finished + Duration::from_secs(15), "it ends with its last stream");
    assert!((cold.ratio() - 1.0).abs() < 0.001, "the next node gets the bytes from the one that drains");
    cold.cluster.assert_no_leases().await;

    cold.cluster.contents[owner].restart().await;
    assert_eventually!(cold.cluster.owner(&cold.digest).await == owner, "the node is back");
    assert_eq!(cold.pulls(1).await[0].sent_by.len(), 1);
    assert!((cold.ratio() - 1.0).abs() < 0.001, "it kept what it had");
}
