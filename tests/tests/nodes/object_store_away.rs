//! S3 is slow, fails, or is away: clients still get what upstream has, and it is stored once S3 is back.

use std::time::Duration;

use tidegate_tests::{
    assert_eventually,
    cluster::{Cluster, NAME, Storage},
    puller::Pull,
};
use tokio::task::JoinHandle;

use crate::support::{Cold, MIB, image};

const CLIENTS: usize = 6;

async fn cold(pace: Duration) -> Cold {
    let keys = "redirect = false\npart_size = \"5MiB\"";
    Cold::of(Cluster::builder().balanced().s3(keys).start().await, 24 * MIB, pace).await
}

fn storage(cold: &Cold) -> &Storage {
    cold.cluster.storage.as_ref().unwrap()
}

fn pulling(cold: &Cold) -> JoinHandle<Vec<Pull>> {
    let (puller, digest, bytes) = (cold.cluster.puller(), cold.digest.clone(), cold.bytes.clone());
    tokio::spawn(async move {
        let pulls = futures::future::join_all((0..CLIENTS).map(|_| puller.blob(NAME, &digest, &bytes))).await;
        pulls.into_iter().map(|pull| pull.unwrap_or_else(|error| panic!("{error}"))).collect()
    })
}

fn assert_no_retries(pulls: &[Pull]) {
    let all = Pull::sum(pulls);
    assert_eq!(all.retries(), 0, "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_object_store_slows_no_client() {
    let cold = cold(Duration::from_secs(2)).await;
    storage(&cold).network.delay(Duration::from_millis(100));
    let pulls = pulling(&cold).await.unwrap();
    assert_no_retries(&pulls);
    assert!(Pull::sum(&pulls).took < Duration::from_secs(8), "as upstream sends it");
    storage(&cold).network.heal();
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_fail_are_sent_again() {
    let cold = cold(Duration::from_secs(2)).await;
    storage(&cold).server.fail("PUT", "partNumber=", 4);
    let pulls = pulling(&cold).await.unwrap();
    assert_no_retries(&pulls);
    cold.assert_stored().await;
    assert_eq!(storage(&cold).server.failed(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_lost_amid_an_upload_gets_the_blob_when_it_is_back() {
    let cold = cold(Duration::from_secs(4)).await;
    let pulls = pulling(&cold);
    assert_eventually!(storage(&cold).server.parts() > 0, "a part is uploaded while bytes come");
    storage(&cold).network.refuse();
    storage(&cold).network.cut();
    let pulls = pulls.await.unwrap();
    assert_no_retries(&pulls);
    storage(&cold).network.heal();
    cold.assert_stored().await;
    let sent = cold.cluster.upstream.blob_bytes(&cold.digest);
    cold.pulls(2).await;
    assert_eq!(cold.cluster.upstream.blob_bytes(&cold.digest), sent, "both nodes serve it from S3");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_a_lost_object_store_comes_from_upstream() {
    let cold = cold(Duration::from_secs(1)).await;
    cold.pulls(1).await;
    cold.assert_stored().await;
    storage(&cold).network.refuse();
    storage(&cold).network.cut();
    let pulls = pulling(&cold).await.unwrap();
    assert_no_retries(&pulls);
    // So does a blob that is not stored yet.
    let other = image(8 * MIB);
    cold.cluster.announce(&other).await;
    let layer = &other.layers[0];
    cold.cluster.puller().blob(NAME, &layer.digest, &layer.bytes).await.unwrap();
    storage(&cold).network.heal();
    cold.cluster.puller().blob(NAME, &layer.digest, &layer.bytes).await.unwrap();
    cold.pulls(2).await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_that_falls_silent_costs_a_bounded_wait() {
    let cold = cold(Duration::from_secs(4)).await;
    let pulls = pulling(&cold);
    assert_eventually!(storage(&cold).server.parts() > 0, "a part is uploaded while bytes come");
    storage(&cold).network.fall_silent();
    assert_no_retries(&pulls.await.unwrap());
    // A blob that nobody has asked for, first on one node and then on the other, and again.
    let other = image(8 * MIB);
    cold.cluster.announce(&other).await;
    let layer = &other.layers[0];
    let mut waits = Vec::new();
    for _ in 0..4 {
        let pull = cold.cluster.puller().blob(NAME, &layer.digest, &layer.bytes).await.unwrap();
        waits.push(pull.longest_wait);
    }
    // One question of `answer_timeout`, not one more for the fill.
    assert!(waits.iter().all(|wait| *wait < Duration::from_secs(7)), "{waits:?}");
    assert!(waits[3] < Duration::from_secs(1), "by then the nodes know: {waits:?}");
    storage(&cold).network.heal();
    cold.assert_stored().await;
}
