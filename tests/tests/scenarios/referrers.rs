//! Referrers: signatures and SBOMs that name a manifest as their subject (distribution-spec: "Listing Referrers").

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_tests::{
    chaos::{ChaosUpstream, Fault, Rule},
    image::{Image, sha256},
    world::{Answer, TestWorld},
};

use crate::support::*;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SIGNATURE: &str = "application/vnd.example.signature";
const SBOM: &str = "application/vnd.example.sbom+json";

fn path(digest: &str) -> String {
    format!("/v2/{NAME}/referrers/{digest}")
}

/// A manifest of this artifact type that refers to an image.
fn referrer(image: &Image, artifact_type: &str, number: u32) -> Bytes {
    let empty =
        json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2 });
    let subject =
        json!({ "mediaType": image.media_type, "digest": image.digest, "size": image.manifest.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty,
        "layers": [empty],
        "subject": subject,
        "annotations": { "number": number.to_string() },
    });
    Bytes::from(manifest.to_string())
}

/// Three signatures and an SBOM of an image; their digests.
fn put_referrers(upstream: &ChaosUpstream, image: &Image) -> Vec<String> {
    upstream.put_blob(UPSTREAM_NAME, &sha256(b"{}"), Bytes::from_static(b"{}"));
    let types = [SIGNATURE, SIGNATURE, SBOM, SIGNATURE];
    let referrers = (0..).zip(types).map(|(number, artifact_type)| {
        let body = referrer(image, artifact_type, number);
        let digest = sha256(&body);
        upstream.put_manifest(UPSTREAM_NAME, &digest, OCI_MANIFEST, body);
        digest
    });
    referrers.collect()
}

/// The digests in an image index, sorted.
fn digests(answer: &Answer) -> Vec<String> {
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, OCI_INDEX), "{answer:?}");
    let index: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    let mut digests: Vec<_> = index["manifests"].as_array().unwrap().iter().map(digest).collect();
    digests.sort();
    digests
}

