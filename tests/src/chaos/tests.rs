//! The chaos upstream keeps its word, also the bad ones.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use reqwest::{RequestBuilder, Response, StatusCode};

use super::{ChaosUpstream, Fault, Rule};
use crate::assert_eventually;
use crate::http_client::http_client;
use crate::image::{Image, Index, random_bytes, sha256};

const SIZE: usize = 300_000;

/// An upstream with one blob.
async fn with_blob() -> (ChaosUpstream, String, Bytes) {
    let upstream = ChaosUpstream::start().await;
    let bytes = random_bytes(1, SIZE);
    let digest = sha256(&bytes);
    upstream.put_blob("library/x", &digest, bytes.clone());
    (upstream, digest, bytes)
}

fn get(upstream: &ChaosUpstream, path: &str) -> RequestBuilder {
    http_client().get(format!("{}{path}", upstream.url()))
}

async fn get_blob(upstream: &ChaosUpstream, digest: &str) -> Response {
    get(upstream, &format!("/v2/library/x/blobs/{digest}")).send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// How many bytes came before the body broke, and whether it did break.
async fn bytes_until_break(answer: Response) -> (usize, bool) {
    let (mut stream, mut count) = (answer.bytes_stream(), 0);
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => count += chunk.len(),
            Err(_) => return (count, true),
        }
    }
    (count, false)
}

#[tokio::test]
async fn an_image_is_served_by_tag_and_by_digest() {
    let upstream = ChaosUpstream::start().await;
    let index = Index::of_indexes(&[&Index::of(&[&Image::random(1, &[10]), &Image::random(2, &[20])])]);
    upstream.put_index("library/x", "1", &index);
    for digest in [&index.digest, &index.indexes[0].digest, &index.indexes[0].images[1].digest] {
        let answer = get(&upstream, &format!("/v2/library/x/manifests/{digest}")).send().await.unwrap();
        assert_eq!(header(&answer, "docker-content-digest"), digest);
        assert_eq!(sha256(&answer.bytes().await.unwrap()), *digest);
    }
    let head = http_client().head(format!("{}/v2/library/x/manifests/1", upstream.url()));
    let head = head.send().await.unwrap();
    assert_eq!(header(&head, "docker-content-digest"), index.digest);
    assert_eq!(header(&head, "content-type"), index.media_type);
    assert_eq!(header(&head, "content-length"), index.manifest.len().to_string());
    assert_eq!((upstream.count("GET", "/manifests/"), upstream.count("*", "/manifests/1")), (3, 1));
    upstream.delete_tag("library/x", "1");
    let gone = get(&upstream, "/v2/library/x/manifests/1").send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    assert!(gone.text().await.unwrap().contains("MANIFEST_UNKNOWN"));
    upstream.delete_repo("library/x");
    let gone = get(&upstream, "/v2/library/x/tags/list").send().await.unwrap();
    assert!(gone.text().await.unwrap().contains("NAME_UNKNOWN"));
}

