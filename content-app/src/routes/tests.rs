//! Every route answers only requests with its proof.

use std::time::Duration;

use actix_web::{
    App,
    dev::Service,
    http::StatusCode,
    test::{TestRequest, init_service},
};
use blob_store::BlobStore;
use internal_api::{LinkKey, LinkKeys, signed_request::SIGNATURE_HEADER};
use oci_types::{Digest, Millis, RepositoryName};
use prometheus_client::registry::Registry;
use shared_models::{
    db::{Db, DbConfig},
    migrate::migrate,
};
use tempfile::TempDir;

use super::*;
use crate::{Config, ContentApp, FillPolicy, NodeSettings, Sharing};

const SECRET: &[u8] = b"a secret of these tests, thirty-two bytes or more";
const OTHER_SECRET: &[u8] = b"another secret of these tests, which is not shared";

fn keys(secret: &[u8]) -> LinkKeys {
    LinkKeys::new(LinkKey::new("a", secret).unwrap(), Vec::new())
}

async fn content_app(folder: &TempDir) -> ContentApp {
    let db = DbConfig {
        url: format!("sqlite://{}", folder.path().join("test.db").display()),
        max_connections: 2,
        wait: Duration::from_secs(5),
        prepared_statements: true,
    };
    migrate(&db).await.unwrap();
    let db = Db::connect(&db).await.unwrap();
    let path = folder.path().join("blobs");
    let store = tokio::task::spawn_blocking(move || BlobStore::open_local(&path)).await.unwrap().unwrap();
    let config = Config {
        node_id: "node".to_owned(),
        public_url: String::new(),
        internal_url: "http://127.0.0.1:1".to_owned(),
        link_keys: std::sync::Arc::new(keys(SECRET)),
        sharing: Sharing::Alone,
        node: NodeSettings::default(),
        fills: FillPolicy::default(),
    };
    ContentApp::new(config, db, store, std::collections::HashMap::new(), &mut Registry::default()).unwrap()
}

/// A path of the route for a blob.
fn path(route: &Route, digest: &Digest) -> String {
    route.path.replace("{repository:.+}", "library/alpine").replace("{digest}", digest.as_str())
}

/// A request with a proof that is made with `secret`.
fn signed(route: &Route, method: &Method, digest: &Digest, secret: &[u8], proof: Proof) -> TestRequest {
    let (keys, path) = (keys(secret), path(route, digest));
    match proof {
        Proof::ContentLink => {
            let repository = RepositoryName::parse("library/alpine").unwrap();
            let link = keys.sign(&repository, digest, Millis::now().after(Duration::from_secs(60)));
            let (_, query) = link.split_once('?').unwrap();
            TestRequest::with_uri(&format!("{path}?{query}")).method(method.clone())
        }
        Proof::SignedRequest => {
            let signature = keys.sign_request(method.as_str(), &path, Millis::now());
            TestRequest::with_uri(&path).method(method.clone()).insert_header((SIGNATURE_HEADER, signature))
        }
    }
}

#[actix_web::test]
async fn every_route_refuses_a_request_without_its_proof() {
    let folder = TempDir::new().unwrap();
    let content = content_app(&folder).await;
    let app = init_service(App::new().configure(|config| {
        content.configure(config);
        content.configure_internal(config);
    }))
    .await;
    let digest = Digest::sha256(b"blob");
    let mut actions = Vec::new();
    for route in ROUTES {
        let other_proof = match route.proof {
            Proof::ContentLink => Proof::SignedRequest,
            Proof::SignedRequest => Proof::ContentLink,
        };
        for (method, action) in route.actions {
            let unsigned = TestRequest::with_uri(&path(route, &digest)).method(method.clone());
            let wrong_key = signed(route, method, &digest, OTHER_SECRET, route.proof);
            let wrong_proof = signed(route, method, &digest, SECRET, other_proof);
            let wrong_path = match route.proof {
                Proof::ContentLink => signed(route, method, &Digest::sha256(b"other"), SECRET, route.proof)
                    .uri(&path(route, &digest)),
                Proof::SignedRequest => signed(route, method, &digest, SECRET, route.proof)
                    .uri(&format!("{}?wait=1", path(route, &digest))),
            };
            for (request, name) in [
                (unsigned, "unsigned"),
                (wrong_key, "wrong key"),
                (wrong_proof, "wrong proof"),
                (wrong_path, "wrong path"),
            ] {
                let response = app.call(request.to_request()).await.unwrap();
                assert_eq!(response.status(), StatusCode::FORBIDDEN, "{method} {}: {name}", route.path);
            }
            let request = signed(route, method, &digest, SECRET, route.proof);
            let response = app.call(request.to_request()).await.unwrap();
            assert_ne!(response.status(), StatusCode::FORBIDDEN, "{method} {}: signed", route.path);
            actions.push(*action);
        }
    }
    actions.sort_by_key(|action| format!("{action:?}"));
    actions.dedup();
    assert_eq!(actions, [Action::GetBlob, Action::ListFills, Action::ReadFill, Action::StartFill]);
}
