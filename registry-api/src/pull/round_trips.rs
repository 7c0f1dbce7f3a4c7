//! How many round trips to the database a pull makes before its answer.

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use oci_types::{Digest, Tag};
use tempfile::TempDir;
use upstream_client::Priority;

use super::{blob, manifest, tag};
use crate::{
    access,
    config::{Config, Prefetch},
    resolve::Target,
    state::AppState,
    test_state::test_state,
};

const BODY: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1},"layers":[]}"#;

/// A registry that has one manifest under every tag, and one blob.
async fn upstream(request: HttpRequest) -> HttpResponse {
    if !request.path().contains("/manifests/") {
        return HttpResponse::Ok().body("x");
    }
    HttpResponse::Ok()
        .insert_header(("Docker-Content-Digest", Digest::sha256(BODY.as_bytes()).as_str()))
        .content_type("application/vnd.oci.image.manifest.v1+json")
        .body(BODY)
}

/// A service in front of that registry.
struct Service {
    state: Arc<AppState>,
    target: Arc<Target>,
    _dir: TempDir,
}

impl Service {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = HttpServer::new(|| App::new().default_service(web::to(upstream)))
            .workers(1)
            .disable_signals()
            .listen(listener)
            .unwrap()
            .run();
        tokio::spawn(server);
        let (state, dir) = test_state(url, access::authorize, change).await;
        let target = state.resolver.target("up/library/x", None).unwrap();
        Self { state, target, _dir: dir }
    }

    /// The round trips of `work`.
    async fn count<T>(&self, work: impl Future<Output = T>) -> (T, u64) {
        let before = self.state.db.round_trips();
        let result = work.await;
        (result, self.state.db.round_trips() - before)
    }
}

#[tokio::test]
async fn a_cold_tag_takes_three_and_a_warm_one_none() {
    let service = Service::start().await;
    let Service { state, target, .. } = &service;
    let tag = Tag::parse("1").unwrap();
    // The tag, the bytes that it names, the record of both.
    let (cold, trips) = service.count(tag::pull(state, target, &tag, false)).await;
    assert_eq!((cold.unwrap().1.label(), trips), ("miss", 3));
    let (warm, trips) = service.count(tag::pull(state, target, &tag, false)).await;
    assert_eq!((warm.unwrap().1.label(), trips), ("hit", 0));
    // A second tag of the same manifest: the tag and the record.
    let (moved, trips) = service.count(tag::pull(state, target, &Tag::parse("2").unwrap(), false)).await;
    assert_eq!((moved.unwrap().1.label(), trips), ("miss", 2));
}

#[tokio::test]
async fn a_stale_tag_takes_one_to_record_the_check() {
    let service = Service::start_with(|config| config.upstreams[0].policy.tag_ttl = Duration::ZERO).await;
    let Service { state, target, .. } = &service;
    let tag = Tag::parse("1").unwrap();
    tag::pull(state, target, &tag, false).await.unwrap();
    let (stale, trips) = service.count(tag::pull(state, target, &tag, false)).await;
    assert_eq!((stale.unwrap().1.label(), trips), ("revalidated", 1));
}

#[tokio::test]
async fn a_job_is_queued_after_the_answer() {
    let service = Service::start_with(|config| config.namespaces[0].prefetch = Prefetch::Image).await;
    let Service { state, target, .. } = &service;
    let mut queued = state.jobs.subscribe();
    let before = state.db.round_trips();
    let cold = tag::pull(state, target, &Tag::parse("1").unwrap(), false).await;
    assert_eq!(cold.unwrap().1.label(), "miss");
    queued.changed().await.unwrap();
    assert_eq!(state.db.round_trips() - before, 4);
}

#[tokio::test]
async fn a_cold_digest_takes_two_and_a_warm_one_none() {
    let service = Service::start().await;
    let Service { state, target, .. } = &service;
    let digest = Digest::sha256(BODY.as_bytes());
    let pull = || manifest::pull(state, target, &digest, Priority::Background);
    // The link with the bytes, the record of both.
    let (cold, trips) = service.count(pull()).await;
    assert_eq!((cold.unwrap().1.label(), trips), ("miss", 2));
    let (warm, trips) = service.count(pull()).await;
    assert_eq!((warm.unwrap().1.label(), trips), ("hit", 0));
}

#[tokio::test]
async fn a_cold_blob_takes_two_and_a_warm_one_none() {
    let service = Service::start().await;
    let Service { state, target, .. } = &service;
    let digest = Digest::sha256(b"x");
    // The link, the record of the upstream's confirmation.
    let (cold, trips) = service.count(blob::pull(state, target, &digest, false, "", Priority::Client)).await;
    assert_eq!((cold.unwrap().1.label(), trips), ("miss", 2));
    let (warm, trips) = service.count(blob::pull(state, target, &digest, false, "", Priority::Client)).await;
    assert_eq!((warm.unwrap().1.label(), trips), ("miss", 0));
}
