//! Manifests by digest: every row of table 3.

use bytes::Bytes;
use reqwest::Method;
use tidegate_tests::{
    chaos::{ChaosUpstream, Fault, Rule},
    image::{Image, Index},
    world::TestWorld,
};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_by_digest_is_fetched_once_and_never_asked_about_again() {
    for method in &METHODS {
        let (upstream, image) = with_image().await;
        let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
        let cold = world.ask(method, &manifest(&image.digest)).await;
        assert_image(method, &cold, &image);
        assert_eq!(cold.header("cache-status"), "tidegate; fwd=miss; stored");
        assert_eq!(upstream.count("GET", &image.digest), 1);
        for again in &METHODS {
            let warm = world.ask(again, &manifest(&image.digest)).await;
            assert_image(again, &warm, &image);
            assert_eq!(warm.header("cache-status"), "tidegate; hit");
        }
        assert_eq!(upstream.requests().len(), 1);
        assert_eq!(world.rows("tags"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_of_a_linked_index_costs_one_get_and_no_head() {
    for method in &METHODS {
        let upstream = ChaosUpstream::start().await;
        let index = Index::of(&[&Image::random(1, &[10]), &Image::random(2, &[10])]);
        upstream.put_index(UPSTREAM_NAME, "1", &index);
        let world = TestWorld::start(&upstream).await;
        world.get(&manifest("1")).await;
        upstream.clear_requests();
        for _ in 0..2 {
            let child = &index.images[1];
            assert_image(method, &world.ask(method, &manifest(&child.digest)).await, child);
        }
        assert_eq!((upstream.count("GET", ""), upstream.count("HEAD", "")), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_known_here_is_linked_once_its_own_upstream_confirms_it() {
    for method in &METHODS {
        let (first, image) = with_image().await;
        let (second, _) = with_image().await;
        let world =
            TestWorld::builder().upstream("up", &first, "").upstream("two", &second, "").start().await;
        world.get(&manifest(&image.digest)).await;
        for _ in 0..2 {
            let answer = world.ask(method, &manifest_of("two/library/x", &image.digest)).await;
            assert_image(method, &answer, &image);
        }
        assert_eq!((second.count("HEAD", &image.digest), second.requests().len()), (1, 1));
        assert_eq!((world.rows("manifests"), world.rows("repository_manifests")), (1, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_upstream_does_not_give_is_refused_as_the_table_says() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for (failing, seed) in failures().into_iter().zip((100..).step_by(2)) {
        for (method, seed) in METHODS.iter().zip(seed..) {
            let image = Image::random(seed, &[10]);
            upstream.put_image(UPSTREAM_NAME, "1", &image);
            upstream.on(Rule::on("*", &image.digest).then(failing.fault.clone()));
            let answer = world.ask(method, &manifest(&image.digest)).await;
            assert_error(method, &answer, failing.status, failing.code);
            assert_eq!(answer.header("retry-after"), failing.retry_after, "{}", failing.what);
            failing.assert_requests(upstream.count("GET", &image.digest));
            assert_eq!(upstream.count("HEAD", &image.digest), 0, "{}", failing.what);
        }
    }
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_known_through_another_upstream_is_not_readable_without_the_word_of_its_own() {
    let (private, image) = with_image().await;
    let public = ChaosUpstream::start().await;
    public.put_image("other/y", "1", &Image::random(9, &[10]));
    let world = TestWorld::builder()
        .upstream("private", &private, ALWAYS_CHECKED)
        .upstream("public", &public, ALWAYS_CHECKED)
        .sections("[api]\nnegative_ttl = \"0\"")
        .start()
        .await;
    assert_image(&Method::GET, &world.get(&manifest_of("private/library/x", "1")).await, &image);
    world.blob("private/library/x", &image.config.0).await;
    for name in ["public/other/y", "public/library/x", "private/library/y"] {
        // Every way to fail costs time: one repository goes through them all.
        let all = name == "public/other/y";
        for failing in failures().into_iter().filter(|row| all || matches!(row.status, 403 | 404)) {
            public.clear_rules();
            private.clear_rules();
            for upstream in [&public, &private] {
                upstream.on(Rule::on("*", "").then(failing.fault.clone()));
            }
            for method in &METHODS {
                let by_digest = world.ask(method, &manifest_of(name, &image.digest)).await;
                assert_error(method, &by_digest, failing.status, failing.code);
                // A blob may have any type, also HTML.
                if failing.what == "html" {
                    continue;
                }
                let blob = world.ask(method, &blob_of(name, &image.config.0)).await;
                assert_eq!(blob.status.as_u16(), failing.status, "{} {name}", failing.what);
            }
        }
    }
    public.clear_rules();
    private.clear_rules();
    assert_eq!(world.rows("repository_manifests"), 1);
    assert_eq!(world.rows("repositories"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_head_confirms_a_digest_by_get() {
    let (first, image) = with_image().await;
    let (honest, _) = with_image().await;
    let stranger = ChaosUpstream::start().await;
    for upstream in [&honest, &stranger] {
        upstream.on(Rule::on("HEAD", "/manifests/").then(Fault::HeadNotAllowed));
    }
    let world = TestWorld::builder()
        .upstream("up", &first, "")
        .upstream("honest", &honest, "")
        .upstream("stranger", &stranger, "")
        .start()
        .await;
    world.get(&manifest("1")).await;
    for method in &METHODS {
        let refused = world.ask(method, &manifest_of("stranger/library/x", &image.digest)).await;
        assert_error(method, &refused, 404, "MANIFEST_UNKNOWN");
        let answer = world.ask(method, &manifest_of("honest/library/x", &image.digest)).await;
        assert_image(method, &answer, &image);
    }
    assert_eq!(world.rows("repositories"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_hash_to_its_digest_is_refused_and_not_stored() {
    let (upstream, image) = with_image().await;
    let other = Image::random(2, &[10]);
    let lie = Fault::SwapBody(other.manifest.clone(), other.media_type.clone());
    let shorter = Fault::SwapBody(Bytes::from_static(b"{}"), image.media_type.clone());
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for fault in [lie, shorter, Fault::WrongByteAt(5), Fault::LongerBy(1), Fault::ShorterBy(1)] {
        upstream.clear_rules();
        upstream.on(Rule::on("GET", "/manifests/").then(fault.clone()));
        for reference in ["1", &image.digest] {
            let answer = world.get(&manifest(reference)).await;
            assert_error(&Method::GET, &answer, 502, "UNKNOWN");
        }
        assert_error(&Method::HEAD, &world.head(&manifest(&image.digest)).await, 502, "UNKNOWN");
    }
    assert_nothing_recorded(&world).await;
    upstream.clear_rules();
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
}
