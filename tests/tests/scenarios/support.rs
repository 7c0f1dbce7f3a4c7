//! What many scenarios say.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use tidegate_tests::{
    chaos::{ChaosUpstream, Fault},
    image::Image,
    world::{Answer, TestWorld},
};

/// The methods that every row of the decision tables holds for.
pub(crate) const METHODS: [Method; 2] = [Method::HEAD, Method::GET];

/// The repository that most scenarios pull, as clients of [`TestWorld::start`] call it.
pub(crate) const NAME: &str = "up/library/x";

/// The same as its upstream calls it.
pub(crate) const UPSTREAM_NAME: &str = "library/x";

/// Further keys of an upstream that is checked at each request, answers in time, and whose circuit stays closed.
pub(crate) const ALWAYS_CHECKED: &str = "tag_ttl = \"0\"\nanswer_timeout = \"1s\"\nbreaker_failures = 1000";

/// The path of a manifest of [`NAME`].
pub(crate) fn manifest(reference: &str) -> String {
    manifest_of(NAME, reference)
}

/// The path of a manifest.
pub(crate) fn manifest_of(name: &str, reference: &str) -> String {
    format!("/v2/{name}/manifests/{reference}")
}

/// The path of a blob of [`NAME`].
pub(crate) fn blob(digest: &str) -> String {
    blob_of(NAME, digest)
}

/// The path of a blob.
pub(crate) fn blob_of(name: &str, digest: &str) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// An upstream with one small image under `library/x:1`.
pub(crate) async fn with_image() -> (ChaosUpstream, Image) {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(1, &[1_000, 20_000]);
    upstream.put_image(UPSTREAM_NAME, "1", &image);
    (upstream, image)
}

/// Asserts that an answer carries this manifest; for `HEAD`, its headers.
#[track_caller]
pub(crate) fn assert_manifest(
    method: &Method,
    answer: &Answer,
    body: &Bytes,
    digest: &str,
    media_type: &str,
) {
    assert_eq!(answer.status, StatusCode::OK, "{method} {answer:?}");
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert_eq!(answer.header("content-type"), media_type);
    assert_eq!(answer.header("content-length"), body.len().to_string());
    assert_eq!(answer.body, if *method == Method::GET { body.clone() } else { Bytes::new() });
}

/// Asserts that an answer carries this image's manifest; for `HEAD`, its headers.
#[track_caller]
pub(crate) fn assert_image(method: &Method, answer: &Answer, image: &Image) {
    assert_manifest(method, answer, &image.manifest, &image.digest, &image.media_type);
}

/// Asserts that an answer is an OCI error of this status and code; for `HEAD`, of this status.
#[track_caller]
pub(crate) fn assert_error(method: &Method, answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{method} {answer:?}");
    if *method == Method::GET {
        assert_eq!(answer.error_code(), code, "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(!answer.header("content-length").is_empty());
    }
}

/// Asserts that nothing was written: no repository, tag, manifest, blob, task.
pub(crate) async fn assert_nothing_recorded(world: &TestWorld) {
    for table in ["repositories", "tags", "manifests", "repository_manifests", "blobs", "repository_blobs"] {
        assert_eq!(world.rows(table), 0, "{table}");
    }
    assert_eq!(world.json("/v2/_catalog").await, serde_json::json!({ "repositories": [] }));
    assert_eq!(world.live_jobs(), 0, "jobs");
}

/// A way in which upstream does not give what it is asked for.
pub(crate) struct Failing {
    /// What it is, fit for a tag.
    pub(crate) what: &'static str,
    /// The fault.
    pub(crate) fault: Fault,
    /// What a client is told who cannot be served a copy.
    pub(crate) status: u16,
    /// The OCI code that goes with it, for a manifest that does not exist `MANIFEST_UNKNOWN`.
    pub(crate) code: &'static str,
    /// `Retry-After`, where there is one.
    pub(crate) retry_after: &'static str,
    /// The end of `Cache-Status` for one who is served a copy.
    pub(crate) detail: &'static str,
    /// Whether a `HEAD` is followed by a `GET`, until one has succeeded.
    pub(crate) refuses_head: bool,
    /// Whether the request is repeated, twice at most and as long as there is time.
    pub(crate) retried: bool,
}

impl Failing {
    /// Asserts that upstream was asked as often as it should be for one check.
    #[track_caller]
    pub(crate) fn assert_requests(&self, count: usize) {
        let expected = if self.retried { 2..=3 } else { 1..=1 };
        assert!(expected.contains(&count), "{}: {count} requests", self.what);
    }
}

/// Every way but "circuit open" and "offline", which are states and not answers.
pub(crate) fn failures() -> Vec<Failing> {
    let status = |status| Fault::Status(status, Vec::new(), Bytes::new());
    let later = |status| Fault::Status(status, vec![("Retry-After".into(), "7".into())], Bytes::new());
    let row = |what, fault, status, code, detail| Failing {
        what,
        fault,
        status,
        code,
        retry_after: "",
        detail,
        refuses_head: matches!(what, "not-found" | "unauthorized" | "forbidden" | "broken" | "odd-status"),
        retried: false,
    };
    let html = Fault::Status(200, vec![("Content-Type".into(), "text/html".into())], Bytes::from("<html>"));
    vec![
        row("not-found", status(404), 404, "MANIFEST_UNKNOWN", "404"),
        row("unauthorized", status(401), 403, "DENIED", "403"),
        row("forbidden", status(403), 403, "DENIED", "403"),
        Failing { retry_after: "7", ..row("limited", later(429), 429, "TOOMANYREQUESTS", "429") },
        row("broken", status(500), 502, "UNKNOWN", "502"),
        row("away-till-later", later(503), 502, "UNKNOWN", "502"),
        Failing { retried: true, ..row("bad-gateway", status(502), 502, "UNKNOWN", "502") },
        row("odd-status", status(418), 502, "UNKNOWN", "502"),
        row("html", html, 502, "UNKNOWN", "502"),
        Failing { retried: true, ..row("hung-up", Fault::DropConnection, 502, "UNKNOWN", "502") },
        row("slow", Fault::Delay(Duration::MAX), 504, "UNAVAILABLE", "504"),
    ]
}

/// A 503 of the upstream itself, which is not retried at once.
pub(crate) fn unavailable() -> Fault {
    Fault::Status(503, vec![("Retry-After".to_owned(), "1".to_owned())], Bytes::new())
}
