//! Requests that make no sense: the right 4xx with an OCI error body, never a panic, a 500 or a row.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use reqwest::Method;
use tidegate_tests::{chaos::ChaosUpstream, world::TestWorld};

use crate::support::*;

async fn world() -> (ChaosUpstream, TestWorld) {
    let (upstream, _) = with_image().await;
    let world = TestWorld::builder()
        .upstream("up", &upstream, ALWAYS_CHECKED)
        .namespace("", "up", "prefetch = \"none\"")
        .start()
        .await;
    (upstream, world)
}

/// Sends a path as it stands, which no HTTP library would, and returns status and body.
fn raw(world: &TestWorld, method: &str, target: &[u8]) -> (u16, String) {
    let address = world.api().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut request = format!("{method} ").into_bytes();
    request.extend_from_slice(target);
    request.extend_from_slice(b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    // Who sends far too much is cut off in the middle.
    let _ = stream.write_all(&request).is_ok();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).is_ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

fn code(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_tags_and_digests_outside_their_grammar_are_refused() {
    let (upstream, world) = world().await;
    let hex = "0".repeat(64);
    let long_name = "a/".repeat(5_000) + "a";
    let long = "a".repeat(10_240);
    let tag_of_129 = "a".repeat(129);
    let mut cases = Vec::new();
    for name in [
        "UP/x",
        "up/X",
        "up//x",
        "up/x/",
        "-up/x",
        "up/-x",
        "up/x-",
        "up/x..y",
        "up/.x",
        "up/_x",
        "up/x__-y",
        "up/..",
        "up/.",
        "up/../x",
        "up/x%20y",
        "up/x%2fy%2f",
        "up%2f%2fx",
        "up/x%00",
        "up/%00",
        "up/x%0a",
        "up/x:1",
        "up/x@1",
        "up/%c3%a9",
        "up/%ff",
        "up/x%252fy",
        "up/x?",
        &long,
        &long_name,
    ] {
        let name = name.replace('?', "%3F");
        cases.push((manifest_of(&name, "1"), "NAME_INVALID"));
        cases.push((blob_of(&name, &format!("sha256:{hex}")), "NAME_INVALID"));
        cases.push((format!("/v2/{name}/tags/list"), "NAME_INVALID"));
    }
    for tag in [
        "-1",
        ".1",
        "a%20b",
        "a%2fb",
        "..",
        "a%00",
        "%00",
        "a%0d%0a",
        "%c3%a9",
        "a+b",
        "a@b",
        &tag_of_129,
        &long,
        "",
    ] {
        cases.push((manifest(tag), "TAG_INVALID"));
    }
    for digest in [
        "sha256:",
        "sha256:123",
        &format!("sha256:{}", hex.to_uppercase().replace('0', "A")),
        &format!("sha256:{hex}0"),
        &format!("sha512:{hex}"),
        &format!("md5:{}", "0".repeat(32)),
        ":",
        &format!(":{hex}"),
        &format!("sha256:{}g", "0".repeat(63)),
        &format!("sha256:{}%00", "0".repeat(63)),
        &format!("sha256:{long}"),
        &format!("sha256:..%2f..%2f{hex}"),
    ] {
        cases.push((manifest(digest), "DIGEST_INVALID"));
        cases.push((blob(digest), "DIGEST_INVALID"));
    }
    cases.push((blob("latest"), "DIGEST_INVALID"));
    cases.push((blob(""), "DIGEST_INVALID"));
    for (path, code_expected) in &cases {
        for method in ["GET", "HEAD"] {
            let (status, body) = raw(&world, method, path.as_bytes());
            let shown = &path[..path.len().min(120)];
            // A path with dot segments is another path, and may be nothing at all.
            let expected = if path.contains("..") { [400, 404] } else { [400, 400] };
            let list = path.ends_with("/tags/list") && method == "HEAD";
            assert!(list || expected.contains(&status), "{method} {shown}: {status} {body}");
            assert!(method == "HEAD" || status == 404 || code(&body) == *code_expected, "{shown}: {body}");
        }
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_that_is_none_is_refused_and_the_service_goes_on() {
    let (upstream, world) = world().await;
    let huge = format!("/v2/{}/manifests/1", "a".repeat(1_000_000));
    for target in [
        &b"/v2/up/\x00/manifests/1"[..],
        b"/v2/up/x/manifests/\xff\xfe",
        b"/v2/up/x/manifests/%",
        b"/v2/up/x/manifests/%zz",
        b"//",
        b"*",
        b"/v2/../../etc/passwd",
        b"/../v2/up/x/manifests/1",
        b"http://elsewhere.test/v2/",
        huge.as_bytes(),
    ] {
        let (status, body) = raw(&world, "GET", target);
        let shown = String::from_utf8_lossy(&target[..target.len().min(60)]).into_owned();
        // 0: the connection was closed, which is an answer to what is no HTTP.
        assert!(matches!(status, 0 | 200 | 400..=499), "{shown}: {status} {body}");
    }
    assert!(upstream.requests().is_empty());
    assert_nothing_recorded(&world).await;
    assert_eq!(world.get("/v2/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn n_and_last_outside_their_grammar_are_refused() {
    let (upstream, world) = world().await;
    for list in ["/v2/_catalog", "/v2/up/library/x/tags/list"] {
        for query in [
            "n=",
            "n=-1",
            "n=+1",
            "n=1.5",
            "n=0x10",
            "n=abc",
            "n=1%00",
            "n=%20",
            "n=1&last=..%2f",
            "last=%00",
            "n=1e3",
            "last=a%20b",
            "n=\u{665}",
        ] {
            let answer = world.get(&format!("{list}?{query}")).await;
            assert_error(&Method::GET, &answer, 400, "PAGINATION_NUMBER_INVALID");
        }
        let long = format!("{list}?last={}", "a".repeat(10_240));
        assert_error(&Method::GET, &world.get(&long).await, 400, "PAGINATION_NUMBER_INVALID");
        for query in [
            "n=0",
            "n=00",
            "last=",
            "n=99999999999999999999999999",
            "n=1&n=x",
            "unknown=1",
            "&&=",
            "n=0&last=a",
        ] {
            let answer = world.get(&format!("{list}?{query}")).await;
            assert_eq!(answer.status, 200, "{query}: {answer:?}");
        }
    }
    assert!(upstream.requests().iter().all(|seen| !seen.query.contains("99999999999")));
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_told_as_oci_errors() {
    let (upstream, world) = world().await;
    let digest = format!("sha256:{}", "0".repeat(64));
    for path in
        ["/", "/v1/", "/v2/up/library/x", "/v2/up/library/x/manifests", "/v2/up/tags", "/api/v1/x", "/v3"]
    {
        for method in &METHODS {
            assert_error(method, &world.ask(method, path).await, 404, "UNSUPPORTED");
        }
        assert_error(&Method::GET, &world.ask(&Method::HEAD, path).await.clone(), 404, "");
    }
    let other_methods = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
    for path in [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        manifest("1"),
        blob(&digest),
        "/v2/up/library/x/tags/list".to_owned(),
        "/v2/up/library/x/blobs/uploads/".to_owned(),
        "/v2/up/library/x/referrers/x".to_owned(),
        "/api/v1/jobs".to_owned(),
        format!("/content/v1/up/library/x/blobs/{digest}"),
        "/nothing".to_owned(),
    ] {
        for method in other_methods {
            let answer = world.ask(&Method::from_bytes(method.as_bytes()).unwrap(), &path).await;
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
            assert_eq!(answer.error_code(), "UNSUPPORTED", "{method} {path}");
            assert_eq!(answer.header("allow"), "GET, HEAD", "{method} {path}");
        }
    }
    assert!(upstream.requests().is_empty());
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_admin_pages_answer_head_like_get() {
    let (_upstream, world) = world().await;
    for path in
        ["/v2/", "/v2", "/v2/_catalog", "/v2/up/library/x/tags/list", "/api/v1/jobs", "/api/v1/upstreams"]
    {
        let head = world.head(path).await;
        let get = world.get(path).await;
        assert_eq!((head.status, get.status.as_u16()), (get.status, 200), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
    assert_eq!(world.get("/v2/").await.header("docker-distribution-api-version"), "registry/2.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_make_no_sense_are_ignored_or_unsatisfiable() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    let layer = &image.layers[1];
    let (size, content) = (layer.bytes.len(), world.content_url(NAME, &layer.digest).await);
    world.send(world.client().get(&content)).await;
    world.assert_stored(&layer.digest, &layer.bytes).await;
    let long = format!("bytes=0-1{}", ",2-3".repeat(2_000));
    for range in
        ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "lines=0-1", "bytes=0-1,4-5", &long]
    {
        let answer = world.send(world.client().get(&content).header("range", range)).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, size), "{range}");
    }
    for range in [format!("bytes={size}-"), "bytes=99999999999999999999-".to_owned(), "bytes=-0".to_owned()] {
        let answer = world.send(world.client().get(&content).header("range", &range)).await;
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes */{size}"), "{range}");
    }
    for (range, expected) in
        [("bytes=0-0", 0..1), ("bytes=-1", size - 1..size), ("bytes=100-99999999", 100..size)]
    {
        let answer = world.send(world.client().get(&content).header("range", range)).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, layer.bytes.slice(expected), "{range}");
    }
    // Of a manifest there are no ranges.
    let request = world.request(Method::GET, &manifest("1")).header("range", "bytes=0-0");
    assert_image(&Method::GET, &world.send(request).await, &image);
}
