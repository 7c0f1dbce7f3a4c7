use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use oci_types::{Algorithm, Digest, MediaType, manifest::MAX_MANIFEST_BYTES, media_type};
use tokio::sync::{mpsc, watch};
use upstream_client::{ManifestHead, Priority::Client, Upstream, UpstreamError};

use crate::support::{Counts, Server, digest, reference, reply, repository};

const BODY: &[u8] = br#"{"schemaVersion":2,"config":{}}"#;

#[tokio::test]
async fn a_manifest_by_tag_comes_with_the_digest_of_its_bytes() {
    let server =
        Server::start(|_| reply(200).header("content-type", media_type::OCI_MANIFEST).body(BODY)).await;
    let found = server
        .upstream()
        .get_manifest(&repository("library/alpine"), &reference("3.19"), Client)
        .await
        .unwrap();
    assert_eq!(found.digest, digest(BODY));
    assert_eq!(found.media_type, Some(MediaType::new(media_type::OCI_MANIFEST)));
    assert_eq!(found.body, BODY);
    let request = server.requests().remove(0);
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("GET", "/v2/library/alpine/manifests/3.19")
    );
    let accept = request.header("accept").unwrap();
    assert!(media_type::MANIFEST_TYPES.iter().all(|known| accept.contains(known)), "{accept}");
    assert_eq!(request.authorization(), None);
}

#[tokio::test]
async fn an_upstream_may_have_a_path_prefix() {
    let server = Server::start(|_| reply(200).body(BODY)).await;
    let mut config = server.config();
    config.url = config.url.join("/some/prefix/").unwrap();
    let upstream = crate::support::upstream(config);
    upstream.get_manifest(&repository("a/b"), &reference("latest"), Client).await.unwrap();
    assert_eq!(server.requests()[0].target, "/some/prefix/v2/a/b/manifests/latest");
}

#[tokio::test]
async fn the_head_of_a_manifest_has_the_values_of_the_headers() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/a/manifests/bare" => {
            reply(200).header("content-length", "9").header("docker-content-digest", "odd")
        }
        "/v2/a/manifests/refused" => reply(405),
        _ => reply(200)
            .header("content-type", "application/vnd.oci.image.index.v1+json; charset=utf-8")
            .header("content-length", "31")
            .header("docker-content-digest", digest(BODY)),
    })
    .await;
    let (upstream, a) = (server.upstream(), repository("a"));
    let full = ManifestHead {
        digest: Some(digest(BODY)),
        media_type: Some(MediaType::new(media_type::OCI_INDEX)),
        size: Some(31),
    };
    assert_eq!(upstream.head_manifest(&a, &reference("latest"), Client).await, Ok(full));
    let bare = ManifestHead { digest: None, media_type: None, size: Some(9) };
    assert_eq!(upstream.head_manifest(&a, &reference("bare"), Client).await, Ok(bare));
    let nothing = ManifestHead { digest: None, media_type: None, size: None };
    assert_eq!(upstream.head_manifest(&a, &reference("refused"), Client).await, Ok(nothing));
    let other = reference(digest(b"other").as_str());
    assert_eq!(upstream.head_manifest(&a, &other, Client).await, Err(UpstreamError::DigestMismatch));
}

#[tokio::test]
async fn bytes_with_another_digest_are_refused() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/a/manifests/liar" => reply(200).header("docker-content-digest", digest(b"other")).body(BODY),
        _ => reply(200).body(BODY),
    })
    .await;
    let (upstream, a) = (server.upstream(), repository("a"));
    let other = reference(digest(b"other").as_str());
    assert_eq!(upstream.get_manifest(&a, &other, Client).await.err(), Some(UpstreamError::DigestMismatch));
    assert_eq!(
        upstream.get_manifest(&a, &reference("liar"), Client).await.err(),
        Some(UpstreamError::DigestMismatch)
    );
}

#[tokio::test]
async fn a_sha512_digest_is_verified_with_sha512() {
    let server = Server::start(|_| reply(200).header("docker-content-digest", digest(BODY)).body(BODY)).await;
    let (upstream, a) = (server.upstream(), repository("a"));
    let long = Digest::of(Algorithm::Sha512, BODY);
    let found = upstream.get_manifest(&a, &reference(long.as_str()), Client).await.unwrap();
    assert_eq!(found.digest, long);
    let other = Digest::of(Algorithm::Sha512, b"other");
    let refused = upstream.get_manifest(&a, &reference(other.as_str()), Client).await;
    assert_eq!(refused.err(), Some(UpstreamError::DigestMismatch));
}