fn sorted(digests: &[String]) -> Vec<String> {
    let mut digests = digests.to_vec();
    digests.sort();
    digests
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_come_from_the_api_of_the_upstream_with_all_pages_and_are_cached() {
    let (upstream, image) = with_image().await;
    upstream.enable_referrers();
    let all = put_referrers(&upstream, &image);
    let world = TestWorld::start(&upstream).await;
    for _ in 0..2 {
        let answer = world.get(&path(&image.digest)).await;
        assert_eq!(digests(&answer), sorted(&all));
        assert_eq!(answer.header("oci-filters-applied"), "");
    }
    assert_eq!(upstream.count("GET", "/referrers/"), 2, "two pages");
    assert_eq!(upstream.count("GET", "/manifests/"), 0);
    let index: Value = serde_json::from_slice(&world.get(&path(&image.digest)).await.body).unwrap();
    let first = &index["manifests"][0];
    assert_eq!(first["mediaType"], OCI_MANIFEST);
    assert!(first["annotations"]["number"].is_string(), "{first}");
    // They can be pulled.
    for digest in &all {
        assert_eq!(world.get(&manifest(digest)).await.status, StatusCode::OK);
    }
    let head = world.head(&path(&image.digest)).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_applied_and_said_to_be() {
    let (upstream, image) = with_image().await;
    upstream.enable_referrers();
    let all = put_referrers(&upstream, &image);
    let world = TestWorld::start(&upstream).await;
    for (artifact_type, expected) in [(SBOM, vec![all[2].clone()]), ("other/type", Vec::new())] {
        let filter = artifact_type.replace('+', "%2B");
        let answer = world.get(&format!("{}?artifactType={filter}", path(&image.digest))).await;
        assert_eq!(digests(&answer), expected);
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_referrers_come_from_the_tag() {
    let (upstream, image) = with_image().await;
    let all = put_referrers(&upstream, &image);
    let descriptors: Vec<_> = all
        .iter()
        .map(|digest| json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "artifactType": SBOM }))
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors }).to_string();
    let tag = image.digest.replace(':', "-");
    upstream.put_manifest(UPSTREAM_NAME, &tag, OCI_INDEX, index.into());
    for lack in [
        Fault::Empty(404),
        Fault::Empty(405),
        Fault::Empty(400),
        Fault::Empty(403),
        Fault::Empty(501),
        Fault::Status(200, Vec::new(), Bytes::from_static(b"<html>")),
    ] {
        upstream.clear_rules();
        upstream.on(Rule::on("GET", "/referrers/").then(lack));
        let world = TestWorld::start(&upstream).await;
        assert_eq!(digests(&world.get(&path(&image.digest)).await), sorted(&all));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_referrers_are_an_empty_index_and_a_failure_is_none() {
    let (upstream, image) = with_image().await;
    let unknown = sha256(b"unknown");
    for digest in [&image.digest, &unknown] {
        let world = TestWorld::start(&upstream).await;
        for _ in 0..2 {
            assert_eq!(digests(&world.get(&path(digest)).await), Vec::<String>::new());
        }
    }
    for (fault, status, code) in [
        (Fault::Empty(429), 429, "TOOMANYREQUESTS"),
        (Fault::Empty(403), 403, "DENIED"),
        (Fault::Empty(500), 502, "UNKNOWN"),
    ] {
        upstream.clear_rules();
        upstream.on(Rule::on("GET", "/referrers/").then(fault));
        let world = TestWorld::start(&upstream).await;
        assert_error(&Method::GET, &world.get(&path(&image.digest)).await, status, code);
    }
    let world = TestWorld::start(&upstream).await;
    assert_error(&Method::GET, &world.get(&path("sha256:12")).await, 400, "DIGEST_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_served_while_the_upstream_is_unavailable() {
    let (upstream, image) = with_image().await;
    upstream.enable_referrers();
    let all = put_referrers(&upstream, &image);
    let world = TestWorld::builder().upstream("up", &upstream, "tag_ttl = \"0s\"").start().await;
    assert_eq!(digests(&world.get(&path(&image.digest)).await), sorted(&all));
    // Those that were pulled are known after a restart, too.
    for digest in &all[..3] {
        assert_eq!(world.get(&manifest(digest)).await.status, StatusCode::OK);
    }
    upstream.stop();
    let stale = world.get(&path(&image.digest)).await;
    assert_eq!(digests(&stale), sorted(&all));
    assert!(stale.header("cache-status").contains("detail=stale-upstream-"), "{stale:?}");
    let world = TestWorld::builder()
        .in_dir(world.stop().await)
        .upstream("up", &upstream, "tag_ttl = \"0s\"")
        .start()
        .await;
    let local = world.get(&path(&image.digest)).await;
    assert_eq!(digests(&local), sorted(&all[..3]));
    assert!(local.header("cache-status").contains("detail=local-list-upstream-"), "{local:?}");
    let filtered = world.get(&format!("{}?artifactType={SIGNATURE}", path(&image.digest))).await;
    assert_eq!(digests(&filtered), sorted(&all[..2]));
    // What is not known is no empty list.
    assert_eq!(world.get(&path(&sha256(b"unknown"))).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_paged() {
    let (upstream, image) = with_image().await;
    let descriptors: Vec<_> = (0..40)
        .map(|number| {
            let padding = "x".repeat(90_000);
            json!({
                "mediaType": OCI_MANIFEST,
                "digest": sha256(number.to_string().as_bytes()),
                "artifactType": if number % 2 == 0 { SBOM } else { SIGNATURE },
                "annotations": { "padding": padding },
            })
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors }).to_string();
    upstream.on(Rule::on("GET", "/referrers/").then(Fault::Status(200, Vec::new(), index.into())));
    let world = TestWorld::start(&upstream).await;
    for (filter, expected) in [("", 40), ("?artifactType=application/vnd.example.signature", 20)] {
        let (mut url, mut found, mut pages) = (path(&image.digest) + filter, Vec::new(), 0);
        loop {
            let answer = world.get(&url).await;
            assert!(answer.body.len() < 2 * 1024 * 1024);
            found.extend(digests(&answer));
            pages += 1;
            let Some(next) = answer.header("link").strip_prefix('<') else { break };
            url = next.split_once('>').unwrap().0.to_owned();
        }
        assert_eq!((found.len(), pages), (expected, expected / 10));
    }
    assert_eq!(upstream.count("GET", "/referrers/"), 1);
}
