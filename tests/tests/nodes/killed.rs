//! The node that downloads a blob is killed when it has half of it.

use std::time::Duration;

use tidegate_tests::{
    assert_eventually,
    cluster::{Cluster, ClusterBuilder},
    puller::Pull,
};

use crate::support::{Cold, MIB};

const CLIENTS: usize = 24;

struct Killed {
    pulls: Vec<Pull>,
    ratio: f64,
}

/// Lets clients pull one blob, and kills its lease's holder at half.
async fn kill_at_half(builder: ClusterBuilder) -> Killed {
    // As long as a killed one counts as alive clients are sent to it.
    let cluster = builder.contents(3).content("heartbeat = \"1s\"").start().await;
    let mut cold = Cold::of(cluster, 24 * MIB, Duration::from_secs(4)).await;
    let pulling = {
        let (puller, digest, bytes) = (cold.cluster.puller(), cold.digest.clone(), cold.bytes.clone());
        let puller = puller.gives_up_after(Duration::from_secs(40));
        tokio::spawn(async move {
            let name = tidegate_tests::cluster::NAME;
            futures::future::join_all((0..CLIENTS).map(|_| puller.blob(name, &digest, &bytes))).await
        })
    };
    let holder = cold.cluster.holder(&cold.digest).await;
    assert_eventually!(cold.has_come(50));
    cold.cluster.contents[holder].kill9();
    let pulls = pulling.await.unwrap();
    let pulls: Vec<_> =
        pulls.into_iter().map(|pull| pull.unwrap_or_else(|error| panic!("{error}"))).collect();
    let ratio = cold.ratio();
    cold.cluster.assert_no_leases().await;
    // The dead one comes back, with half of the blob on its disk, and serves it right.
    cold.cluster.contents[holder].restart().await;
    cold.cluster.all_nodes_live().await;
    let before = cold.ratio();
    cold.pulls(3).await;
    assert_eq!(cold.ratio(), before, "the node that is back gets the blob from its peers");
    Killed { pulls, ratio }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_killed_at_half_is_followed_by_another_node_and_its_own_clients_ask_again() {
    let killed = kill_at_half(Cluster::builder().balanced()).await;
    let noticed = killed.pulls.iter().filter(|pull| pull.retries() > 0).count();
    // The balancer goes round, so that each node has a third of the clients.
    assert!((1..=CLIENTS / 3).contains(&noticed), "{noticed} clients noticed");
    assert!(killed.ratio <= 1.6, "{}", killed.ratio);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_digest_killed_at_half_is_followed_by_the_next_one() {
    let killed = kill_at_half(Cluster::builder()).await;
    assert!(killed.ratio <= 1.6, "{}", killed.ratio);
}
