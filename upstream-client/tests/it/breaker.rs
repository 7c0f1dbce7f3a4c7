use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use upstream_client::{Priority::Client, Upstream, UpstreamConfig, UpstreamError};

use crate::support::{Server, reference, reply, repository, upstream};

/// Answers with the status that stands in the returned cell.
async fn registry(status: u16) -> (Server, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let current = Arc::clone(&status);
    let server = Server::start(move |_| {
        reply(current.load(Ordering::SeqCst)).body("{}").delayed(Duration::from_millis(50))
    })
    .await;
    (server, status)
}

fn config(server: &Server, open_for: Duration) -> UpstreamConfig {
    let mut config = server.config();
    (config.breaker_failures, config.breaker_open_for) = (3, open_for);
    config
}

async fn get(upstream: &Upstream) -> Result<(), UpstreamError> {
    upstream.get_manifest(&repository("a"), &reference("t"), Client).await.map(|_| ())
}

#[tokio::test]
async fn after_failures_in_a_row_nothing_is_sent() {
    let (server, _) = registry(500).await;
    let upstream = upstream(config(&server, Duration::from_secs(60)));
    for _ in 0..3 {
        assert_eq!(get(&upstream).await, Err(UpstreamError::Server { status: 500 }));
    }
    assert!(upstream.status().circuit_open_for.is_some_and(|left| left > Duration::from_secs(50)));
    let blocked = get(&upstream).await.unwrap_err();
    assert!(
        matches!(blocked, UpstreamError::CircuitOpen { retry_after } if retry_after > Duration::from_secs(50))
    );
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_no_failure() {
    for status in [401, 403, 404, 429, 405] {
        let (server, _) = registry(status).await;
        let upstream = upstream(config(&server, Duration::from_secs(60)));
        for _ in 0..5 {
            get(&upstream).await.unwrap_err();
        }
        assert_eq!(server.requests().len(), 5, "{status}");
        assert_eq!(upstream.status().circuit_open_for, None);
    }
}

#[tokio::test]
async fn one_probe_closes_the_circuit_again() {
    let open_for = Duration::from_millis(200);
    let (server, status) = registry(500).await;
    let upstream = upstream(config(&server, open_for));
    for _ in 0..3 {
        get(&upstream).await.unwrap_err();
    }
    tokio::time::sleep(open_for).await;
    assert_eq!(get(&upstream).await, Err(UpstreamError::Server { status: 500 }));
    assert!(matches!(get(&upstream).await, Err(UpstreamError::CircuitOpen { .. })));
    tokio::time::sleep(open_for).await;
    status.store(200, Ordering::SeqCst);
    let results = futures::future::join_all((0..10).map(|_| get(&upstream))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(server.requests().len(), 5);
    get(&upstream).await.unwrap();
}
