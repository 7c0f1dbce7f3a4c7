//! Every route passes the authorization.

use std::{collections::BTreeSet, sync::Mutex};

use actix_web::{
    App,
    http::Method,
    test::{TestRequest, call_service, init_service},
};

use super::{endpoint::pattern, *};
use crate::{access::RequestContext, test_state::test_state};

/// Every route: its pattern, a path, and the action of `GET` and `HEAD`.
fn routes() -> Vec<(&'static str, String, Action)> {
    let digest = oci_types::Digest::sha256(b"x");
    vec![
        (pattern::BASE, "/v2".to_owned(), Action::Ping),
        (pattern::BASE_SLASH, "/v2/".to_owned(), Action::Ping),
        (pattern::CATALOG, "/v2/_catalog".to_owned(), Action::ListRepositories),
        (pattern::MANIFEST, "/v2/up/x/manifests/1".to_owned(), Action::Pull),
        (pattern::MANIFEST, format!("/v2/up/x/manifests/{digest}"), Action::Pull),
        (pattern::BLOB, format!("/v2/up/x/blobs/{digest}"), Action::Pull),
        (pattern::TAGS, "/v2/up/x/tags/list".to_owned(), Action::ListTags),
        (pattern::REFERRERS, format!("/v2/up/x/referrers/{digest}"), Action::Pull),
        (pattern::UPSTREAMS, "/api/v1/upstreams".to_owned(), Action::ReadUpstreams),
        (pattern::JOBS, "/api/v1/jobs".to_owned(), Action::ReadJobs),
    ]
}

/// The contexts that were checked: the action, and the repository.
static CHECKED: Mutex<Vec<(Action, Option<String>)>> = Mutex::new(Vec::new());

fn deny(context: &RequestContext<'_>) -> Result<(), ApiError> {
    let repository = context.repository.map(|target| target.repository.to_string());
    CHECKED.lock().unwrap().push((context.action, repository));
    Err(ApiError::Forbidden)
}

#[actix_web::test]
async fn every_route_is_refused_when_authorization_refuses_it() {
    let (state, _dir) = test_state("http://127.0.0.1:9".parse().unwrap(), deny, |_| {}).await;
    let app = init_service(App::new().service(Routes(state))).await;
    for (pattern, path, action) in routes() {
        for method in [Method::GET, Method::HEAD] {
            CHECKED.lock().unwrap().clear();
            let request = TestRequest::with_uri(&path).method(method.clone()).to_request();
            let response = call_service(&app, request).await;
            assert_eq!(response.status(), 403, "{method} {path} does not pass the authorization");
            assert_eq!(response.request().extensions().get::<Route>(), Some(&Route(pattern)), "{path}");
            let repository = path.contains("/up/x/").then(|| "up/x".to_owned());
            assert_eq!(*CHECKED.lock().unwrap(), [(action, repository)], "{method} {path}");
        }
    }
}

#[test]
fn the_list_of_routes_is_complete() {
    let source = include_str!("endpoint.rs");
    let patterns: BTreeSet<_> =
        source.lines().filter_map(|line| line.trim().strip_prefix("pub(crate) const ")).collect();
    let listed: BTreeSet<_> = routes().into_iter().map(|(pattern, ..)| pattern).collect();
    assert_eq!(patterns.len(), listed.len(), "{patterns:?}");
}

#[test]
fn routes_are_registered_in_one_file() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut registering = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
            let words = ["register_service", "web::resource", "web::scope", ".route(", ".service("];
            if words.iter().any(|word| code.contains(word)) && !path.ends_with("tests.rs") {
                registering.push(path.strip_prefix(&root).unwrap().to_owned());
            }
        }
    }
    registering.sort();
    assert_eq!(registering, ["lib.rs", "routes.rs"].map(std::path::PathBuf::from));
    assert_eq!(include_str!("../lib.rs").matches(".service(").count(), 1);
}
