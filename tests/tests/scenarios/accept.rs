//! Content types and conditions: `Accept`, `If-None-Match`, and the headers that `HEAD` shares with `GET`.

use reqwest::{Method, StatusCode};
use tidegate_tests::{
    chaos::ChaosUpstream,
    image::{Format, Image, Index},
    world::TestWorld,
};

use crate::support::*;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[tokio::test(flavor = "multi_thread")]
async fn accept_is_honoured_with_weights_and_wildcards() {
    let upstream = ChaosUpstream::start().await;
    let index = Index::of(&[&Image::random(1, &[10])]);
    upstream.put_index(UPSTREAM_NAME, "1", &index);
    let world = TestWorld::start(&upstream).await;
    for (accept, served) in [
        (&[][..], true),
        (&["*/*"], true),
        (&["application/*"], true),
        (&[INDEX], true),
        (&["APPLICATION/VND.OCI.IMAGE.INDEX.V1+JSON; q=0.1"], true),
        (&[&format!("{LIST}, {INDEX};q=0.5, */*;q=0.1")], true),
        (&[LIST, INDEX], true),
        // What the client did not list is served when there is nothing else, as real registries do.
        (&[LIST], true),
        (&["text/html;q=0.3"], true),
        (&[""], true),
        (&[",;,=;q"], true),
        (&[&"x/y,".repeat(1_000)], true),
        (&[&format!("{INDEX};q=0")], false),
        (&[&format!("{INDEX};q=0.000, */*")], false),
        (&[&format!("*/*;q=0, {INDEX}")], true),
        (&["*/*;q=0"], false),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let mut request = world.request(method.clone(), &manifest("1"));
            for value in accept {
                request = request.header("accept", *value);
            }
            let answer = world.send(request).await;
            if served {
                assert_manifest(&method, &answer, &index.manifest, &index.digest, INDEX);
            } else {
                assert_error(&method, &answer, 406, "UNSUPPORTED");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_that_is_no_text_is_ignored() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let request = world.request(Method::GET, &manifest("1")).header("accept", &b"application/\xff\xfe"[..]);
    assert_image(&Method::GET, &world.send(request).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_exactly_the_headers_of_get() {
    for format in [Format::Oci, Format::Docker] {
        let upstream = ChaosUpstream::start().await;
        let image = Image::builder(1).format(format).random_layer(10).build();
        upstream.put_image(UPSTREAM_NAME, "1", &image);
        let world = TestWorld::start(&upstream).await;
        world.get(&manifest("1")).await;
        for reference in ["1", &image.digest] {
            let mut answers = Vec::new();
            for method in &METHODS {
                let mut answer = world.ask(method, &manifest(reference)).await;
                assert_image(method, &answer, &image);
                for varying in ["date", "x-request-id"] {
                    assert!(answer.headers.remove(varying).is_some(), "{varying}");
                }
                // The ttl of the one may be a second more than that of the other.
                let cached = answer.headers.remove("cache-status").unwrap();
                assert!(cached.to_str().unwrap().starts_with("tidegate; hit"));
                answers.push(answer.headers);
            }
            assert_eq!(answers[0], answers[1]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_to_head_has_the_headers_of_the_later_ones() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let mut headers = Vec::new();
    for _ in 0..2 {
        let mut answer = world.head(&manifest("1")).await;
        for varying in ["date", "x-request-id", "cache-status"] {
            assert!(answer.headers.remove(varying).is_some(), "{varying}");
        }
        headers.push(answer.headers);
    }
    assert_eq!(headers[0], headers[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_the_client_has_is_not_sent_again() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let etag = format!("\"{}\"", image.digest);
    let old = format!("\"{}\"", image.config.0);
    for reference in ["1", &image.digest] {
        for method in &METHODS {
            // A proxy that compresses weakens the tag (RFC 9110, section 8.8.1).
            let [weak, list, weak_list] =
                [format!("W/{etag}"), format!("{old}, {etag}"), format!("W/{old}, W/{etag}")];
            for (condition, status) in [
                (etag.as_str(), 304),
                (&weak, 304),
                (&list, 304),
                (&weak_list, 304),
                ("*", 304),
                (&old, 200),
                (&format!("W/{old}"), 200),
            ] {
                let request = world.request(method.clone(), &manifest(reference));
                let answer = world.send(request.header("if-none-match", condition)).await;
                assert_eq!(answer.status.as_u16(), status, "{condition}");
                assert_eq!(answer.header("etag"), etag);
                assert_eq!(answer.header("docker-content-digest"), image.digest);
                assert!(answer.status == StatusCode::OK || answer.body.is_empty());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_client_has_is_not_sent_again() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    let url = world.content_url(NAME, &image.config.0).await;
    let etag = world.send(world.client().get(&url)).await.header("etag").to_owned();
    assert!(!etag.is_empty());
    for (condition, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"x\", W/{etag}"), 304),
        ("\"x\"".into(), 200),
    ] {
        let request = world.client().get(&url).header("if-none-match", condition.as_str());
        assert_eq!(world.send(request).await.status, status, "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_of_upstream_reaches_a_client() {
    use tidegate_tests::chaos::{Fault, Rule};
    let (upstream, image) = with_image().await;
    let names = ["set-cookie", "server", "www-authenticate", "x-upstream", "ratelimit-remaining"];
    let headers = names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
    upstream.on(Rule::on("*", "").then(Fault::ExtraHeaders(headers)));
    let world = TestWorld::start(&upstream).await;
    let answers = [
        world.head(&manifest("1")).await,
        world.get(&manifest("1")).await,
        world.get(&manifest("2")).await,
        world.head(&blob(&image.config.0)).await,
        world.blob(NAME, &image.config.0).await,
        world.get("/v2/up/library/x/tags/list").await,
    ];
    for answer in answers {
        for name in names {
            assert_eq!(answer.header(name), "", "{answer:?}");
        }
        assert_eq!(answer.header("content-encoding"), "");
    }
}
