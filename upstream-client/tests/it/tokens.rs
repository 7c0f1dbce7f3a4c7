use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use settings::proxy::ProxySetting;
use tokio::sync::watch;
use upstream_client::{Credentials, Priority::Client, Upstream, UpstreamError};

use crate::support::{Reply, Request, Server, login, reference, reply, repository, upstream};

const BASIC: &str = "Basic dXNlcjpoaWRkZW4="; // user:hidden

fn challenge(request: &Request) -> Reply {
    let host = request.header("host").unwrap();
    let name = request.target.trim_start_matches("/v2/").split("/manifests/").next().unwrap();
    let challenge =
        format!(r#"Bearer realm="http://{host}/token",service="test",scope="repository:{name}:pull""#);
    reply(401).header("www-authenticate", challenge)
}

/// Issues `token-1`, `token-2`, … in the form `issued`, and accepts the tokens that `accepts` does.
async fn registry(accepts: impl Fn(&str) -> bool + Send + Sync + 'static, issued: &'static str) -> Server {
    registry_that_waits(accepts, issued, watch::channel(true).1).await
}

/// The same, which issues no token before `ready` is true.
async fn registry_that_waits(
    accepts: impl Fn(&str) -> bool + Send + Sync + 'static,
    issued: &'static str,
    ready: watch::Receiver<bool>,
) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| {
        if request.target.starts_with("/token") {
            let token = format!("token-{}", count.fetch_add(1, Ordering::SeqCst) + 1);
            return reply(200).body(issued.replace("TOKEN", &token)).when(ready.clone());
        }
        match request.authorization().and_then(|header| header.strip_prefix("Bearer ")) {
            Some(token) if accepts(token) => reply(200).body("{}"),
            _ => challenge(request),
        }
    })
    .await
}

fn authority(server: &Server) -> String {
    format!("127.0.0.1:{}", server.url.port().unwrap())
}

