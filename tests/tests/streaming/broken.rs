//! Sources that break, ignore ranges, change what they have, or have another size.

use std::time::Duration;

use reqwest::StatusCode;
use tidegate_tests::{
    chaos::{ChaosUpstream, Fault, Rule},
    image::random_bytes,
    world::TestWorld,
};

use crate::cold::{Cold, MIB, NAME, REPOSITORY, count, image, know, sections};

const SIZE: usize = 8 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_is_taken_up_by_range_and_no_byte_comes_twice() {
    for percent in [1, 50, 99] {
        let cold = Cold::start(SIZE).await;
        let at = cold.percent(percent);
        cold.on_blob(1, [Fault::CutAfter(count(at))]);
        cold.assert_served().await;
        cold.assert_stored().await;
        assert_eq!(cold.asked_ranges(), [String::new(), format!("bytes={at}-")]);
        cold.assert_upstream_bytes(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_reset_again_and_again_gets_to_its_end() {
    let cold = Cold::start(SIZE).await;
    cold.on_blob(20, [Fault::ResetAfter(300_000)]);
    cold.assert_served().await;
    cold.assert_stored().await;
    assert!(cold.asked().len() > 10);
    cold.assert_upstream_bytes(MIB);
    assert!(cold.world.metric("tidegate_fill_resumes_total{upstream=\"up\"}").await >= 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_without_ranges_sends_again_is_skipped() {
    let cold = Cold::start(SIZE).await;
    cold.on_blob(1, [Fault::CutAfter(count(SIZE / 2))]);
    cold.on_blob(1, [Fault::IgnoreRange]);
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.upstream_bytes(), cold.size() + cold.size() / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_continued_however_it_is_framed() {
    for framing in
        [Fault::NoContentLength, Fault::WrongLength(count(SIZE / 2)), Fault::ExtraHeaders(Vec::new())]
    {
        let cold = Cold::start(SIZE).await;
        cold.on_blob(1, [Fault::ShorterBy(count(SIZE / 2)), framing.clone()]);
        cold.assert_served().await;
        cold.assert_stored().await;
        cold.assert_upstream_bytes(0);
        assert_eq!(cold.asked_ranges().len(), 2, "{framing:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_tag_that_differs_between_servers_discards_no_byte() {
    let cold = Cold::start(SIZE).await;
    cold.on_blob(1, [Fault::CutAfter(count(SIZE / 2)), Fault::ChangeEtag]);
    cold.on_blob(1, [Fault::CutAfter(count(SIZE / 4)), Fault::ChangeEtag]);
    cold.on_blob(1, [Fault::ChangeEtag]);
    cold.assert_served().await;
    cold.assert_stored().await;
    cold.assert_upstream_bytes(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_is_refused_falls_back_to_the_whole_blob() {
    let wrong_range = || {
        let header = ("Content-Range".to_owned(), format!("bytes 0-9/{SIZE}"));
        Fault::Status(206, vec![header], "0123456789".into())
    };
    for refusal in [Fault::Empty(416), Fault::Empty(403), Fault::Empty(404), Fault::Empty(500), wrong_range()]
    {
        let cold = Cold::start(SIZE).await;
        cold.on_blob(1, [Fault::CutAfter(count(SIZE / 2))]);
        cold.on_blob(1, [refusal.clone()]);
        cold.assert_served().await;
        cold.assert_stored().await;
        let half = format!("bytes={}-", SIZE / 2);
        assert_eq!(cold.asked_ranges(), ["", &half, ""], "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_closes_after_every_byte_gets_few_requests() {
    let cold = Cold::start(SIZE).await;
    cold.on_blob(usize::MAX, [Fault::CutAfter(1)]);
    let client = cold.raw(&[]).await;
    assert!(client.status != 200 || !client.rest().await.complete);
    cold.idle().await;
    assert!(cold.asked().len() <= 6, "{} requests", cold.asked().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_changes_in_between_is_downloaded_again() {
    let cold = Cold::start(SIZE).await;
    let other = random_bytes(99, SIZE);
    cold.upstream.put_lying_blob(REPOSITORY, &cold.digest, other);
    cold.on_blob(1, [Fault::CutAfter(count(SIZE / 2))]);
    cold.on_blob(1, [Fault::Delay(Duration::from_millis(300))]);
    let client = cold.raw(&[]).await;
    assert_eq!(client.status, 200);
    cold.until_sent(SIZE / 2).await;
    cold.upstream.put_blob(REPOSITORY, &cold.digest, cold.bytes.clone());
    assert!(!client.rest().await.complete);
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.world.metric("tidegate_fill_wrong_bytes_total").await, 1.0);
    assert_eq!(cold.world.rows("blob_sources WHERE failed_until IS NOT NULL"), 0, "nobody is blamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_changes_in_between_does_not_get_through() {
    let cold = Cold::start(SIZE).await;
    let other = random_bytes(99, SIZE);
    cold.on_blob(1, [Fault::CutAfter(count(SIZE / 2))]);
    cold.on_blob(1, [Fault::SwapBody(other, "application/octet-stream".to_owned())]);
    let rest = cold.raw(&[]).await.rest().await;
    assert!(!rest.complete);
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_says_another_size_is_no_source() {
    for fault in [Fault::LongerBy(1000), Fault::ShorterBy(1000), Fault::WrongLength(3)] {
        let cold = Cold::start(SIZE).await;
        cold.on_blob(usize::MAX, [fault.clone()]);
        let client = cold.raw(&[]).await;
        assert!(client.status == 502 || !client.rest().await.complete, "{fault:?}");
        cold.idle().await;
        cold.upstream.clear_rules();
        cold.assert_served().await;
        cold.assert_stored().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_size_than_the_header_says_is_never_served_whole() {
    let chunked = || Fault::NoContentLength;
    for faults in [
        vec![Fault::ShorterBy(1000), Fault::WrongLength(count(SIZE))],
        vec![Fault::ShorterBy(1000), chunked()],
        vec![Fault::WrongByteAt(0), Fault::LongerBy(100_000), chunked()],
        vec![Fault::WrongByteAt(0), Fault::LongerBy(100_000), Fault::WrongLength(count(SIZE))],
    ] {
        let cold = Cold::start(SIZE).await;
        cold.on_blob(usize::MAX, faults.clone());
        let client = cold.raw(&[]).await;
        assert!(client.status == 502 || !client.rest().await.complete, "{faults:?}");
        cold.idle().await;
        assert!(!cold.world.blob_path(&cold.digest).exists(), "{faults:?}");
        cold.upstream.clear_rules();
        // The bytes that came are kept: only the digest of all can tell that they are wrong.
        let again = cold.raw(&[]).await;
        if again.status == 200 {
            let rest = again.rest().await;
            assert!(!rest.complete || rest.bytes == cold.bytes, "{faults:?}");
        }
        cold.assert_served().await;
        cold.assert_stored().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_source_takes_over_from_one_of_another_size_or_that_is_gone() {
    for fault in [Fault::LongerBy(1), Fault::ShorterBy(1), Fault::Empty(404), Fault::Empty(500)] {
        let (first, second) = (ChaosUpstream::start().await, ChaosUpstream::start().await);
        second.put_image(REPOSITORY, "1", &image(SIZE));
        let builder = TestWorld::builder().sections(&sections(""));
        let builder = builder.upstream("up", &first, "").upstream("up2", &second, "");
        let cold = Cold::build(SIZE, first, builder).await;
        know(&cold.world, "up2/library/x", &cold.digest).await;
        cold.on_blob(usize::MAX, [fault]);
        cold.assert_served().await;
        cold.assert_stored().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_source_goes_on_where_the_first_one_broke() {
    let (first, second) = (ChaosUpstream::start().await, ChaosUpstream::start().await);
    second.put_image(REPOSITORY, "1", &image(SIZE));
    let builder = TestWorld::builder().sections(&sections(""));
    let builder = builder.upstream("up", &first, "").upstream("up2", &second, "");
    let cold = Cold::build(SIZE, first, builder).await;
    know(&cold.world, "up2/library/x", &cold.digest).await;
    cold.on_blob(usize::MAX, [Fault::CutAfter(count(SIZE / 2))]);
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(cold.upstream_bytes() + second.blob_bytes(&cold.digest), cold.size());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_size_nobody_tells_is_served_all_the_same() {
    let upstream = ChaosUpstream::start().await;
    let layer = image(MIB).layers[0].clone();
    upstream.put_image(REPOSITORY, "1", &image(MIB));
    upstream.on(Rule::on("*", "/blobs/").then(Fault::NoContentLength));
    let world = TestWorld::start(&upstream).await;
    let answer = world.blob(NAME, &layer.digest).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-length"), MIB.to_string());
    assert!(answer.body == layer.bytes);
    world.assert_stored(&layer.digest, &layer.bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_answers_is_told_as_what_it_means() {
    let limited = Fault::Status(429, vec![("Retry-After".into(), "7".into())], "".into());
    for (fault, status, retry_after) in [
        (Fault::Empty(404), 404, ""),
        (Fault::Empty(403), 403, ""),
        (limited, 429, "7"),
        (Fault::Empty(500), 502, ""),
        (Fault::DropConnection, 502, ""),
    ] {
        let cold = Cold::start(1000).await;
        cold.on_blob(usize::MAX, [fault.clone()]);
        let answer = cold.get(&[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (status, retry_after),
            "{fault:?}"
        );
        assert_ne!(answer.error_code(), "", "{fault:?}");
    }
}

/// A blob that several upstreams have: those with the names before `last` and their faults, and `last` with none.
async fn several(size: usize, first: &[(&str, Fault)], last: &str) -> (Vec<ChaosUpstream>, Cold) {
    several_with(size, first, last, "").await
}

/// The same, where those before `last` have these keys of `[[upstream]]`.
async fn several_with(
    size: usize,
    first: &[(&str, Fault)],
    last: &str,
    keys: &str,
) -> (Vec<ChaosUpstream>, Cold) {
    let mut builder = TestWorld::builder().sections(&sections("fill_min_rate = \"1MiB\""));
    let mut upstreams = Vec::new();
    for (name, _) in first {
        let upstream = ChaosUpstream::start().await;
        upstream.put_image(REPOSITORY, "1", &image(size));
        builder = builder.upstream(name, &upstream, keys);
        upstreams.push(upstream);
    }
    let cold = {
        let upstream = ChaosUpstream::start().await;
        upstream.put_image(REPOSITORY, "1", &image(size));
        let builder = builder.upstream(last, &upstream, "").upstream("up", &upstream, "hosts = []");
        Cold::build(size, upstream, builder).await
    };
    for ((name, fault), upstream) in first.iter().zip(&upstreams) {
        know(&cold.world, &format!("{name}/{REPOSITORY}"), &cold.digest).await;
        upstream.on(Rule::on("GET", &cold.digest).then(fault.clone()));
    }
    (upstreams, cold)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_many_repositories_of_a_dead_upstream_comes_from_one_that_is_up() {
    let (dead, alive) = (ChaosUpstream::start().await, ChaosUpstream::start().await);
    let base = image(SIZE);
    alive.put_image(REPOSITORY, "1", &base);
    for name in ["library/a", "library/b", "library/c", "library/d"] {
        dead.put_image(name, "1", &base);
    }
    // The sources of `a-dead` precede those of `up`.
    let builder = TestWorld::builder().sections(&sections(""));
    let builder = builder.upstream("a-dead", &dead, "").upstream("up", &alive, "");
    let cold = Cold::build(SIZE, alive, builder).await;
    for name in ["a", "b", "c", "d"] {
        know(&cold.world, &format!("a-dead/library/{name}"), &cold.digest).await;
    }
    dead.stop();
    cold.assert_served().await;
    cold.assert_stored().await;
    cold.assert_upstream_bytes(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_drips_is_replaced_by_one_that_does_not() {
    let drip = Fault::Throttle { bytes_per_second: 1000 };
    let (_slow, cold) = several(SIZE, &[("a-slow", drip)], "b-quick").await;
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_answer_in_time_is_replaced_by_another() {
    let silence = Fault::Delay(Duration::MAX);
    let keys = "read_timeout = \"200ms\"";
    let (silent, cold) = several_with(SIZE, &[("a-silent", silence)], "b-quick", keys).await;
    // The repository that the client requests is the silent one.
    let url = cold.world.content_url(&format!("a-silent/{REPOSITORY}"), &cold.digest).await;
    let answer = cold.world.send(cold.world.client().get(url)).await;
    assert!(answer.body == cold.bytes, "{:?}", answer.status);
    assert_eq!(silent[0].count("GET", &cold.digest), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_size_of_one_source_is_forgotten_with_it() {
    let cold = Cold::start(SIZE).await;
    // One response states a longer blob, and breaks: its size is saved with the partial file.
    cold.on_blob(usize::MAX, [Fault::LongerBy(5000), Fault::CutAfter(count(SIZE / 2))]);
    let client = cold.raw(&[]).await;
    assert!(client.status != 200 || !client.rest().await.complete);
    cold.idle().await;
    cold.upstream.clear_rules();
    let cold = cold.restart("").await;
    let first = cold.raw(&[]).await;
    if first.status == 200 {
        let rest = first.rest().await;
        assert!(!rest.complete || rest.bytes == cold.bytes);
    }
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_downloaded_from_the_repository_that_the_client_requested() {
    let (first, cold) =
        several(MIB, &[("a-first", Fault::Delay(Duration::from_millis(1)))], "b-second").await;
    // `up` is the upstream of the requested repository, and comes last in order.
    cold.assert_served().await;
    assert_eq!(first[0].count("GET", &cold.digest), 0);
}
