use std::sync::{Arc, atomic::Ordering};

use futures::StreamExt;
use upstream_client::{
    BlobBody, BlobHead, BlobRange,
    FirstByteLimit::{Full, Short},
    Priority::Client,
    Upstream, UpstreamError,
};

use crate::support::{
    Counts, Reply, Request, Server, advance, collect, digest, reply, repository, silence, time_out,
};

const BLOB: &[u8] = b"0123456789";

/// Serves [`BLOB`] as a server that supports ranges does.
fn ranged(request: &Request) -> Reply {
    let respond = |status| reply(status).header("etag", "\"v1\"");
    let Some(range) = request.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
        return respond(200).body(BLOB);
    };
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(BLOB.len() - 1).min(BLOB.len() - 1);
    if first >= BLOB.len() {
        return respond(416).header("content-range", "bytes */10");
    }
    respond(206).header("content-range", format!("bytes {first}-{last}/10")).body(&BLOB[first..=last])
}

async fn open(upstream: &Upstream, start: u64, end: Option<u64>) -> Result<BlobBody, UpstreamError> {
    let range = BlobRange { start, end };
    upstream.open_blob(&repository("a"), &digest(BLOB), range, Full, Client).await
}

#[tokio::test]
async fn a_whole_blob_is_requested_without_a_range_and_unencoded() {
    let server = Server::start(ranged).await;
    let counts = Arc::new(Counts::default());
    let upstream = Upstream::new(server.config(), counts.clone()).unwrap();
    let body = open(&upstream, 0, None).await.unwrap();
    assert_eq!((body.start, body.size, body.length), (0, Some(10), Some(10)));
    assert_eq!(collect(body).await, (BLOB.to_vec(), None));
    let request = server.requests().remove(0);
    assert_eq!(request.target, format!("/v2/a/blobs/{}", digest(BLOB)));
    assert_eq!((request.header("range"), request.header("accept-encoding")), (None, Some("identity")));
    assert_eq!(counts.bytes.load(Ordering::Relaxed), 10);
    assert_eq!(*counts.exchanges.lock().unwrap(), [("GET".to_owned(), 200)]);
}

#[tokio::test]
async fn a_range_of_a_blob_begins_at_the_requested_offset() {
    let server = Server::start(ranged).await;
    let upstream = server.upstream();
    for (from, to, range, bytes) in [
        (4, None, "bytes=4-", "456789"),
        (4, Some(6), "bytes=4-5", "45"),
        (0, Some(3), "bytes=0-2", "012"),
        (8, Some(99), "bytes=8-98", "89"),
    ] {
        let body = open(&upstream, from, to).await.unwrap();
        assert_eq!((body.start, body.size, body.length), (from, Some(10), bytes.len().try_into().ok()));
        assert_eq!(collect(body).await, (bytes.as_bytes().to_vec(), None));
        assert_eq!(server.requests().last().unwrap().header("range"), Some(range));
    }
    assert_eq!(open(&upstream, 10, None).await.unwrap_err(), UpstreamError::RangeNotSatisfiable);
    assert_eq!(open(&upstream, 5, Some(5)).await.unwrap_err(), UpstreamError::RangeNotSatisfiable);
}

#[tokio::test]
async fn a_broken_download_is_resumed_by_range() {
    let server = Server::start(|request| match request.header("range") {
        None => ranged(request).cut_after(6),
        Some(_) => ranged(request),
    })
    .await;
    let (upstream, a) = (server.upstream(), repository("a"));
    let body = open(&upstream, 0, None).await.unwrap();
    let (first, error) = collect(body).await;
    assert_eq!(first, b"012345");
    assert!(matches!(error, Some(UpstreamError::Unreachable(_))), "{error:?}");
    let from_6 = BlobRange { start: 6, end: None };
    let rest = upstream.open_blob(&a, &digest(BLOB), from_6, Full, Client).await.unwrap();
    assert_eq!(rest.start, 6);
    assert_eq!(collect(rest).await.0, b"6789");
    // An entity tag may differ between the servers of one name: the digest decides.
    assert_eq!(server.requests()[1].header("if-range"), None);
}

#[tokio::test]
async fn an_upstream_that_ignores_ranges_sends_from_the_start() {
    let server = Server::start(|_| reply(200).header("etag", "W/\"weak\"").body(BLOB)).await;
    let body = open(&server.upstream(), 4, Some(6)).await.unwrap();
    assert_eq!((body.start, body.size), (0, Some(10)));
    assert_eq!(collect(body).await.0, BLOB);
}

#[tokio::test]
async fn a_range_that_was_not_requested_is_an_invalid_response() {
    for content_range in ["bytes 3-9/10", "bytes 5-9/10", "bytes 4-7/10", "nonsense"] {
        let server =
            Server::start(move |_| reply(206).header("content-range", content_range).body(BLOB)).await;
        let refused = open(&server.upstream(), 4, Some(6)).await.unwrap_err();
        assert!(matches!(refused, UpstreamError::InvalidResponse(_)), "{content_range}");
        let refused = open(&server.upstream(), 0, None).await.unwrap_err();
        assert!(matches!(refused, UpstreamError::InvalidResponse(_)), "{content_range}");
    }
}

