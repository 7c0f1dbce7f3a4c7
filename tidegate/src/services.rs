//! The configuration of each service, from the settings and what is known of the process.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use content_app::Sharing;
use internal_api::LinkKeys;
use registry_api::{ConfiguredUpstream, Placement};
use upstream_client::{Observer, Upstream};

use crate::{banner::Listening, cli::Mode, config::Settings, storage};

/// The clients of all upstreams, by name.
pub(crate) fn upstreams(
    settings: &Settings,
    observer: &Arc<dyn Observer>,
) -> anyhow::Result<HashMap<String, Upstream>> {
    let client = |config: &upstream_client::UpstreamConfig| {
        let client = Upstream::new(config.clone(), Arc::clone(observer));
        Ok((config.name.clone(), client.with_context(|| format!("upstream `{}`", config.name))?))
    };
    settings.upstreams.iter().map(|upstream| client(&upstream.client)).collect()
}

/// Whether other processes use the same database: not in serve mode with SQLite.
pub(crate) fn shares_database(mode: Mode, settings: &Settings) -> bool {
    mode != Mode::Serve || !settings.database.is_sqlite()
}

/// The configuration of registry-api.
pub(crate) fn registry_api(
    mode: Mode,
    settings: &Settings,
    listening: Listening,
    link_keys: Arc<LinkKeys>,
    clients: &HashMap<String, Upstream>,
) -> anyhow::Result<registry_api::Config> {
    if let Some(hosted) = settings.namespaces.iter().find(|namespace| namespace.upstream.is_none()) {
        bail!("the namespace `{}` has no upstream; hosted namespaces are not supported yet", hosted.prefix);
    }
    let upstreams = settings.upstreams.iter().filter_map(|upstream| {
        let client = clients.get(&upstream.client.name)?.clone();
        Some(ConfiguredUpstream { client, policy: upstream.policy.clone() })
    });
    Ok(registry_api::Config {
        process_id: format!("registry-api-{:016x}", rand::random::<u64>()),
        upstreams: upstreams.collect(),
        namespaces: settings.namespaces.clone(),
        link_keys,
        link_lifetime: settings.content.links.link_lifetime,
        placement: placement(mode, settings, listening),
        node_dead_after: settings.content.node.dead_after(),
        presigner: storage::presigner(settings)?,
        settings: settings.api.service.clone(),
        jobs: settings.jobs.clone(),
    })
}

/// In serve mode, content-app is in this process and uses the same listener.
fn placement(mode: Mode, settings: &Settings, listening: Listening) -> Placement {
    let content = &settings.content.server;
    let public_url = content.public_url.as_ref().map(ToString::to_string);
    let internal_url = content.internal_url.as_ref().map(ToString::to_string);
    match (mode, public_url) {
        (Mode::Serve, public_url) => Placement::Fixed {
            public_base: public_url.unwrap_or_default(),
            internal_base: Some(internal_url.unwrap_or_else(|| format!("http://{}", listening.internal))),
        },
        (_, Some(public_base)) => Placement::Fixed { public_base, internal_base: internal_url },
        (_, None) => Placement::Nodes,
    }
}

/// The configuration of content-app.
pub(crate) fn content_app(
    mode: Mode,
    settings: &Settings,
    listening: Listening,
    link_keys: Arc<LinkKeys>,
) -> content_app::Config {
    let content = &settings.content;
    let own_url = if mode == Mode::Serve { String::new() } else { format!("http://{}", listening.public) };
    let internal_url = format!("http://{}", listening.internal);
    let internal_url = content.server.internal_url.as_ref().map_or(internal_url, ToString::to_string);
    content_app::Config {
        node_id: content.server.node_id.clone().unwrap_or_else(|| internal_url.clone()),
        public_url: content.server.public_url.as_ref().map_or(own_url, ToString::to_string),
        internal_url,
        link_keys,
        sharing: if shares_database(mode, settings) { Sharing::Nodes } else { Sharing::Alone },
        node: content.node.clone(),
        fills: content.fills.clone(),
    }
}

/// The number of HTTP worker threads. `None`: one per CPU.
pub(crate) fn workers(mode: Mode, settings: &Settings) -> Option<usize> {
    let workers = match mode {
        Mode::ContentApp => settings.content.server.workers,
        _ => settings.api.server.workers,
    };
    workers.map(usize::from)
}

/// The time limit of running requests and streams after the listener has closed.
pub(crate) fn shutdown_timeout(mode: Mode, settings: &Settings) -> Duration {
    match mode {
        Mode::ContentApp => settings.content.server.drain_timeout,
        _ => settings.api.server.shutdown_timeout,
    }
}

/// The time after which an idle connection is closed.
pub(crate) fn keep_alive(mode: Mode, settings: &Settings) -> Duration {
    match mode {
        Mode::ContentApp => settings.content.server.keep_alive,
        _ => settings.api.server.keep_alive,
    }
}

/// How long the process accepts requests after SIGTERM, so that load balancers and registry-api observe that it is not
/// ready, and clients with open connections that these are being closed.
pub(crate) fn drain_grace(mode: Mode, settings: &Settings) -> Duration {
    match mode {
        Mode::ContentApp => settings.content.server.drain_grace,
        _ => settings.api.server.drain_grace,
    }
}
