use std::sync::atomic::{AtomicUsize, Ordering};

use settings::proxy::ProxySetting;
use upstream_client::{
    BlobHead, BlobRange, FirstByteLimit::Full, Priority::Client, UpstreamConfig, UpstreamError,
};

use crate::support::{Server, collect, digest, login, reference, reply, repository, upstream};

const BLOB: &[u8] = b"layer";

/// A registry that redirects authorized requests for blobs, and the storage that it redirects to.
async fn registry_and_storage() -> (Server, Server) {
    let storage = Server::start(|request| match request.method.as_str() {
        "HEAD" => reply(403),
        _ if request.header("range").is_some() => {
            reply(206).header("content-range", "bytes 0-0/5").body(&BLOB[..1])
        }
        _ => reply(200).body(BLOB),
    })
    .await;
    let target = storage.at("/object?signature=secret");
    let registry = Server::start(move |request| match request.authorization() {
        Some(_) => reply(307).header("location", &target),
        None => reply(401).header("www-authenticate", "Basic realm=\"registry\""),
    })
    .await;
    (registry, storage)
}

#[tokio::test]
async fn authorization_does_not_follow_to_another_host() {
    let (registry, storage) = registry_and_storage().await;
    let mut config = registry.config();
    (config.credentials, config.allow_private) = (login("user", "hidden"), true);
    let upstream = upstream(config);
    let body = upstream
        .open_blob(&repository("a"), &digest(BLOB), BlobRange::default(), Full, Client)
        .await
        .unwrap();
    assert_eq!(collect(body).await, (BLOB.to_vec(), None));
    assert_eq!(registry.requests().last().unwrap().authorization(), Some("Basic dXNlcjpoaWRkZW4="));
    let at_storage = storage.requests();
    assert_eq!(at_storage.len(), 1);
    assert_eq!(at_storage[0].target, "/object?signature=secret");
    assert_eq!(at_storage[0].authorization(), None);
    assert_eq!(at_storage[0].header("cookie"), None);
    assert_eq!(at_storage[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_url_that_is_signed_for_get_only_still_gives_the_size() {
    let (registry, storage) = registry_and_storage().await;
    let mut config = registry.config();
    (config.credentials, config.allow_private) = (login("user", "hidden"), true);
    let head = upstream(config).head_blob(&repository("a"), &digest(BLOB), Client).await;
    assert_eq!(head, Ok(BlobHead { size: Some(5) }));
    assert!(storage.requests().iter().all(|request| request.authorization().is_none()));
}

#[tokio::test]
async fn authorization_stays_on_the_same_host_and_does_not_return() {
    let storage = Server::start(|request| {
        let home = request.target.strip_prefix("/back?to=").unwrap().to_owned();
        reply(302).header("location", home)
    })
    .await;
    let away = storage.at("/back");
    let registry = Server::start(move |request| {
        let home = format!("http://{}", request.header("host").unwrap());
        match (request.authorization(), request.target.as_str()) {
            (_, "/home") => reply(200).body(BLOB),
            (None, "/returned") => reply(200).body(BLOB),
            (None, _) => reply(401).header("www-authenticate", "Basic realm=\"registry\""),
            (_, target) if target.starts_with("/v2/near/") => reply(307).header("location", "/home"),
            _ => reply(307).header("location", format!("{away}?to={home}/returned")),
        }
    })
    .await;
    let mut config = registry.config();
    (config.credentials, config.allow_private) = (login("user", "hidden"), true);
    let upstream = upstream(config);
    let authorization_at = |target: &str| {
        let request = registry.requests().into_iter().find(|request| request.target == target).unwrap();
        request.authorization().map(str::to_owned)
    };
    upstream.get_manifest(&repository("near"), &reference("t"), Client).await.unwrap();
    assert!(authorization_at("/home").is_some());
    upstream.get_manifest(&repository("far"), &reference("t"), Client).await.unwrap();
    assert_eq!(authorization_at("/returned"), None);
    assert_eq!(storage.requests()[0].authorization(), None);
}

#[tokio::test]
async fn a_redirect_into_the_internal_network_is_refused() {
    let inside = Server::start(|_| reply(200).body("secret")).await;
    let port = inside.url.port().unwrap();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"] {
        let target = format!("http://{host}:{port}/latest/meta-data?token=x");
        // The server is the proxy of an upstream whose address is not known.
        let server = Server::start(move |_| reply(307).header("location", &target)).await;
        let mut config = UpstreamConfig::new("test", "http://registry.example.com".parse().unwrap());
        config.proxy = ProxySetting::Url(server.url.clone());
        let upstream = upstream(config);
        let refused = upstream.get_manifest(&repository("a"), &reference("t"), Client).await.unwrap_err();
        assert!(matches!(refused, UpstreamError::InvalidResponse(_)), "{host}: {refused:?}");
        let reason = refused.to_string();
        assert!(reason.contains("allow_private") && !reason.contains("token"), "{reason}");
        let opened =
            upstream.open_blob(&repository("a"), &digest(BLOB), BlobRange::default(), Full, Client).await;
        assert!(matches!(opened, Err(UpstreamError::InvalidResponse(_))), "{host}");
    }
    assert_eq!(inside.requests().len(), 0);
}

#[tokio::test]
async fn an_upstream_in_the_internal_network_may_redirect_within_it() {
    let inside = Server::start(|_| reply(200).body("{}")).await;
    let port = inside.url.port().unwrap();
    for (host, is_followed) in [
        ("127.0.0.1", true),
        ("localhost", true),
        ("2130706433", true),
        ("0.0.0.0", false),
        ("[::ffff:127.0.0.1]", false),
        ("169.254.169.254", false),
        ("[fd00:ec2::254]", false),
        ("100.100.100.200", false),
    ] {
        let target = format!("http://{host}:{port}/x");
        let server = Server::start(move |_| reply(307).header("location", &target)).await;
        let before = inside.requests().len();
        // By its address, and by a name that leads to it.
        for own in ["127.0.0.1", "localhost"] {
            let mut config = server.config();
            config.url.set_host(Some(own)).unwrap();
            let followed = upstream(config).get_manifest(&repository("a"), &reference("t"), Client).await;
            assert_eq!(followed.is_ok(), is_followed, "{own} {host}: {followed:?}");
            if let Err(refused) = followed {
                assert!(refused.to_string().contains("allow_private"), "{refused}");
            }
        }
        assert_eq!(inside.requests().len() - before, if is_followed { 2 } else { 0 }, "{host}");
    }
}

#[tokio::test]
async fn the_upstreams_own_address_is_exempt_in_a_redirect_too() {
    let server = Server::start(|request| match request.target.as_str() {
        "/elsewhere" => reply(200).body("{}"),
        _ => reply(301).header("location", format!("http://{}/elsewhere", request.header("host").unwrap())),
    })
    .await;
    server.upstream().get_manifest(&repository("a"), &reference("t"), Client).await.unwrap();
}

#[tokio::test]
async fn at_most_ten_redirects_are_followed() {
    let server = Server::start(|request| {
        let step = |target: &str| target.strip_prefix("/step/").and_then(|step| step.parse::<u32>().ok());
        match (request.target.as_str(), step(&request.target)) {
            (_, Some(1)) => reply(200).body("{}"),
            (_, Some(left)) => reply(307).header("location", format!("/step/{}", left - 1)),
            (target, None) if target.ends_with("/ten") => reply(307).header("location", "/step/10"),
            _ => reply(307).header("location", "/step/11"),
        }
    })
    .await;
    let (upstream, a) = (server.upstream(), repository("a"));
    upstream.get_manifest(&a, &reference("ten"), Client).await.unwrap();
    assert_eq!(server.requests().len(), 11);
    let refused = upstream.get_manifest(&a, &reference("eleven"), Client).await;
    assert_eq!(refused.err(), Some(UpstreamError::invalid_response("more than 10 redirects")));
    assert_eq!(server.requests().len(), 22);
}

#[tokio::test]
async fn a_redirect_without_a_location_is_an_invalid_response() {
    let server = Server::start(|_| reply(302)).await;
    let refused = server.upstream().get_manifest(&repository("a"), &reference("t"), Client).await;
    assert!(matches!(refused, Err(UpstreamError::InvalidResponse(_))), "{refused:?}");
}

#[tokio::test]
async fn a_link_that_is_refused_is_replaced_by_a_new_one() {
    for status in [400, 401, 403, 404, 410] {
        let links = AtomicUsize::new(0);
        let server = Server::start(move |request| match request.target.as_str() {
            "/link/1" => reply(status).header("content-type", "application/xml").body("<Error/>"),
            "/link/2" => reply(200).body("blob"),
            _ => {
                let number = links.fetch_add(1, Ordering::SeqCst) + 1;
                let url = format!(
                    "http://localhost:{}/link/{number}",
                    request.header("host").unwrap().rsplit(':').next().unwrap()
                );
                reply(307).header("location", url)
            }
        })
        .await;
        let mut config = server.config();
        config.allow_private = true;
        let upstream = upstream(config);
        let blob = digest(b"blob");
        let body =
            upstream.open_blob(&repository("a"), &blob, BlobRange::default(), Full, Client).await.unwrap();
        assert_eq!(collect(body).await, (b"blob".to_vec(), None), "{status}");
        assert_eq!(server.requests().len(), 4);
    }
}
