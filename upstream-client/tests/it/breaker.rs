use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use upstream_client::{
    BlobRange, FirstByteLimit::Full, Priority::Client, Upstream, UpstreamConfig, UpstreamError,
};

use crate::support::{
    Server, advance, digest, hang_up, in_turn, reference, reply, repository, silence, unavailable, upstream,
};

const OPEN_DURATION: Duration = Duration::from_secs(3600);

/// Responds with the status in the returned cell.
async fn registry(status: u16) -> (Server, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let current = Arc::clone(&status);
    let server =
        Server::start(move |_| reply(current.load(Ordering::SeqCst)).header("retry-after", 1).body("{}"))
            .await;
    (server, status)
}

fn config(server: &Server) -> UpstreamConfig {
    let mut config = server.config();
    (config.breaker_failures, config.breaker_open_for) = (3, OPEN_DURATION);
    config
}

async fn get(upstream: &Upstream) -> Result<(), UpstreamError> {
    upstream.get_manifest(&repository("a"), &reference("t"), Client).await.map(|_| ())
}

#[tokio::test]
async fn nothing_is_sent_after_consecutive_failures() {
    let (server, _) = registry(503).await;
    let upstream = upstream(config(&server));
    for _ in 0..3 {
        assert_eq!(get(&upstream).await, Err(UpstreamError::Server { status: 503 }));
    }
    assert!(upstream.status().circuit_open_for.is_some_and(|wait| wait > OPEN_DURATION / 2));
    let blocked = get(&upstream).await.unwrap_err();
    assert!(matches!(blocked, UpstreamError::CircuitOpen { retry_after } if retry_after > OPEN_DURATION / 2));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_not_a_failure() {
    for status in [401, 403, 404, 429, 405] {
        let (server, _) = registry(status).await;
        let upstream = upstream(config(&server));
        for _ in 0..5 {
            get(&upstream).await.unwrap_err();
        }
        // A 401 without a challenge is followed by a request for that of `/v2/`.
        let expected = if status == 401 { 10 } else { 5 };
        assert_eq!(server.requests().len(), expected, "{status}");
        assert_eq!(upstream.status().circuit_open_for, None);
    }
}

#[tokio::test]
async fn one_probe_closes_the_circuit() {
    let (server, status) = registry(503).await;
    let upstream = upstream(config(&server));
    for _ in 0..3 {
        get(&upstream).await.unwrap_err();
    }
    advance(OPEN_DURATION).await;
    assert_eq!(get(&upstream).await, Err(UpstreamError::Server { status: 503 }));
    assert!(matches!(get(&upstream).await, Err(UpstreamError::CircuitOpen { .. })));
    advance(OPEN_DURATION).await;
    status.store(200, Ordering::SeqCst);
    let results = futures::future::join_all((0..10).map(|_| get(&upstream))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(server.requests().len(), 5);
    get(&upstream).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_probe_is_followed_by_another() {
    let server =
        in_turn(vec![unavailable(), unavailable(), unavailable(), silence(), reply(200).body("{}")]).await;
    let upstream = upstream(config(&server));
    for _ in 0..3 {
        get(&upstream).await.unwrap_err();
    }
    advance(OPEN_DURATION).await;
    tokio::select! {
        () = server.received(4) => {}
        _ = get(&upstream) => panic!("there is no response"),
    }
    get(&upstream).await.unwrap();
}

#[tokio::test]
async fn a_probe_whose_blob_is_stored_first_is_followed_by_another() {
    let replies = [unavailable(), unavailable(), unavailable(), silence(), reply(200).body("{}")];
    let server = in_turn(replies.to_vec()).await;
    let upstream = upstream(config(&server));
    for _ in 0..3 {
        get(&upstream).await.unwrap_err();
    }
    advance(OPEN_DURATION).await;
    let probe = tokio::spawn({
        let upstream = upstream.clone();
        async move { upstream.open_blob(&repository("a"), &digest(b""), BlobRange::default(), Full, Client).await }
    });
    server.received(4).await;
    assert!(matches!(get(&upstream).await, Err(UpstreamError::CircuitOpen { .. })));
    advance(server.config().read_timeout).await;
    while let Err(error) = get(&upstream).await {
        assert!(matches!(error, UpstreamError::CircuitOpen { .. }), "{error}");
        tokio::task::yield_now().await;
    }
    assert!(!probe.is_finished());
    assert_eq!(upstream.status().circuit_open_for, None);
}

#[tokio::test]
async fn what_concerns_one_repository_or_another_host_leaves_the_circuit_closed() {
    let dead = Server::start(|_| hang_up()).await;
    let elsewhere = dead.url.clone();
    let answers = [
        ("500 for one repository", reply(500)),
        ("502 for one repository", reply(502).header("retry-after", 1)),
        (
            "a cache in front of a dead upstream",
            unavailable().header("cache-status", "tidegate; fwd=miss; detail=upstream-failed"),
        ),
        ("a redirect to a dead host", reply(307).header("location", &elsewhere)),
    ];
    for (name, answer) in answers {
        let server = Server::start(move |_| answer.clone()).await;
        let upstream = upstream(config(&server));
        for _ in 0..4 {
            let failed = get(&upstream).await.unwrap_err();
            assert!(!matches!(failed, UpstreamError::CircuitOpen { .. }), "{name}: {failed}");
        }
        assert_eq!(upstream.status().circuit_open_for, None, "{name}");
    }
}
