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
        assert!(cold.asked()[1].header("if-range").is_some(), "a strong validator was known");
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
async fn content_that_changes_in_between_is_thrown_away_and_fetched_anew() {
    let cold = Cold::start(SIZE).await;
    let other = random_bytes(99, SIZE);
    cold.upstream.put_lying_blob(REPOSITORY, &cold.digest, other.clone());
    cold.on_blob(1, [Fault::CutAfter(count(SIZE / 2)), Fault::ChangeEtag]);
    cold.on_blob(1, [Fault::Delay(Duration::from_millis(300))]);
    let client = cold.raw(&[]).await;
    assert_eq!(client.status, 200);
    cold.until_sent(SIZE / 2).await;
    cold.upstream.put_blob(REPOSITORY, &cold.digest, cold.bytes.clone());
    let rest = client.rest().await;
    assert!(!rest.complete && other.starts_with(&rest.bytes));
    cold.assert_served().await;
    cold.assert_stored().await;
    assert_eq!(
        cold.world.metric("tidegate_fill_wrong_bytes_total").await,
        0.0,
        "the validator told it before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_changes_in_between_without_a_validator_does_not_get_through() {
    let cold = Cold::start(SIZE).await;
    let other = random_bytes(99, SIZE);
    let no_etag = || Fault::NoHeader("ETag".to_owned());
    cold.on_blob(1, [Fault::CutAfter(count(SIZE / 2)), no_etag()]);
    cold.on_blob(1, [no_etag(), Fault::SwapBody(other, "application/octet-stream".to_owned())]);
    let rest = cold.raw(&[]).await.rest().await;
    assert!(!rest.complete);
    cold.idle().await;
    assert!(!cold.world.blob_path(&cold.digest).exists());
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_says_another_size_is_no_source() {
    for fault in [Fault::LongerBy(1000), Fault::ShorterBy(1000), Fault::WrongLength(3)] {
        let cold = Cold::start(SIZE).await;
        cold.on_blob(usize::MAX, [fault.clone()]);
        let answer = cold.get(&[]).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{fault:?}");
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
