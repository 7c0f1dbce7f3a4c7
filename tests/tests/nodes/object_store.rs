//! What one node has put into S3 all nodes serve.

use std::time::Duration;

use tidegate_tests::{
    assert_eventually,
    cluster::{Cluster, ClusterBuilder, NAME},
    http_client::http_client,
};

use crate::support::{Cold, MIB, by_node};

async fn filled_through_one_node(builder: ClusterBuilder) -> Cold {
    let cluster = builder.start().await;
    let cold = Cold::of(cluster, 12 * MIB, Duration::from_secs(1)).await;
    let first = cold.pulls(1).await;
    assert_eq!(
        by_node(&cold.cluster, &first).iter().sum::<usize>(),
        usize::from(cold.cluster.content_balancer.is_none())
    );
    cold.assert_stored().await;
    cold
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_filled_through_one_node_is_served_by_the_other_without_upstream() {
    let builder =
        Cluster::builder().balanced().s3("redirect = false\nprefix = \"a/b\"\npart_size = \"5MiB\"");
    let cold = filled_through_one_node(builder).await;
    cold.cluster.upstream.stop();
    cold.pulls(3).await;
    let balancer = cold.cluster.content_balancer.as_ref().unwrap();
    assert_eq!(balancer.connections(), [2, 2]);
    assert_eq!(cold.cluster.upstream.count("GET", &cold.digest), 1);
    let storage = cold.cluster.storage.as_ref().unwrap();
    let keys = storage.server.keys();
    assert!(keys.iter().all(|key| key.starts_with("a/b/")), "{keys:?}");
}

/// Where registry-api sends a client for the blob.
async fn redirected(cold: &Cold) -> String {
    let url = format!("{}/v2/{NAME}/blobs/{}", cold.cluster.api_balancer.url(), cold.digest);
    let answer = http_client().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 307);
    answer.headers()["location"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redirect_a_client_gets_a_stored_blob_from_s3_itself() {
    let keys = "redirect = true\npart_size = \"5MiB\"";
    let cold = filled_through_one_node(Cluster::builder().api("cache_max_age = \"2s\"").s3(keys)).await;
    cold.cluster.upstream.stop();
    let s3 = format!("http://{}/", cold.cluster.storage.as_ref().unwrap().network.address());
    // Until then it may know the blob as one that is not here.
    assert_eventually!(redirected(&cold).await.starts_with(&s3));
    let pull = &cold.pulls(1).await[0];
    let presigned = pull.sent_by[0].as_str();
    assert!(presigned.starts_with(&s3) && presigned.contains("X-Amz-Signature="), "{presigned}");

    let url = redirected(&cold).await;
    let (first, last) = (5 * MIB - 100, 5 * MIB + 99);
    let asked = http_client().get(&url).header("range", format!("bytes={first}-{last}"));
    let part = asked.send().await.unwrap();
    assert_eq!(part.status(), 206);
    let range = format!("bytes {first}-{last}/{}", cold.bytes.len());
    assert_eq!(part.headers()["content-range"].to_str().unwrap(), range);
    assert_eq!(part.bytes().await.unwrap(), cold.bytes[first..=last]);
    // The signature is for this blob alone.
    let other = url.replace(&cold.digest[7..], &"0".repeat(64));
    assert_ne!(other, url, "the key names the digest");
    assert_eq!(http_client().get(&other).send().await.unwrap().status(), 403);
}
