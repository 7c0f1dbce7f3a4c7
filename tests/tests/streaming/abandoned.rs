//! What becomes of a download when everybody has left.

use std::time::Duration;

use tidegate_tests::chaos::Fault;

use crate::cold::{Cold, MIB, within};

/// Socket buffers between upstream and us, when a download is given up.
const IN_FLIGHT: usize = 3 * MIB / 2;

/// How far upstream is ahead of clients that leave, before it stands still, in percent.
const AHEAD: usize = 5;

/// Three clients that read so much, and leave. Upstream then stands still, unless the download is to go on.
async fn leave_at(policy: &str, percent: usize, upstream: fn(&Cold, usize) -> Fault) -> Cold {
    let cold = Cold::with(10 * MIB, &format!("finish_abandoned = \"{policy}\"")).await;
    cold.on_blob(1, [upstream(&cold, percent)]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(cold.raw(&[]).await);
    }
    for client in &mut clients {
        client.read(cold.percent(percent)).await;
    }
    drop(clients);
    cold
}

fn stands_still(cold: &Cold, percent: usize) -> Fault {
    Fault::StallForever(u64::try_from(cold.percent(percent + AHEAD)).unwrap())
}

fn goes_on(_: &Cold, _: usize) -> Fault {
    within(10 * MIB, Duration::from_secs(1))
}

/// It stopped, and the next ask goes on where it stopped.
async fn assert_stops_and_resumes(policy: &str, percent: usize) {
    let cold = leave_at(policy, percent, stands_still).await;
    cold.idle().await;
    assert!(!cold.world.blob_path(&cold.digest).exists());
    let sent = cold.upstream_bytes();
    assert!(sent < cold.size(), "{policy} at {percent} %: all {sent} bytes were fetched");
    cold.assert_served().await;
    cold.assert_stored().await;
    let ranges = cold.asked_ranges();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let from: usize = ranges[1].strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!(from >= cold.percent(percent), "{policy} at {percent} %: resumed from {from}");
    cold.assert_upstream_bytes(IN_FLIGHT);
}

async fn assert_goes_on(policy: &str, percent: usize) {
    let cold = leave_at(policy, percent, goes_on).await;
    cold.assert_stored().await;
    assert_eq!(cold.asked().len(), 1);
    cold.assert_upstream_bytes(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_quarter_stops_when_all_leave_at_ten_percent_and_is_resumed() {
    assert_stops_and_resumes("25%", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_quarter_goes_on_when_all_leave_at_forty_percent() {
    assert_goes_on("25%", 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn always_goes_on_when_all_leave_at_ten_percent() {
    assert_goes_on("always", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_stops_when_all_leave_at_forty_percent_and_is_resumed() {
    assert_stops_and_resumes("never", 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_stays_keeps_the_download_going() {
    let cold = Cold::with(10 * MIB, "finish_abandoned = \"never\"").await;
    cold.on_blob(1, [within(10 * MIB, Duration::from_secs(1))]);
    let stays = cold.raw(&[]).await;
    let leaves = cold.raw(&[]).await;
    cold.until_sent(cold.percent(10)).await;
    drop(leaves);
    let rest = stays.rest().await;
    assert!(rest.complete && rest.bytes == cold.bytes);
    assert_eq!(cold.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_come_and_go_pass_one_download_on() {
    let cold = Cold::with(10 * MIB, "finish_abandoned = \"never\"").await;
    cold.on_blob(usize::MAX, [within(10 * MIB, Duration::from_secs(1))]);
    for percent in [5, 10, 15, 20, 40, 60] {
        let mut client = cold.raw(&[]).await;
        assert!(client.read(cold.percent(percent)).await == cold.bytes[..cold.percent(percent)]);
        drop(client);
        if percent % 20 == 0 {
            cold.idle().await;
        }
    }
    cold.assert_served().await;
    cold.assert_stored().await;
    cold.assert_upstream_bytes(8 * IN_FLIGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_is_resumed_after_a_restart_without_the_bytes_that_are_there() {
    let cold = leave_at("never", 40, stands_still).await;
    cold.idle().await;
    let before = cold.asked().len();
    let cold = cold.restart("").await;
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.asked().len(), before + 1);
    assert!(cold.asked_ranges()[before].starts_with("bytes="), "{:?}", cold.asked_ranges());
    cold.assert_upstream_bytes(IN_FLIGHT);
}
