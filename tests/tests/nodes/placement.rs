//! Which node registry-api sends clients to, as nodes die and come back.

use std::time::Duration;

use tidegate_tests::{assert_eventually, cluster::Cluster, image::Image};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long registry-api goes by its list of nodes.
const NODES_REFRESH: Duration = Duration::from_secs(2);
/// What a busy machine may take longer.
const SLACK: Duration = Duration::from_secs(10);

/// The node of each layer.
async fn owners(cluster: &Cluster, image: &Image) -> Vec<usize> {
    let mut owners = Vec::new();
    for layer in &image.layers {
        owners.push(cluster.owner(&layer.digest).await);
    }
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_loses_its_digests_and_gets_them_back_and_the_others_keep_theirs() {
    let mut cluster = Cluster::builder().contents(3).content("heartbeat = \"1s\"").start().await;
    let image = Image::random(1, &(1000..1024).collect::<Vec<_>>());
    cluster.announce(&image).await;
    let before = owners(&cluster, &image).await;
    for node in 0..3 {
        assert!(before.contains(&node), "24 digests are spread over 3 nodes: {before:?}");
    }

    cluster.contents[1].kill9();
    // It counts as dead after three heartbeats, and what registry-api knows of nodes may lag behind.
    let within = 3 * HEARTBEAT + NODES_REFRESH + SLACK;
    assert_eventually!(within within, !owners(&cluster, &image).await.contains(&1), "content-1 gets clients");
    let without = owners(&cluster, &image).await;
    for (before, without) in before.iter().zip(&without) {
        assert!(before == without || *before == 1, "a digest moved from a living node");
    }

    cluster.contents[1].restart().await;
    assert_eventually!(within NODES_REFRESH + SLACK, owners(&cluster, &image).await == before);
}