async fn get(upstream: &Upstream, name: &str) -> Result<(), UpstreamError> {
    upstream.get_manifest(&repository(name), &reference("t"), Client).await.map(|_| ())
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_and_cached_for_its_repository() {
    let server = registry(|_| true, r#"{"token":"TOKEN","expires_in":300}"#).await;
    let upstream = server.upstream();
    for _ in 0..3 {
        get(&upstream, "library/alpine").await.unwrap();
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 5, "{requests:?}");
    assert_eq!(requests[1].target, "/token?service=test&scope=repository%3Alibrary%2Falpine%3Apull");
    assert_eq!(requests[1].authorization(), None);
    assert_eq!(requests[4].authorization(), Some("Bearer token-1"));
    get(&upstream, "library/other").await.unwrap();
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn the_login_goes_to_the_realm_and_the_token_to_the_registry() {
    let server = registry(|_| true, r#"{"access_token":"TOKEN"}"#).await;
    let mut config = server.config();
    config.credentials = login("user", "hidden");
    get(&upstream(config), "a").await.unwrap();
    let sent: Vec<_> =
        server.requests().iter().map(|request| request.authorization().map(str::to_owned)).collect();
    assert_eq!(sent, [None, Some(BASIC.to_owned()), Some("Bearer token-1".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_concurrent_requests_fetch_one_token() {
    let (ready, is_ready) = watch::channel(false);
    let server = registry_that_waits(|_| true, r#"{"token":"TOKEN"}"#, is_ready).await;
    let upstream = server.upstream();
    let mut pulls: Vec<_> = (0..20).map(|_| Box::pin(get(&upstream, "a"))).collect();
    // Each has begun: it has sent its request, or waits for the token that another one requests.
    for pull in &mut pulls {
        assert!(futures::poll!(pull).is_pending());
    }
    ready.send_replace(true);
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(server.count("/token"), 1);
}

#[tokio::test]
async fn a_token_that_is_no_longer_accepted_is_renewed_once_for_all() {
    let good = Arc::new(AtomicUsize::new(1));
    let accepted = Arc::clone(&good);
    let accepts = move |token: &str| *token == format!("token-{}", accepted.load(Ordering::SeqCst));
    let server = registry(accepts, r#"{"token":"TOKEN","expires_in":300}"#).await;
    let upstream = server.upstream();
    get(&upstream, "a").await.unwrap();
    good.store(2, Ordering::SeqCst);
    for result in futures::future::join_all((0..20).map(|_| get(&upstream, "a"))).await {
        result.unwrap();
    }
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn a_token_that_is_never_accepted_is_a_refusal_after_one_renewal() {
    let server = registry(|_| false, r#"{"token":"TOKEN"}"#).await;
    let upstream = server.upstream();
    assert_eq!(get(&upstream, "a").await, Err(UpstreamError::Denied));
    assert_eq!((server.count("/token"), server.count("/v2/")), (1, 2));
    assert_eq!(get(&upstream, "a").await, Err(UpstreamError::Denied));
    assert_eq!((server.count("/token"), server.count("/v2/")), (2, 4));
}

#[tokio::test]
async fn an_expired_token_is_not_sent() {
    let server = registry(|_| true, r#"{"token":"TOKEN","expires_in":0}"#).await;
    let upstream = server.upstream();
    get(&upstream, "a").await.unwrap();
    get(&upstream, "a").await.unwrap();
    let sent: Vec<_> =
        server.requests().iter().map(|request| request.authorization().map(str::to_owned)).collect();
    assert_eq!(sent[3], None);
    assert_eq!(sent[5].as_deref(), Some("Bearer token-2"));
}

#[tokio::test]
async fn a_token_has_a_maximum_size() {
    const MAX: usize = 16 * 1024;
    for size in [MAX, MAX + 1, 10 * MAX] {
        let server = Server::start(move |request| match request.authorization() {
            _ if request.target.starts_with("/token") => {
                reply(200).body(format!(r#"{{"token":"{}"}}"#, "a".repeat(size)))
            }
            Some(_) => reply(200).body("{}"),
            None => challenge(request),
        })
        .await;
        let refusal = || {
            let host = authority(&server);
            UpstreamError::invalid_response(format!(
                "token of more than 16384 bytes from the token service {host}"
            ))
        };
        let expected = if size > MAX { Err(refusal()) } else { Ok(()) };
        assert_eq!(get(&server.upstream(), "a").await, expected, "{size}");
        assert_eq!(server.count("/token"), 1, "{size}");
    }
}

#[tokio::test]
async fn responses_of_the_token_service_have_the_same_errors() {
    for (status, expected) in [
        (401, None),
        (403, None),
        (404, Some(UpstreamError::invalid_response("status 404 from the token service"))),
        (429, Some(UpstreamError::RateLimited { retry_after: Some(Duration::from_secs(9)) })),
        (500, Some(UpstreamError::Server { status: 500 })),
        (503, Some(UpstreamError::Server { status: 503 })),
        (307, Some(UpstreamError::invalid_response("redirect by the token service to another host"))),
        (200, Some(UpstreamError::invalid_response("no token in the response of the token service"))),
    ] {
        let server = Server::start(move |request| match request.target.starts_with("/token") {
            true => reply(status)
                .header("retry-after", "9")
                .header("location", "https://elsewhere.test/")
                .body("{}"),
            false => challenge(request),
        })
        .await;
        let mut config = server.config();
        config.credentials = login("user", "hidden");
        let issuer = format!("the token service {}", authority(&server));
        let expected = expected.unwrap_or(UpstreamError::LoginRefused { issuer });
        assert_eq!(get(&upstream(config), "a").await, Err(expected), "{status}");
        assert_eq!(server.requests().len(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_realm_of_another_party_receives_no_request() {
    let elsewhere = Server::start(|_| reply(200).body(r#"{"token":"t"}"#)).await;
    let realm = elsewhere.at("/token?secret=1");
    let server = Server::start(move |_| {
        reply(401).header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"test\""))
    })
    .await;
    let mut config = server.config();
    config.credentials = login("user", "hidden");
    let refused = get(&upstream(config.clone()), "a").await.unwrap_err();
    assert!(matches!(refused, UpstreamError::InvalidResponse(_)), "{refused:?}");
    let reason = refused.to_string();
    assert!(reason.contains("realms") && !reason.contains("secret"), "{reason}");
    assert_eq!(elsewhere.requests().len(), 0);

    let host = elsewhere.url.host_str().unwrap();
    config.realms = vec![format!("{host}:{}", elsewhere.url.port().unwrap())];
    assert_eq!(get(&upstream(config.clone()), "a").await, Err(UpstreamError::Denied));
    assert_eq!(elsewhere.requests()[0].authorization(), Some(BASIC));

    // An upstream that is not in the internal network itself: the server is its proxy.
    config.url = "http://registry.example.com".parse().unwrap();
    config.proxy = ProxySetting::Url(server.url.clone());
    let refused = get(&upstream(config), "a").await.unwrap_err().to_string();
    assert!(refused.contains("allow_private"), "{refused}");
    assert_eq!(elsewhere.requests().len(), 1);
}

#[tokio::test]
async fn basic_is_answered_with_the_login_which_is_then_sent_at_once() {
    let server = Server::start(|request| match request.authorization() {
        Some(BASIC) => reply(200).body("{}"),
        _ => reply(401).header("www-authenticate", "Basic realm=\"registry\""),
    })
    .await;
    let mut config = server.config();
    assert_eq!(get(&upstream(config.clone()), "a").await, Err(UpstreamError::LoginRequired));
    config.credentials = login("user", "wrong");
    let wrong = upstream(config.clone());
    let refused = UpstreamError::LoginRefused { issuer: authority(&server) };
    assert_eq!(get(&wrong, "a").await, Err(refused.clone()));
    let before = server.requests().len();
    assert_eq!(get(&wrong, "a").await, Err(refused));
    assert_eq!(server.requests().len() - before, 1, "the same login was sent twice");
    config.credentials = login("user", "hidden");
    let right = upstream(config);
    let before = server.requests().len();
    get(&right, "a").await.unwrap();
    get(&right, "a").await.unwrap();
    assert_eq!(server.requests().len() - before, 3);
}

#[tokio::test]
async fn an_unsupported_scheme_is_an_invalid_response() {
    let server = Server::start(|_| reply(401).header("www-authenticate", "Negotiate")).await;
    let refused = get(&server.upstream(), "a").await;
    assert!(matches!(refused, Err(UpstreamError::InvalidResponse(_))), "{refused:?}");
}

#[tokio::test]
async fn the_login_of_one_upstream_never_reaches_another() {
    let private = registry(|_| true, r#"{"token":"TOKEN"}"#).await;
    let other = Server::start(|_| reply(200).body("{}")).await;
    let mut config = private.config();
    config.credentials = login("user", "hidden");
    let (first, second) = (upstream(config), other.upstream());
    for _ in 0..2 {
        get(&first, "a").await.unwrap();
        get(&second, "a").await.unwrap();
    }
    assert_eq!(other.requests().len(), 2);
    assert!(other.requests().iter().all(|request| request.authorization().is_none()));
}

#[tokio::test]
async fn a_challenge_that_is_sent_at_the_base_only_is_found_and_remembered() {
    let server = Server::start(|request| match (request.target.as_str(), request.authorization()) {
        (target, _) if target.starts_with("/token") => reply(200).body(r#"{"token":"t","expires_in":0}"#),
        (_, Some("Bearer t")) => reply(200).body("{}"),
        ("/v2/", None) => challenge(request),
        _ => reply(401),
    })
    .await;
    let upstream = server.upstream();
    get(&upstream, "a").await.unwrap();
    get(&upstream, "b").await.unwrap();
    assert_eq!(server.requests().iter().filter(|request| request.target == "/v2/").count(), 1);
}

#[tokio::test]
async fn a_token_that_is_refused_before_its_expiry_is_replaced() {
    for refusal in [401, 403] {
        let revoked = Arc::new(AtomicUsize::new(0));
        let (issued, is_revoked) = (AtomicUsize::new(0), Arc::clone(&revoked));
        let server = Server::start(move |request| match request.authorization() {
            _ if request.target.starts_with("/token") => {
                let number = issued.fetch_add(1, Ordering::SeqCst);
                reply(200).body(format!(r#"{{"token":"{number}","expires_in":3600}}"#))
            }
            None => challenge(request),
            Some(token) if token == format!("Bearer {}", is_revoked.load(Ordering::SeqCst)) => {
                reply(200).body("{}")
            }
            Some(_) => reply(refusal),
        })
        .await;
        let upstream = server.upstream();
        get(&upstream, "a").await.unwrap();
        revoked.store(1, Ordering::SeqCst);
        get(&upstream, "a").await.unwrap();
        assert_eq!(server.count("/token"), 2, "{refusal}");
        // A refusal of a new token is final.
        revoked.store(9, Ordering::SeqCst);
        assert_eq!(get(&upstream, "a").await, Err(UpstreamError::Denied));
        assert_eq!(server.count("/token"), 3, "{refusal}");
    }
}

#[tokio::test]
async fn a_password_that_was_renewed_in_its_file_is_used() {
    let current = Arc::new(Mutex::new("Basic QVdTOm9sZA==")); // AWS:old
    let accepted = Arc::clone(&current);
    let server = Server::start(move |request| match request.authorization() {
        None => reply(401).header("www-authenticate", "Basic realm=\"registry\""),
        Some(login) if login == *accepted.lock().unwrap() => reply(200).body("{}"),
        Some(_) => reply(403),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "old\n").unwrap();
    let mut config = server.config();
    config.credentials = Some(Credentials::File { username: "AWS".to_owned(), path: path.clone() });
    let upstream = upstream(config);
    get(&upstream, "a").await.unwrap();
    *current.lock().unwrap() = "Basic QVdTOm5ldw=="; // AWS:new
    let refused = get(&upstream, "a").await.unwrap_err();
    assert_eq!(refused, UpstreamError::LoginRefused { issuer: authority(&server) });
    std::fs::write(&path, "new\n").unwrap();
    get(&upstream, "a").await.unwrap();
    std::fs::remove_file(&path).unwrap();
    get(&upstream, "a").await.unwrap();
    let unreadable = get(&upstream, "b").await.unwrap_err();
    assert!(matches!(unreadable, UpstreamError::LoginUnreadable { .. }), "{unreadable}");
}

#[tokio::test]
async fn the_scope_of_the_request_is_tried_where_that_of_the_challenge_does_not_suffice() {
    const OWN: &str = "scope=repository%3Aa%3Apull";
    for is_issued in [true, false] {
        let server = Server::start(move |request| match request.authorization() {
            _ if request.target.contains(OWN) => reply(200).body(r#"{"token":"good"}"#),
            _ if request.target.starts_with("/token") && is_issued => reply(200).body(r#"{"token":"bad"}"#),
            _ if request.target.starts_with("/token") => reply(403),
            Some("Bearer good") => reply(200).body("{}"),
            Some(_) => reply(403),
            None => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                let challenge = format!("Bearer realm=\"{realm}\",scope=\"repository:user/image:pull\"");
                reply(401).header("www-authenticate", challenge)
            }
        })
        .await;
        get(&server.upstream(), "a").await.unwrap();
        assert_eq!(server.count("/token"), 2);
    }
}

#[tokio::test]
async fn a_token_service_may_redirect_within_its_host() {
    let server = Server::start(|request| match (request.target.as_str(), request.authorization()) {
        ("/token/", Some(BASIC)) => reply(200).body(r#"{"token":"t"}"#),
        (target, Some(BASIC)) if target.starts_with("/token?") => reply(301).header("location", "/token/"),
        (_, Some("Bearer t")) => reply(200).body("{}"),
        _ => challenge(request),
    })
    .await;
    let mut config = server.config();
    config.credentials = login("user", "hidden");
    get(&upstream(config), "a").await.unwrap();
}

#[tokio::test]
async fn a_registry_behind_a_redirect_is_authorized_by_a_listed_realm() {
    let elsewhere = registry(|_| true, r#"{"token":"TOKEN"}"#).await;
    let location = elsewhere.at("/v2/b/manifests/t");
    let server = Server::start(move |_| reply(307).header("location", &location)).await;
    let mut config = server.config();
    config.allow_private = true;
    assert_eq!(get(&upstream(config.clone()), "a").await, Err(UpstreamError::Denied));
    assert_eq!(elsewhere.count("/token"), 0);
    config.realms = vec![authority(&elsewhere)];
    let upstream = upstream(config);
    get(&upstream, "a").await.unwrap();
    get(&upstream, "a").await.unwrap();
    assert_eq!(elsewhere.count("/token?service=test&scope=repository%3Ab%3Apull"), 1);
    assert!(server.requests().iter().all(|request| request.authorization().is_none()));
}
