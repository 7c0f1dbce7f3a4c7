//! Upstreams that send what is no manifest: 502 for the client, a log line, and nothing stored.

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_tests::{
    chaos::{Fault, Rule},
    image::{Image, sha256},
    world::TestWorld,
};

use crate::support::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest of this image with one thing changed.
fn changed(image: &Image, change: impl FnOnce(&mut Value)) -> Bytes {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    change(&mut manifest);
    Bytes::from(manifest.to_string())
}

/// Bodies that are no manifests, with the types they are sent with.
fn bad_manifests(image: &Image) -> Vec<(&'static str, &'static str, Bytes)> {
    let of = |change: &dyn Fn(&mut Value)| changed(image, |manifest| change(manifest));
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let child = json!([{ "mediaType": MANIFEST, "digest": image.digest, "size": 1 }]);
    let first_layer =
        |field: &'static str, value: Value| changed(image, |manifest| manifest["layers"][0][field] = value);
    let large = of(&|manifest| manifest["annotations"] = json!({ "x": "x".repeat(5 * 1024 * 1024) }));
    let many: Vec<Value> = (0..10_001).map(|_| child[0].clone()).collect();
    vec![
        ("html", MANIFEST, text("<!DOCTYPE html><html>log in first</html>")),
        ("html by its type", "text/html; charset=utf-8", of(&|manifest| manifest["annotations"] = json!({}))),
        ("empty", MANIFEST, Bytes::new()),
        ("an empty object", MANIFEST, text("{}")),
        ("an array", MANIFEST, text("[]")),
        ("cut off", MANIFEST, image.manifest.slice(..image.manifest.len() / 2)),
        ("not utf-8", MANIFEST, Bytes::from_static(b"{\"schemaVersion\":2,\"mediaType\":\"\xff\"}")),
        ("5 MB", MANIFEST, large),
        ("deep", MANIFEST, Bytes::from("[".repeat(100_000))),
        ("10001 children", INDEX, Bytes::from(json!({ "schemaVersion": 2, "manifests": many }).to_string())),
        ("schema version 1", MANIFEST, of(&|manifest| manifest["schemaVersion"] = json!(1))),
        (
            "schema version 1 by its type",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            text("{\"schemaVersion\":1,\"name\":\"x\",\"tag\":\"1\",\"fsLayers\":[],\"history\":[]}"),
        ),
        ("both kinds", MANIFEST, of(&|manifest| manifest["manifests"] = child.clone())),
        ("an unknown type", "application/x-tar", of(&|manifest| drop(manifest["mediaType"].take()))),
        ("an unknown type inside", MANIFEST, of(&|manifest| manifest["mediaType"] = json!("application/x"))),
        (
            "a type that the body contradicts",
            INDEX,
            of(&|manifest| manifest["annotations"] = json!({ "a": "b" })),
        ),
        ("a layer without digest", MANIFEST, first_layer("digest", json!("sha256:123"))),
        ("a layer of another place", MANIFEST, first_layer("digest", json!("../../../../etc/passwd"))),
        ("a config that is none", MANIFEST, of(&|manifest| manifest["config"] = json!("none"))),
    ]
}