#[tokio::test]
async fn a_body_whose_length_differs_from_its_range_is_an_error() {
    for (chunk, early) in [("45", true), ("456789", false)] {
        let server = Server::start(move |_| {
            reply(206)
                .header("content-range", "bytes 4-7/10")
                .header("transfer-encoding", "chunked")
                .body(format!("{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len()))
        })
        .await;
        let (bytes, error) = collect(open(&server.upstream(), 4, Some(8)).await.unwrap()).await;
        assert!(bytes.len() < 4);
        match error {
            Some(error @ UpstreamError::Unreachable(_)) if early => {
                assert!(error.to_string().ends_with("2 bytes early"));
            }
            Some(UpstreamError::InvalidResponse(_)) if !early => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_a_timeout() {
    let server = Server::start(|_| reply(200).body(BLOB).stall_after(5)).await;
    let config = server.config();
    let read_timeout = config.read_timeout;
    let mut body = open(&crate::support::upstream(config), 0, None).await.unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < 5 {
        bytes.extend_from_slice(&body.stream.next().await.unwrap().unwrap());
    }
    let (next, elapsed) = time_out(&server, 1, body.stream.next()).await;
    assert_eq!((bytes.as_slice(), next), (&BLOB[..5], Some(Err(UpstreamError::Timeout))));
    assert!(elapsed > read_timeout / 2, "{elapsed:?}");
}

#[tokio::test]
async fn a_slow_reader_is_not_a_timeout() {
    let server = Server::start(ranged).await;
    let config = server.config();
    let read_timeout = config.read_timeout;
    let body = open(&crate::support::upstream(config), 1, None).await.unwrap();
    advance(2 * read_timeout).await;
    assert_eq!(collect(body).await, (BLOB[1..].to_vec(), None));
}

#[tokio::test]
async fn no_response_for_a_blob_is_a_timeout() {
    for first_byte in [Full, Short] {
        let server = Server::start(|_| silence()).await;
        let (upstream, name, blob) = (server.upstream(), repository("a"), digest(BLOB));
        let opening = upstream.open_blob(&name, &blob, BlobRange::default(), first_byte, Client);
        let (opened, elapsed) = time_out(&server, 1, opening).await;
        assert_eq!(opened.unwrap_err(), UpstreamError::Timeout);
        let (first_byte_timeout, read_timeout) =
            (server.config().first_byte_timeout, server.config().read_timeout);
        let limit = if first_byte == Full { first_byte_timeout } else { read_timeout };
        assert!(elapsed > limit / 2 && elapsed < limit * 2, "{elapsed:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn no_response_of_the_token_service_for_a_blob_is_an_early_timeout() {
    let server = Server::start(|request| {
        let realm = format!("http://{}/token", request.header("host").unwrap());
        match request.target.as_str() {
            target if target.starts_with("/token") => silence(),
            _ => reply(401).header("www-authenticate", format!("Bearer realm=\"{realm}\"")),
        }
    })
    .await;
    let upstream = server.upstream();
    let (opened, elapsed) = time_out(&server, 2, open(&upstream, 0, None)).await;
    assert_eq!(opened.unwrap_err(), UpstreamError::Timeout);
    assert!(elapsed < 2 * server.config().read_timeout, "{elapsed:?}");
}

#[tokio::test]
async fn the_head_of_a_blob_has_its_size() {
    let server = Server::start(|request| match request.target.contains("absent") {
        true => reply(404),
        false => reply(200).header("content-length", "12345678901"),
    })
    .await;
    let upstream = server.upstream();
    let found = upstream.head_blob(&repository("a"), &digest(BLOB), Client).await;
    assert_eq!(found, Ok(BlobHead { size: Some(12_345_678_901) }));
    let absent = upstream.head_blob(&repository("absent"), &digest(BLOB), Client).await;
    assert_eq!(absent, Err(UpstreamError::NotFound));
}

#[tokio::test]
async fn where_head_is_refused_the_size_comes_with_one_byte() {
    for status in [400, 405, 501] {
        let server = Server::start(move |request| match (request.method.as_str(), request.target.as_str()) {
            ("HEAD", _) => reply(status),
            (_, target) if target.starts_with("/v2/whole/") => reply(200).body(BLOB),
            (_, target) if target.starts_with("/v2/empty/") => {
                reply(416).header("content-range", "bytes */0")
            }
            (_, target) if target.starts_with("/v2/absent/") => reply(404),
            _ => ranged(request),
        })
        .await;
        let upstream = server.upstream();
        let size = async |name: &str| upstream.head_blob(&repository(name), &digest(BLOB), Client).await;
        assert_eq!(size("ranged").await, Ok(BlobHead { size: Some(10) }));
        assert_eq!(server.requests()[1].header("range"), Some("bytes=0-0"));
        assert_eq!(size("whole").await, Ok(BlobHead { size: Some(10) }));
        assert_eq!(size("empty").await, Ok(BlobHead { size: Some(0) }));
        assert_eq!(size("absent").await, Err(UpstreamError::NotFound));
    }
}

#[tokio::test]
async fn html_is_not_a_blob_unless_it_declares_the_digest() {
    let page = |status| reply(status).header("content-type", "text/html; charset=utf-8").body("<html>");
    let head =
        async |server: &Server| server.upstream().head_blob(&repository("a"), &digest(BLOB), Client).await;
    let refused = UpstreamError::invalid_response("a web page (HTML) instead of a blob");
    let portal = Server::start(move |_| page(200)).await;
    assert_eq!(head(&portal).await, Err(refused.clone()));
    let to_get = move |request: &Request| if request.method == "HEAD" { reply(405) } else { page(200) };
    assert_eq!(head(&Server::start(to_get).await).await, Err(refused));
    let named =
        Server::start(move |_| page(200).header("docker-content-digest", digest(BLOB).to_string())).await;
    assert_eq!(head(&named).await, Ok(BlobHead { size: Some(6) }));
    let missing = Server::start(move |_| page(404)).await;
    assert_eq!(head(&missing).await, Err(UpstreamError::NotFound));
}
