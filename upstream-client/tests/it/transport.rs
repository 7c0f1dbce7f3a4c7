use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use settings::proxy::ProxySetting;
use upstream_client::{
    BlobRange,
    FirstByteLimit::Full,
    Priority::{Background, Client},
    Upstream, UpstreamError,
};
use url::Url;

use crate::support::{
    Counts, Reply, Server, advance, digest, hang_up, in_turn, login, reference, reply, repository, silence,
    time_out, upstream,
};

/// Tokio rounds the end of a sleep up to a millisecond.
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

async fn get(upstream: &Upstream) -> Result<(), UpstreamError> {
    upstream.get_manifest(&repository("a"), &reference("t"), Client).await.map(|_| ())
}

#[tokio::test]
async fn a_gateway_error_or_a_broken_connection_is_retried() {
    let retried = async |failure: Reply| {
        let server = in_turn(vec![failure.clone(), failure, reply(200).body("{}")]).await;
        let counts = Arc::new(Counts::default());
        let upstream = Upstream::new(server.config(), counts.clone()).unwrap();
        get(&upstream).await.unwrap();
        assert_eq!(server.requests().len(), 3);
        assert_eq!(counts.exchanges.lock().unwrap().len(), 3);
    };
    let failures = [reply(502), reply(503), reply(504), hang_up(), reply(200).body("{}").cut_after(1)];
    join_all(failures.map(retried)).await;
}

#[tokio::test]
async fn the_third_failure_is_final() {
    let server = in_turn(vec![reply(502), reply(503), hang_up(), reply(200).body("{}")]).await;
    assert!(matches!(get(&server.upstream()).await, Err(UpstreamError::Unreachable(_))));
    let server = in_turn(vec![hang_up()]).await;
    let opened =
        server.upstream().open_blob(&repository("a"), &digest(b""), BlobRange::default(), Full, Client).await;
    assert!(matches!(opened, Err(UpstreamError::Unreachable(_))), "{opened:?}");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn other_responses_are_not_retried() {
    for final_answer in
        [reply(500), reply(501), reply(404), reply(429), reply(503).header("retry-after", "1")]
    {
        let server = in_turn(vec![final_answer, reply(200).body("{}")]).await;
        get(&server.upstream()).await.unwrap_err();
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_metadata_request_has_one_time_limit_for_all_attempts_and_its_body() {
    let stalling = reply(200).body("{}").stall_after(1);
    for (replies, requests) in [(vec![silence()], 1), (vec![stalling], 1), (vec![reply(503), silence()], 2)] {
        let server = in_turn(replies).await;
        let upstream = server.upstream();
        let (result, elapsed) = time_out(&server, requests, get(&upstream)).await;
        assert_eq!(result, Err(UpstreamError::Timeout));
        assert!(elapsed <= server.config().answer_timeout + TIMER_GRANULARITY, "{elapsed:?}");
    }
}

#[tokio::test]
async fn a_timeout_is_not_retried_and_is_counted_without_a_code() {
    let server = in_turn(vec![silence()]).await;
    let counts = Arc::new(Counts::default());
    let upstream = Upstream::new(server.config(), counts.clone()).unwrap();
    assert_eq!(time_out(&server, 1, get(&upstream)).await.0, Err(UpstreamError::Timeout));
    assert_eq!(server.requests().len(), 1);
    assert_eq!(*counts.exchanges.lock().unwrap(), [("GET".to_owned(), 0)]);
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    // A label of more than 63 characters exists nowhere; no name server is needed to find that out.
    let unknown = format!("https://{}.invalid", "x".repeat(64));
    for url in [closed, unknown] {
        let mut config = upstream_client::UpstreamConfig::new("test", Url::parse(&url).unwrap());
        config.credentials = login("user", "hidden");
        let error = get(&upstream(config)).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Unreachable(_)), "{url}: {error:?}");
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("hidden") && !printed.contains("/v2/"), "{printed}");
    }
}

