//! A clock that was ahead for a while: what was recorded then.

use reqwest::Method;
use tidegate_tests::{assert_eventually, world::TestWorld};

use crate::support::*;

/// An hour, in milliseconds.
const HOUR: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_was_checked_in_the_future_is_checked_again_and_moves() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, "tag_ttl = \"1m\"").start().await;
    world.get(&manifest("1")).await;
    world.execute(&format!("UPDATE tags SET checked_at = checked_at + {HOUR}, moved_at = moved_at + {HOUR}"));
    let dir = world.stop().await;
    let moved = tidegate_tests::image::Image::random(77, &[10]);
    upstream.put_image(UPSTREAM_NAME, "1", &moved);
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "tag_ttl = \"1m\"").start().await;
    let answer = world.get(&manifest("1")).await;
    assert_image(&Method::GET, &answer, &moved);
    // From then on it is fresh again.
    upstream.clear_requests();
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &moved);
    assert!(upstream.requests().is_empty());
    assert_ne!(image.digest, moved.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_queued_in_the_future_runs() {
    assert_runs_after(&format!("run_at = run_at + {HOUR}, created_at = created_at + {HOUR}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_retry_was_put_off_to_the_future_runs() {
    assert_runs_after(&format!("attempts = 1, run_at = run_at + 25 * {HOUR}")).await;
}

/// A job runs although its row was changed in this way.
async fn assert_runs_after(change: &str) {
    let (upstream, image) = with_image().await;
    let world = |workers: &str| {
        let builder = TestWorld::builder().sections(&format!("[jobs]\nworkers = {workers}"));
        builder.bare_upstream("up", &upstream.url(), "").namespace("up", "up", "")
    };
    let idle = world("0").start().await;
    idle.get(&manifest("1")).await;
    assert_eventually!(idle.live_jobs() == 1);
    idle.execute(&format!("UPDATE jobs SET {change}"));
    let world = world("1").in_dir(idle.stop().await).start().await;
    for (digest, bytes) in image.blobs() {
        world.assert_stored(digest, bytes).await;
    }
}
