//! Processes whose clocks are wrong.

use std::time::{Duration, Instant};

use tidegate_tests::{
    assert_eventually,
    cluster::{Cluster, ClusterBuilder, NAME, UPSTREAM_NAME},
    image::Image,
};

use crate::support::MIB;

/// Pulls new images through every process of a cluster. No pull fails or is retried.
async fn assert_pulls(builder: ClusterBuilder) -> Cluster {
    let cluster = builder.start().await;
    for number in 0..6 {
        let (tag, image) = (format!("t{number}"), Image::random(100 + number, &[MIB / 4]));
        cluster.upstream.put_image(UPSTREAM_NAME, &tag, &image);
        for _ in 0..2 {
            let pull = cluster.puller().image(NAME, &tag, &image).await.unwrap();
            assert_eq!(pull.retries(), 0, "{pull:?}");
        }
        for layer in &image.layers {
            assert_eq!(cluster.upstream.count("GET", &layer.digest), 1, "{}", layer.digest);
        }
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_node_whose_clock_is_wrong_serves_as_the_others_do() {
    for ahead in [300, -300] {
        let cluster = assert_pulls(Cluster::builder().content_clocks(&[ahead])).await;
        let log = cluster.contents[0].log();
        assert!(log.contains("the clock of this process differs from that of the database"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_api_whose_clock_is_wrong_issues_links_that_are_accepted() {
    for ahead in [300, -1500] {
        assert_pulls(Cluster::builder().apis(2).api_clocks(&[ahead])).await;
    }
}

/// Longer than registry-api caches the list of nodes, and shorter than the interval at which processes read the clock
/// of the database.
const AFTER_A_STEP: Duration = Duration::from_secs(4);

/// Longer than all processes take to read the clock of the database, and to send heartbeats then.
const FOLLOWED: Duration = Duration::from_secs(18);

/// Pulls an image again and again. No pull fails or is retried.
async fn assert_pulls_for(time: Duration, cluster: &Cluster, image: &Image) {
    let began = Instant::now();
    while began.elapsed() < time {
        let pull = cluster.puller().image(NAME, "step", image).await.unwrap();
        assert_eq!(pull.retries(), 0, "after {:?}: {pull:?}", began.elapsed());
    }
}

/// An image that has been pulled.
async fn pulled(cluster: &Cluster) -> Image {
    let image = Image::random(8, &[MIB / 4]);
    cluster.upstream.put_image(UPSTREAM_NAME, "step", &image);
    cluster.puller().image(NAME, "step", &image).await.unwrap();
    image
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_clock_of_one_machine_fails_no_request() {
    let cluster = Cluster::builder().content_clocks(&[0, 0]).api_clocks(&[0]).start().await;
    let image = pulled(&cluster).await;
    for (process, seconds) in
        [(&cluster.apis[0], 600), (&cluster.contents[0], 1800), (&cluster.contents[1], -1800)]
    {
        process.step_clock(seconds);
        assert_pulls_for(AFTER_A_STEP, &cluster, &image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_clock_of_the_database_fails_no_request() {
    let cluster = Cluster::builder().database_clock().start().await;
    let image = pulled(&cluster).await;
    for seconds in [600, 0] {
        cluster.database.step_clock(seconds).await;
        assert_pulls_for(FOLLOWED, &cluster, &image).await;
    }
    let followed = cluster.contents[0].log();
    assert!(followed.contains("the clock of this process differs from that of the database"), "{followed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_died_with_a_clock_that_was_ahead_counts_as_dead() {
    let mut cluster = Cluster::builder().content_clocks(&[300]).start().await;
    cluster.contents[0].kill9();
    cluster.contents[0].wait().await;
    let image = Image::random(9, &[MIB / 4]);
    cluster.upstream.put_image(UPSTREAM_NAME, "dead", &image);
    assert_eventually!(cluster.puller().image(NAME, "dead", &image).await.is_ok());
}