#[tokio::test]
async fn an_offline_upstream_receives_no_request() {
    let server = in_turn(vec![reply(200).body("{}")]).await;
    let mut config = server.config();
    config.offline = true;
    let upstream = upstream(config);
    let (a, t, blob) = (repository("a"), reference("t"), digest(b""));
    assert_eq!(upstream.get_manifest(&a, &t, Client).await.unwrap_err(), UpstreamError::Offline);
    assert_eq!(upstream.head_manifest(&a, &t, Client).await.unwrap_err(), UpstreamError::Offline);
    assert_eq!(upstream.head_blob(&a, &blob, Client).await.unwrap_err(), UpstreamError::Offline);
    let opened = upstream.open_blob(&a, &blob, BlobRange::default(), Full, Client).await;
    assert_eq!(opened.unwrap_err(), UpstreamError::Offline);
    assert_eq!(upstream.list_tags(&a, None, Client).await.unwrap_err(), UpstreamError::Offline);
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn background_requests_leave_the_reserve_to_clients() {
    let limit = reply(200).header("ratelimit-limit", "100;w=21600").body("{}");
    let server = in_turn(vec![
        limit.clone().header("ratelimit-remaining", "11;w=21600"),
        limit.header("ratelimit-remaining", "10;w=21600"),
    ])
    .await;
    let mut config = server.config();
    config.ratelimit_reserve = 10;
    let upstream = upstream(config);
    let background = async || upstream.head_manifest(&repository("a"), &reference("t"), Background).await;
    background().await.unwrap();
    background().await.unwrap();
    assert!(matches!(background().await, Err(UpstreamError::RateLimited { retry_after: Some(_) })));
    assert_eq!(server.requests().len(), 2);
    get(&upstream).await.unwrap();
    let seen = upstream.status().rate_limit.unwrap();
    assert_eq!((seen.limit, seen.remaining), (Some(100), Some(10)));
    assert_eq!(seen.window, Some(Duration::from_secs(21600)));
}

#[tokio::test]
async fn background_requests_wait_for_retry_after_and_clients_do_not() {
    let server = in_turn(vec![reply(429).header("retry-after", "3600"), reply(200).body("{}")]).await;
    let upstream = server.upstream();
    let wait = Some(Duration::from_secs(3600));
    assert_eq!(get(&upstream).await, Err(UpstreamError::RateLimited { retry_after: wait }));
    let background = upstream.head_manifest(&repository("a"), &reference("t"), Background).await;
    assert!(matches!(background, Err(UpstreamError::RateLimited { retry_after: Some(_) })));
    assert!(upstream.status().retry_after.is_some_and(|wait| wait > Duration::from_secs(1800)));
    get(&upstream).await.unwrap();
}

#[tokio::test]
async fn requests_go_through_a_configured_proxy() {
    let proxy = Server::start(|_| reply(200).body("{}")).await;
    let url = Url::parse("http://registry.invalid").unwrap();
    let mut config = upstream_client::UpstreamConfig::new("test", url);
    config.proxy = ProxySetting::Url(proxy.url.clone());
    get(&upstream(config)).await.unwrap();
    assert_eq!(proxy.requests()[0].target, "http://registry.invalid/v2/a/manifests/t");
}

#[tokio::test]
async fn a_blob_that_is_stored_first_does_not_hold_up_other_requests() {
    let server = Server::start(|request| match request.target.contains("/blobs/") {
        true => silence(),
        false => reply(200).body("{}"),
    })
    .await;
    let mut config = server.config();
    config.max_requests = 1;
    let read_timeout = config.read_timeout;
    let upstream = upstream(config);
    let blob = tokio::spawn({
        let upstream = upstream.clone();
        async move { upstream.open_blob(&repository("a"), &digest(b""), BlobRange::default(), Full, Client).await }
    });
    server.received(1).await;
    advance(read_timeout).await;
    get(&upstream).await.unwrap();
    assert!(!blob.is_finished());
}
