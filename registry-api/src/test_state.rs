//! The state of a service for tests: one upstream, `up`, below the prefix `up`, and an empty SQLite database.

use std::{sync::Arc, time::Duration};

use internal_api::{LinkKey, LinkKeys};
use prometheus_client::registry::Registry as MetricRegistry;
use shared_models::{
    db::{Db, DbConfig},
    migrate,
};
use tempfile::TempDir;
use upstream_client::{Unobserved, Upstream, UpstreamConfig};
use url::Url;

use crate::{
    access::Authorize,
    config::{
        ApiSettings, Config, ConfiguredUpstream, JobSettings, Namespace, Placement, Prefetch, UpstreamPolicy,
    },
    metrics::ApiMetrics,
    state::AppState,
};

/// A state with a changed configuration, and the folder of its database.
pub(crate) async fn test_state(
    upstream: Url,
    authorize: Authorize,
    change: impl FnOnce(&mut Config),
) -> (Arc<AppState>, TempDir) {
    // An error says that another test of this process has installed it already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let dir = TempDir::new().unwrap();
    let database = DbConfig {
        url: format!("sqlite://{}", dir.path().join("x.db").display()),
        max_connections: 2,
        wait: Duration::from_secs(5),
        prepared_statements: true,
    };
    let db = Db::connect(&database).await.unwrap();
    migrate::migrate(&database).await.unwrap();
    let metrics = ApiMetrics::register(&mut MetricRegistry::default());
    let mut config = config(upstream);
    change(&mut config);
    (Arc::new(AppState::new(config, db, metrics, authorize).unwrap()), dir)
}

fn config(upstream: Url) -> Config {
    let mut client = UpstreamConfig::new("up", upstream);
    client.allow_private = true;
    Config {
        process_id: "test".to_owned(),
        upstreams: vec![ConfiguredUpstream {
            client: Upstream::new(client, Arc::new(Unobserved)).unwrap(),
            policy: UpstreamPolicy { hosts: vec!["up.test".to_owned()], ..UpstreamPolicy::default() },
        }],
        namespaces: vec![Namespace { prefetch: Prefetch::None, ..Namespace::new("up", "up") }],
        link_keys: Arc::new(LinkKeys::new(LinkKey::new("k1", &[7; 32]).unwrap(), Vec::new())),
        link_lifetime: Duration::from_secs(60),
        placement: Placement::Fixed { public_base: String::new(), internal_base: None },
        node_dead_after: Duration::from_secs(60),
        presigner: None,
        settings: ApiSettings {
            max_page_size: 100,
            manifest_cache_bytes: 1 << 20,
            pending_ttl: Duration::from_secs(60),
            ..ApiSettings::default()
        },
        jobs: JobSettings {
            workers: 0,
            max_attempts: 3,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            ..JobSettings::default()
        },
    }
}
