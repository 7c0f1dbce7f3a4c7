//! The end of the process while it serves.

use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use tidegate_tests::assert_eventually;
use tidegate_tests::chaos::{ChaosUpstream, Fault, Rule};
use tidegate_tests::http_client::http_client;
use tidegate_tests::image::Image;
use tidegate_tests::process::TidegateProcess;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
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
async fn from_sigterm_on_each_answer_closes_its_connection() {
    let mut tidegate = TidegateProcess::start(["--upstream", "local=http://127.0.0.1:1"]).await;
    let mut connection = BufReader::new(TcpStream::connect(tidegate.listening()).await.unwrap());
    assert!(!get_base(&mut connection).await.contains("connection: close"));
    tidegate.terminate();
    let ready = format!("http://{}/readyz", tidegate.internal());
    assert_eventually!(http_client().get(&ready).send().await.unwrap().status() == 503);
    for _ in 0..2 {
        assert!(get_base(&mut connection).await.contains("connection: close"));
        assert_eq!(connection.read(&mut [0]).await.unwrap(), 0, "the connection is open");
        connection = BufReader::new(TcpStream::connect(tidegate.listening()).await.unwrap());
    }
    assert!(tidegate.wait().await.success());
}

/// Requests `/v2/` on a connection. Returns the head of the answer in lower case.
async fn get_base(connection: &mut BufReader<TcpStream>) -> String {
    connection.get_mut().write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(connection.read_line(&mut head).await.unwrap(), 0, "closed after {head:?}");
    }
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    connection.read_exact(&mut vec![0; length.parse().unwrap()]).await.unwrap();
    head
}

#[tokio::test]
async fn an_idle_process_ends_at_once() {
    let mut tidegate = TidegateProcess::start(["--upstream", "local=http://127.0.0.1:1"]).await;
    let told = Instant::now();
    tidegate.interrupt();
    assert!(tidegate.wait().await.success());
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    tidegate.restart().await;
    assert!(http_client().get(format!("{}/v2/", tidegate.url())).send().await.unwrap().status().is_success());
}
