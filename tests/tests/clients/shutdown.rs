//! The end of the process while it serves.

use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use tidegate_tests::chaos::{ChaosUpstream, Fault, Rule};
use tidegate_tests::http_client::http_client;
use tidegate_tests::image::Image;
use tidegate_tests::process::TidegateProcess;
use url::Url;

/// Asks for a blob, and for where its bytes are.
async fn get_blob(tidegate: &TidegateProcess, path: &str) -> Response {
    let url = Url::parse(&tidegate.url()).unwrap().join(path).unwrap();
    let redirect = http_client().get(url.clone()).send().await.unwrap();
    assert_eq!(redirect.status(), StatusCode::TEMPORARY_REDIRECT);
    let content = url.join(redirect.headers()["location"].to_str().unwrap()).unwrap();
    let answer = http_client().get(content).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer
}

#[tokio::test]
async fn a_slow_stream_ends_well_after_sigterm() {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(1, &[3_000_000]);
    let layer = &image.layers[0];
    upstream.put_image("a", "1", &image);
    upstream.on(Rule::on("GET", &layer.digest).then(Fault::Throttle { bytes_per_second: 1_000_000 }));
    let mut tidegate = TidegateProcess::start(["--upstream", &format!("local={}", upstream.url())]).await;

    let mut answer = get_blob(&tidegate, &format!("/v2/local/a/blobs/{}", layer.digest)).await;
    let mut received = answer.chunk().await.unwrap().unwrap().to_vec();
    tidegate.terminate();
    let told = Instant::now();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    assert!(received == layer.bytes, "{} bytes of {}", received.len(), layer.bytes.len());
    assert!(
        told.elapsed() > Duration::from_secs(1),
        "the stream was over before the process was told to end"
    );
    assert!(tidegate.wait().await.success());
    assert!(told.elapsed() < Duration::from_secs(20), "it ends with its last stream, not with its patience");
    let refused = http_client().get(tidegate.url()).send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
}

#[tokio::test]
async fn the_last_requests_are_in_the_log_when_the_process_has_ended() {
    let mut tidegate = TidegateProcess::start(["--upstream", "local=http://127.0.0.1:1"]).await;
    for _ in 0..100 {
        http_client().get(format!("{}/v2/", tidegate.url())).send().await.unwrap();
    }
    tidegate.terminate();
    assert!(tidegate.wait().await.success());
    assert_eq!(tidegate.log().matches(": GET /v2/ 200 service=").count(), 100, "{}", tidegate.log());
}

#[tokio::test]
async fn an_idle_process_ends_at_once() {
    let mut tidegate = TidegateProcess::start(["--upstream", "local=http://127.0.0.1:1"]).await;
    let told = Instant::now();
    tidegate.terminate();
    assert!(tidegate.wait().await.success());
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    tidegate.restart().await;
    assert!(http_client().get(format!("{}/v2/", tidegate.url())).send().await.unwrap().status().is_success());
}
