//! One cold blob, three content nodes, sixty clients: upstream sends it once.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use tidegate_tests::{
    cluster::{Cluster, ClusterBuilder, NAME},
    http_client::http_client_without_pool,
    puller::Pull,
};

use crate::support::{Cold, MIB, by_node};

const CLIENTS: usize = 60;

async fn sixty_clients(builder: ClusterBuilder) -> (Cold, Vec<usize>) {
    let cluster = builder.contents(3).start().await;
    let cold = Cold::of(cluster, 16 * MIB, Duration::from_secs(4)).await;
    let pulls = cold.pulls(CLIENTS).await;
    let all = Pull::sum(&pulls);
    let nodes = match &cold.cluster.content_balancer {
        Some(balancer) => balancer.connections(),
        None => by_node(&cold.cluster, &pulls),
    };
    assert_eq!(cold.cluster.upstream.blob_bytes(&cold.digest), u64::try_from(cold.bytes.len()).unwrap());
    assert_eq!(all.retries(), 0, "{all:?}");
    cold.cluster.assert_no_leases().await;
    (cold, nodes)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_clients_of_one_blob_behind_hashing_cost_upstream_one_download() {
    let (_, nodes) = sixty_clients(Cluster::builder()).await;
    let mut sorted = nodes.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 0, CLIENTS], "the digest's node has all of them: {nodes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_clients_of_one_blob_behind_a_balancer_cost_upstream_one_download() {
    let (_, nodes) = sixty_clients(Cluster::builder().balanced()).await;
    assert!(nodes.iter().all(|clients| *clients >= CLIENTS / 3), "{nodes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_at_the_end_comes_through_another_node_long_before_the_whole() {
    let cluster = Cluster::builder().contents(2).start().await;
    let cold = Cold::of(cluster, 32 * MIB, Duration::from_secs(12)).await;
    let client = http_client_without_pool();
    let asked = format!("{}/v2/{NAME}/blobs/{}", cold.cluster.apis[0].url(), cold.digest);
    let answer = client.get(asked).send().await.unwrap();
    let link = Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    // A link is not for one node alone.
    let at = |node: usize| {
        let path = &link[url::Position::BeforePath..];
        client.get(format!("{}{path}", cold.cluster.contents[node].url()))
    };
    let whole = at(0).send().await.unwrap();
    let holder = cold.cluster.holder(&cold.digest).await;
    assert_eq!(holder, 0);
    let tail = at(1).header("range", "bytes=-1000").send().await.unwrap();
    assert_eq!(tail.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(tail.bytes().await.unwrap(), cold.bytes.slice(cold.bytes.len() - 1000..));
    assert!(!cold.has_come(90), "it came with the whole: {}", cold.ratio());
    assert_eq!(whole.bytes().await.unwrap(), cold.bytes);
    assert!(cold.ratio() <= 1.01, "{}", cold.ratio());
    cold.cluster.assert_no_leases().await;
}