#[tokio::test]
async fn a_manifest_over_the_limit_is_refused_announced_or_not() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/a/manifests/chunked" => {
            let body = format!("40\r\n{}\r\n40\r\n{}\r\n0\r\n\r\n", "x".repeat(64), "x".repeat(64));
            reply(200).header("transfer-encoding", "chunked").body(body)
        }
        _ => reply(200).body("x".repeat(101)),
    })
    .await;
    let mut config = server.config();
    config.max_manifest_bytes = 100;
    let upstream = crate::support::upstream(config);
    for tag in ["sized", "chunked"] {
        let refused = upstream.get_manifest(&repository("a"), &reference(tag), Client).await;
        assert_eq!(refused.err(), Some(UpstreamError::TooLarge), "{tag}");
    }
}

/// What one connection receives of a large manifest before the rest is sent.
const BEGINNING: usize = 1000;

#[tokio::test]
async fn concurrent_manifests_are_limited_by_the_memory_for_metadata_until_they_are_recorded() {
    const CONCURRENT: u64 = 32;
    let [size, beginning] = [MAX_MANIFEST_BYTES, BEGINNING].map(|bytes| u64::try_from(bytes).unwrap());
    let (release, is_released) = watch::channel(false);
    let body = vec![b' '; MAX_MANIFEST_BYTES];
    let server =
        Server::start(move |_| reply(200).body(&body).rest_when(BEGINNING, is_released.clone())).await;
    let counts = Arc::new(Counts::default());
    let mut config = server.config();
    (config.metadata_memory, config.answer_timeout) = (2 * size, Duration::from_mins(1));
    let upstream = Upstream::new(config, counts.clone()).unwrap();
    let (fetched, mut manifests) = mpsc::channel(32);
    for number in 0..CONCURRENT {
        let (upstream, fetched) = (upstream.clone(), fetched.clone());
        tokio::spawn(async move {
            let tag = reference(&format!("t{number}"));
            let manifest = upstream.get_manifest(&repository("a"), &tag, Client).await;
            fetched.send(manifest).await.unwrap();
        });
    }
    // All responses have begun, and two are being received.
    let has_begun = || counts.exchanges.lock().unwrap().len() >= 32;
    while !has_begun() || counts.bytes.load(Ordering::Relaxed) < 2 * beginning {
        tokio::task::yield_now().await;
    }
    upstream.head_manifest(&repository("a"), &reference("t"), Client).await.unwrap();
    assert_eq!(counts.bytes.load(Ordering::Relaxed), 2 * beginning);
    release.send_replace(true);
    for recorded in 0..CONCURRENT {
        let manifest = manifests.recv().await.unwrap().unwrap();
        let received = counts.bytes.load(Ordering::Relaxed);
        assert!(received <= (recorded + 2) * size, "{received} bytes with {recorded} recorded");
        drop(manifest);
    }
    assert_eq!(counts.bytes.load(Ordering::Relaxed), CONCURRENT * size);
}

#[tokio::test]
async fn html_or_an_empty_body_is_an_invalid_response() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/a/manifests/empty" => reply(200),
        _ => reply(200).header("content-type", "text/html; charset=utf-8").body("<html>log in</html>"),
    })
    .await;
    let (upstream, a) = (server.upstream(), repository("a"));
    for tag in ["empty", "page"] {
        let refused = upstream.get_manifest(&a, &reference(tag), Client).await;
        assert!(matches!(refused, Err(UpstreamError::InvalidResponse(_))), "{tag} {refused:?}");
    }
    let head = upstream.head_manifest(&a, &reference("page"), Client).await;
    assert!(matches!(head, Err(UpstreamError::InvalidResponse(_))), "{head:?}");
}

#[tokio::test]
async fn each_refusal_has_its_error() {
    let server = Server::start(|request| {
        let status =
            request.target.rsplit('/').next().unwrap().trim_start_matches('s').parse().unwrap_or(401);
        match status {
            200 => reply(200),
            429 => reply(status).header("retry-after", "17"),
            _ => reply(status).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        }
    })
    .await;
    let (upstream, a) = (server.upstream(), repository("a"));
    let retry_after = Some(std::time::Duration::from_secs(17));
    // A refusal of `HEAD` means something only where the upstream answers `HEAD` at all.
    let unknown = upstream.head_manifest(&a, &reference("s404"), Client).await.unwrap();
    assert_eq!(unknown, ManifestHead { digest: None, media_type: None, size: None });
    upstream.head_manifest(&a, &reference("s200"), Client).await.unwrap();
    for (tag, expected) in [
        ("s404", UpstreamError::NotFound),
        ("s403", UpstreamError::Denied),
        ("s401", UpstreamError::Denied),
        ("s429", UpstreamError::RateLimited { retry_after }),
        ("s500", UpstreamError::Server { status: 500 }),
        ("s418", UpstreamError::invalid_response("status 418")),
    ] {
        let failed = upstream.get_manifest(&a, &reference(tag), Client).await.err();
        assert_eq!(failed, Some(expected.clone()), "{tag}");
        assert_eq!(upstream.head_manifest(&a, &reference(tag), Client).await, Err(expected), "{tag}");
    }
}