#[tokio::test]
async fn blobs_have_ranges_and_conditions() {
    let (upstream, digest, bytes) = with_blob().await;
    let path = format!("/v2/library/x/blobs/{digest}");
    let ranged = |range: &str| get(&upstream, &path).header("range", range.to_owned());
    let part = ranged("bytes=100000-199999").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&part, "content-range"), format!("bytes 100000-199999/{SIZE}"));
    let etag = header(&part, "etag").to_owned();
    assert_eq!(part.bytes().await.unwrap(), bytes[100_000..200_000]);
    assert_eq!(upstream.blob_bytes(&digest), 100_000);
    let beyond = ranged("bytes=300000-").send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&beyond, "content-range"), format!("bytes */{SIZE}"));
    let same = ranged("bytes=1-").header("if-range", &etag).send().await.unwrap();
    assert_eq!(same.status(), StatusCode::PARTIAL_CONTENT);
    let other = ranged("bytes=1-").header("if-range", "\"other\"").send().await.unwrap();
    assert_eq!((other.status(), other.content_length()), (StatusCode::OK, Some(300_000)));
    let unchanged = get(&upstream, &path).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    upstream.on(Rule::on("GET", "/blobs/").times(1).then(Fault::ChangeEtag));
    let changed = ranged("bytes=1-").header("if-range", &etag).send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    upstream.on(Rule::on("GET", "/blobs/").times(1).then(Fault::IgnoreRange));
    assert_eq!(ranged("bytes=1-").send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_is_cut_exactly_where_told() {
    let (upstream, digest, _) = with_blob().await;
    for at in [0, 1, 65_536, 200_001] {
        upstream.clear_requests();
        upstream.on(Rule::on("GET", &digest).times(1).then(Fault::CutAfter(at)));
        let answer = get_blob(&upstream, &digest).await;
        assert_eq!(answer.content_length(), Some(300_000));
        assert_eq!(bytes_until_break(answer).await, (usize::try_from(at).unwrap(), true));
        assert_eq!(upstream.blob_bytes(&digest), at);
    }
    upstream.on(Rule::on("GET", &digest).times(1).then(Fault::ResetAfter(5000)));
    assert_eq!(bytes_until_break(get_blob(&upstream, &digest).await).await, (5000, true));
    upstream.on(Rule::on("GET", &digest).times(1).then(Fault::DropConnection));
    let dropped = get(&upstream, &format!("/v2/library/x/blobs/{digest}")).send().await;
    assert!(dropped.is_err());
    assert_eq!(bytes_until_break(get_blob(&upstream, &digest).await).await, (SIZE, false));
}

#[tokio::test]
async fn content_is_spoilt_as_told() {
    let (upstream, digest, bytes) = with_blob().await;
    let spoilt = async |fault| {
        upstream.on(Rule::on("GET", &digest).times(1).then(fault));
        get_blob(&upstream, &digest).await
    };
    let wrong = spoilt(Fault::WrongByteAt(299_999)).await.bytes().await.unwrap();
    assert_eq!(wrong[..299_999], bytes[..299_999]);
    assert_eq!(wrong[299_999], !bytes[299_999]);
    let longer = spoilt(Fault::LongerBy(100_000)).await;
    assert_eq!(longer.content_length(), Some(400_000));
    assert_eq!(longer.bytes().await.unwrap().len(), 400_000);
    assert_eq!(spoilt(Fault::ShorterBy(1)).await.bytes().await.unwrap(), bytes[..299_999]);
    assert_eq!(bytes_until_break(spoilt(Fault::WrongLength(300_001)).await).await, (SIZE, true));
    assert_eq!(bytes_until_break(spoilt(Fault::WrongLength(299_999)).await).await, (SIZE - 1, false));
    let chunked = spoilt(Fault::NoContentLength).await;
    assert_eq!(chunked.content_length(), None);
    assert_eq!(chunked.bytes().await.unwrap(), bytes);
    let swapped = spoilt(Fault::SwapBody(Bytes::from_static(b"<html>"), "text/html".into())).await;
    assert_eq!(
        (header(&swapped, "docker-content-digest"), header(&swapped, "content-type")),
        (&*digest, "text/html")
    );
    assert_eq!(swapped.text().await.unwrap(), "<html>");
}

#[tokio::test]
async fn headers_and_statuses_are_as_told() {
    let (upstream, digest, _) = with_blob().await;
    let status = Fault::Status(503, vec![("Retry-After".into(), "7".into())], Bytes::from_static(b"later"));
    upstream.on(Rule::on("GET", &digest).times(1).then(status));
    let later = get_blob(&upstream, &digest).await;
    assert_eq!((later.status().as_u16(), header(&later, "retry-after")), (503, "7"));
    assert_eq!(later.text().await.unwrap(), "later");
    upstream.put_file("/cdn/blob", Bytes::from_static(b"from the network"));
    upstream.on(Rule::on("*", &digest).times(1).then(Fault::RedirectTo("/cdn/blob?sig=1".into())));
    let redirect = get_blob(&upstream, &digest).await;
    assert_eq!((redirect.status().as_u16(), header(&redirect, "location")), (307, "/cdn/blob?sig=1"));
    let file = get(&upstream, "/cdn/blob?sig=1").send().await.unwrap();
    assert_eq!(file.text().await.unwrap(), "from the network");
    upstream.on(Rule::on("*", &digest)
        .then(Fault::HeadNotAllowed)
        .then(Fault::NoDigestHeader)
        .then(Fault::ExtraHeaders(vec![("content-type".into(), "text/odd".into())])));
    let head = http_client().head(format!("{}/v2/library/x/blobs/{digest}", upstream.url()));
    assert_eq!(head.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let answer = get_blob(&upstream, &digest).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!((header(&answer, "docker-content-digest"), header(&answer, "content-type")), ("", "text/odd"));
}

#[tokio::test]
async fn a_body_stalls_drips_and_waits() {
    let (upstream, digest, _) = with_blob().await;
    let third = Duration::from_millis(300);
    for fault in
        [Fault::Delay(third), Fault::StallAfter(1000, third), Fault::Throttle { bytes_per_second: 1_000_000 }]
    {
        let name = format!("{fault:?}");
        upstream.on(Rule::on("GET", &digest).times(1).then(fault));
        let started = Instant::now();
        assert_eq!(get_blob(&upstream, &digest).await.bytes().await.unwrap().len(), SIZE);
        assert!(started.elapsed() >= Duration::from_millis(250), "{name}: {:?}", started.elapsed());
    }
    upstream.on(Rule::on("GET", &digest).times(1).then(Fault::StallForever(1000)));
    let mut stalled = get_blob(&upstream, &digest).await;
    assert_eq!(stalled.chunk().await.unwrap().unwrap().len(), 1000);
    assert_eq!(upstream.blob_bytes(&digest), 901_000);
    assert!(tokio::time::timeout(third, stalled.chunk()).await.is_err());
    drop(stalled);
    assert_eventually!(upstream.connections() == 0, "a client that leaves ends its stalled answer");
}

#[tokio::test]
async fn tags_come_in_pages() {
    let upstream = ChaosUpstream::start().await;
    for tag in ["b", "a", "c", "B"] {
        upstream.put_manifest("x", tag, "application/json", Bytes::from_static(b"{}"));
    }
    let first = get(&upstream, "/v2/x/tags/list?n=2").send().await.unwrap();
    assert_eq!(header(&first, "link"), "</v2/x/tags/list?n=2&last=a>; rel=\"next\"");
    assert_eq!(first.text().await.unwrap(), r#"{"name":"x","tags":["B","a"]}"#);
    let second = get(&upstream, "/v2/x/tags/list?n=2&last=a").send().await.unwrap();
    assert_eq!(header(&second, "link"), "");
    assert_eq!(second.text().await.unwrap(), r#"{"name":"x","tags":["b","c"]}"#);
}

#[tokio::test]
async fn a_bearer_token_is_asked_for_checked_and_counted() {
    let issuer = ChaosUpstream::builder().bearer("robot", "secret").start().await;
    let realm = format!("{}/token", issuer.url());
    let upstream = ChaosUpstream::builder()
        .bearer("robot", "secret")
        .realm_override(&realm)
        .tokens_of(&issuer)
        .start()
        .await;
    upstream.put_image("a/b", "1", &Image::random(1, &[10]));
    let manifest = || get(&upstream, "/v2/a/b/manifests/1");
    let refused = manifest().send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let challenge = format!("Bearer realm=\"{realm}\",service=\"chaos\",scope=\"repository:a/b:pull\"");
    assert_eq!(header(&refused, "www-authenticate"), challenge);
    let path = "/token?service=chaos&scope=repository:a/b:pull";
    let wrong = get(&issuer, path).basic_auth("robot", Some("guess")).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let right = get(&issuer, path).basic_auth("robot", Some("secret")).send().await.unwrap();
    let token: serde_json::Value = serde_json::from_str(&right.text().await.unwrap()).unwrap();
    let token = token["token"].as_str().unwrap().to_owned();
    assert_eq!(manifest().bearer_auth(&token).send().await.unwrap().status(), StatusCode::OK);
    let other = get(&upstream, "/v2/a/c/tags/list").bearer_auth(&token).send().await.unwrap();
    assert!(header(&other, "www-authenticate").ends_with(",error=\"insufficient_scope\""));
    upstream.revoke_tokens();
    let revoked = manifest().bearer_auth(&token).send().await.unwrap();
    assert!(header(&revoked, "www-authenticate").ends_with(",error=\"invalid_token\""));
    assert_eq!((issuer.token_requests(), upstream.token_requests()), (2, 0));
}

#[tokio::test]
async fn basic_credentials_and_anonymous_tokens_work() {
    let basic = ChaosUpstream::builder().basic("robot", "se:cret").start().await;
    assert_eq!(get(&basic, "/v2/").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let right = get(&basic, "/v2/").basic_auth("robot", Some("se:cret")).send().await.unwrap();
    assert_eq!(right.status(), StatusCode::OK);
    let open = ChaosUpstream::builder().anonymous_bearer().expires_in(0).start().await;
    let answer = get(&open, "/token?scope=repository:a:pull").send().await.unwrap();
    let token: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let expired = get(&open, "/v2/").bearer_auth(token["token"].as_str().unwrap()).send().await.unwrap();
    assert!(header(&expired, "www-authenticate").ends_with(",error=\"invalid_token\""));
}

#[tokio::test]
async fn a_quota_counts_manifests_that_are_got() {
    let upstream = ChaosUpstream::start().await;
    upstream.put_image("x", "1", &Image::random(1, &[10]));
    upstream.set_rate_limit(100, 1);
    let url = format!("{}/v2/x/manifests/1", upstream.url());
    for (method, status, remaining) in [("HEAD", 200, 1), ("GET", 200, 0), ("GET", 429, 0), ("HEAD", 200, 0)]
    {
        let answer = http_client().request(method.parse().unwrap(), &url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(header(&answer, "ratelimit-remaining"), format!("{remaining};w=21600"));
    }
}

#[tokio::test]
async fn a_stopped_upstream_refuses_and_comes_back_on_its_port() {
    let (upstream, digest, bytes) = with_blob().await;
    upstream.on(Rule::on("GET", &digest).times(1).then(Fault::StallForever(10)));
    let open = get_blob(&upstream, &digest).await;
    upstream.stop();
    assert_eq!(bytes_until_break(open).await, (10, true));
    let refused = get(&upstream, "/v2/").send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    upstream.stop();
    upstream.restart().await;
    assert_eq!(get_blob(&upstream, &digest).await.bytes().await.unwrap(), bytes);
    upstream.restart().await;
    assert_eq!(get_blob(&upstream, &digest).await.bytes().await.unwrap(), bytes);
}