/// The answer to a request for one of [`bad_manifests`]: a manifest of another form is not supported.
fn refusal(what: &str) -> (u16, &'static str) {
    match what {
        "5 MB"
        | "10001 children"
        | "schema version 1"
        | "schema version 1 by its type"
        | "an unknown type" => (400, "MANIFEST_INVALID"),
        _ => (502, "UNKNOWN"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_manifest_is_a_bad_gateway_and_is_not_stored() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for (number, (what, media_type, body)) in bad_manifests(&image).into_iter().enumerate() {
        let tag = format!("bad-{number}");
        let digest = upstream.put_manifest(UPSTREAM_NAME, &tag, media_type, body);
        for reference in [&tag, &digest] {
            let answer = world.get(&manifest(reference)).await;
            assert_error(&Method::GET, &answer, refusal(what).0, refusal(what).1);
        }
        assert_error(&Method::HEAD, &world.head(&manifest(&digest)).await, refusal(what).0, refusal(what).1);
    }
    assert_nothing_recorded(&world).await;
    assert_eq!(world.stored_files().len(), 0);
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_manifest_leaves_the_copy_in_place() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    world.get(&manifest("1")).await;
    for (what, media_type, body) in bad_manifests(&image) {
        upstream.put_manifest(UPSTREAM_NAME, "1", media_type, body);
        let answer = world.get(&manifest("1")).await;
        assert_eq!(answer.status, 200, "{what}");
        assert_image(&Method::GET, &answer, &image);
        let detail = format!("detail=stale-upstream-{}", refusal(what).0);
        assert!(answer.header("cache-status").contains(&detail), "{what} {answer:?}");
    }
    assert_eq!((world.rows("manifests"), world.rows("tag_moves")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_make_no_sense_are_a_bad_gateway_or_not_believed() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    let header = |name: &str, value: &str| Fault::ExtraHeaders(vec![(name.to_owned(), value.to_owned())]);
    // A digest that is none is as good as no digest: the bytes tell.
    for value in ["nonsense", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        upstream.on(Rule::on("*", "/manifests/").then(header("Docker-Content-Digest", value)));
        assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
        upstream.clear_rules();
    }
    // A digest of other content contradicts the bytes, by digest and by tag.
    let other = Image::random(2, &[10]);
    upstream.put_image(UPSTREAM_NAME, "2", &other);
    upstream.on(Rule::on("*", "/manifests/2").then(header("Docker-Content-Digest", &sha256(b"else"))));
    assert_error(&Method::GET, &world.get(&manifest("2")).await, 502, "UNKNOWN");
    upstream.on(Rule::on("*", &other.digest).then(header("Docker-Content-Digest", &sha256(b"else"))));
    assert_error(&Method::GET, &world.get(&manifest(&other.digest)).await, 502, "UNKNOWN");
    assert_eq!(world.rows("manifests"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_breaks_off_is_fetched_again_or_a_bad_gateway() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for fault in [Fault::CutAfter(100), Fault::ResetAfter(100), Fault::WrongLength(100_000)] {
        upstream.clear_rules();
        upstream.on(Rule::on("GET", "/manifests/").then(fault));
        let answer = world.get(&manifest("1")).await;
        assert_error(&Method::GET, &answer, 502, "UNKNOWN");
    }
    upstream.clear_rules();
    upstream.on(Rule::on("GET", "/manifests/").then(Fault::StallForever(100)));
    assert_error(&Method::GET, &world.get(&manifest("1")).await, 504, "UNAVAILABLE");
    assert_nothing_recorded(&world).await;
    upstream.clear_rules();
    upstream.on(Rule::on("GET", "/manifests/").times(1).then(Fault::CutAfter(100)));
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_layers_are_passed_on_and_their_urls_never_fetched() {
    let (upstream, image) = with_image().await;
    let (elsewhere, _) = with_image().await;
    let body = changed(&image, |manifest| {
        manifest["layers"][0]["mediaType"] =
            json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        manifest["layers"][0]["urls"] = json!([format!("{}/layer", elsewhere.url())]);
    });
    let digest = upstream.put_manifest(UPSTREAM_NAME, "1", MANIFEST, body.clone());
    let world = TestWorld::builder()
        .bare_upstream("up", &upstream.url(), "")
        .namespace("up", "up", "prefetch = \"all\"")
        .start()
        .await;
    assert_manifest(&Method::GET, &world.get(&manifest("1")).await, &body, &digest, MANIFEST);
    world.assert_stored(&image.config.0, &image.config.1).await;
    world.assert_stored(&image.layers[1].digest, &image.layers[1].bytes).await;
    assert_eq!(upstream.count("*", &image.layers[0].digest), 0);
    assert!(elsewhere.requests().is_empty());
}
