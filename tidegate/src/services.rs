//! From the settings to what each service is told.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use content_app::{FillPolicy, FinishAbandoned, Sharing, UnverifiedRanges};
use internal_api::{LinkKey, LinkKeys};
use oci_types::manifest::Platform;
use registry_api::{Namespace, Placement, Prefetch, Rules, TaskPolicy, UpstreamPolicy, WhenDeleted};
use secrecy::ExposeSecret;
use upstream_client::{Credentials, Observer, Upstream, UpstreamConfig};

use crate::{
    banner::Listening,
    cli::Mode,
    config::{self, Settings},
    link_keys, storage,
};

/// The clients of all upstreams, by name.
pub(crate) fn upstreams(
    settings: &Settings,
    observer: &Arc<dyn Observer>,
) -> anyhow::Result<HashMap<String, Upstream>> {
    let client = |upstream: &config::Upstream| {
        let client = Upstream::new(upstream_config(upstream)?, Arc::clone(observer))
            .with_context(|| format!("upstream {}", upstream.name))?;
        Ok((upstream.name.clone(), client))
    };
    settings.upstreams.iter().map(client).collect()
}

/// The upstreams of which other processes are told: none in serve mode on a SQLite file, which no other process opens.
pub(crate) fn shared(mode: Mode, settings: &Settings, clients: &HashMap<String, Upstream>) -> Vec<Upstream> {
    let alone = mode == Mode::Serve && settings.database.url.scheme() == "sqlite";
    clients.values().filter(|_| !alone).cloned().collect()
}

fn upstream_config(upstream: &config::Upstream) -> anyhow::Result<UpstreamConfig> {
    let proxy = upstream.proxy.as_ref().map(|proxy| proxy.expose().parse()).transpose();
    Ok(UpstreamConfig {
        credentials: upstream
            .credentials
            .as_ref()
            .map(|login| Credentials { username: login.username.clone(), password: login.password.clone() }),
        ca_pem: upstream.ca_pem.clone(),
        proxy: proxy.with_context(|| format!("upstream {}: the proxy is no URL", upstream.name))?,
        allow_private: upstream.allow_private,
        realms: upstream.realms.clone(),
        offline: upstream.offline,
        connect_timeout: upstream.connect_timeout,
        read_timeout: upstream.read_timeout,
        answer_timeout: upstream.answer_timeout,
        max_manifest_bytes: upstream.max_manifest_bytes.as_usize(),
        breaker_failures: upstream.breaker_failures,
        breaker_open_for: upstream.breaker_open_for,
        ratelimit_reserve: upstream.ratelimit_reserve,
        ..UpstreamConfig::new(&upstream.name, upstream.url.clone())
    })
}

/// The keys that sign links, from their files or from the data folder.
pub(crate) fn link_keys(settings: &Settings) -> anyhow::Result<Arc<LinkKeys>> {
    let mut keys = link_keys::link_keys(settings)?
        .into_iter()
        .map(|key| {
            LinkKey::new(&key.id, key.secret.expose_secret()).with_context(|| format!("link key {}", key.id))
        })
        .collect::<anyhow::Result<Vec<_>>>()?
        .into_iter();
    let first = keys.next().ok_or_else(|| anyhow!("there is no link key"))?;
    Ok(Arc::new(LinkKeys::new(first, keys.collect())))
}

/// What registry-api is told.
pub(crate) fn registry_api(
    mode: Mode,
    settings: &Settings,
    listening: Listening,
    link_keys: Arc<LinkKeys>,
    clients: &HashMap<String, Upstream>,
) -> anyhow::Result<registry_api::Config> {
    let upstreams = settings.upstreams.iter().filter_map(|upstream| policy(upstream, clients)).collect();
    let namespaces = settings.namespaces.iter().map(namespace).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(registry_api::Config {
        process_id: process_id("registry-api", listening),
        upstreams,
        namespaces,
        link_keys,
        link_lifetime: settings.content.link_lifetime,
        placement: placement(mode, settings, listening),
        node_dead_after: settings.content.heartbeat.saturating_mul(content_app::MAX_MISSED_HEARTBEATS),
        presigner: storage::presigner(settings)?,
        page_max: settings.api.catalog_max,
        manifest_cache_bytes: settings.api.manifest_cache_bytes.bytes(),
        negative_ttl: settings.api.negative_ttl,
        cache_max_age: settings.api.cache_max_age,
        pending_ttl: settings.api.pending_ttl,
        revalidate_wait: settings.api.revalidate_wait,
        tasks: TaskPolicy {
            workers: settings.tasks.workers,
            lease: settings.tasks.lease,
            max_attempts: i32::from(settings.tasks.max_attempts),
            backoff_min: settings.tasks.backoff,
            backoff_max: settings.tasks.backoff_max,
        },
    })
}

fn policy(upstream: &config::Upstream, clients: &HashMap<String, Upstream>) -> Option<UpstreamPolicy> {
    Some(UpstreamPolicy {
        client: clients.get(&upstream.name)?.clone(),
        hosts: upstream.hosts.clone(),
        tag_ttl: upstream.tag_ttl,
        stale_if_error: upstream.stale_if_error.limit(),
        when_deleted: match upstream.when_deleted_upstream {
            config::WhenDeletedUpstream::Serve => WhenDeleted::Serve,
            config::WhenDeletedUpstream::Gone => WhenDeleted::Gone,
        },
        fetch_on_head: upstream.fetch_on_head,
        offline: upstream.offline,
    })
}

fn namespace(namespace: &config::Namespace) -> anyhow::Result<Namespace> {
    let named = || format!("namespace \"{}\"", namespace.prefix);
    let Some(upstream) = namespace.upstream.clone() else {
        bail!("{} has no upstream, and namespaces of one's own are not supported yet", named());
    };
    let platforms = namespace.platforms.iter().map(|platform| platform.parse::<Platform>());
    Ok(Namespace {
        prefix: namespace.prefix.clone(),
        upstream,
        include: Rules::new(&namespace.include).with_context(named)?,
        exclude: Rules::new(&namespace.exclude).with_context(named)?,
        prefetch: match namespace.prefetch {
            config::Prefetch::None => Prefetch::None,
            config::Prefetch::Image => Prefetch::Image,
            config::Prefetch::All => Prefetch::All,
        },
        platforms: platforms.collect::<Result<Vec<_>, _>>().with_context(named)?,
        immutable_tags: Rules::new(&namespace.immutable_tags).with_context(named)?,
    })
}

/// In serve mode clients stay on the listener that they have; else they go to the load balancer or to a node.
fn placement(mode: Mode, settings: &Settings, listening: Listening) -> Placement {
    let public_url = settings.content.public_url.as_ref().map(ToString::to_string);
    let internal_url = settings.content.internal_url.as_ref().map(ToString::to_string);
    if mode == Mode::Serve {
        return Placement::Fixed {
            public_base: public_url.unwrap_or_default(),
            internal_base: Some(internal_url.unwrap_or_else(|| format!("http://{}", listening.internal))),
        };
    }
    match public_url {
        Some(public_base) => Placement::Fixed { public_base, internal_base: internal_url },
        None => Placement::Nodes,
    }
}

/// What content-app is told.
pub(crate) fn content_app(
    mode: Mode,
    settings: &Settings,
    listening: Listening,
    link_keys: Arc<LinkKeys>,
) -> content_app::Config {
    let content = &settings.content;
    let own_url = if mode == Mode::Serve { String::new() } else { format!("http://{}", listening.public) };
    let internal_url = format!("http://{}", listening.internal);
    let internal_url = content.internal_url.as_ref().map_or(internal_url, ToString::to_string);
    content_app::Config {
        node_id: content.node_id.clone().unwrap_or_else(|| internal_url.clone()),
        public_url: content.public_url.as_ref().map_or(own_url, ToString::to_string),
        internal_url,
        link_keys,
        heartbeat: content.heartbeat,
        read_size: content.read_size.as_usize(),
        partial_max_age: content.partial_max_age,
        sharing: sharing(mode, settings),
        fills: FillPolicy {
            finish_abandoned: match content.finish_abandoned {
                config::FinishAbandoned::Always => FinishAbandoned::Always,
                config::FinishAbandoned::Over => {
                    FinishAbandoned::Over { percent: content.finish_abandoned_over }
                }
                config::FinishAbandoned::Never => FinishAbandoned::Never,
            },
            unverified_ranges: match content.unverified_ranges {
                config::UnverifiedRanges::Serve => UnverifiedRanges::Serve,
                config::UnverifiedRanges::Wait => UnverifiedRanges::Wait,
            },
            jump_ahead: content.jump_ahead.bytes(),
            segment: content.segment.bytes(),
            hold_back: content.hold_back.bytes(),
            max_fills: content.max_fills,
            max_fills_per_upstream: content.max_fills_per_upstream,
            max_downloads_per_fill: content.max_downloads_per_fill,
            attempts: content.fill_attempts,
            backoff_min: content.fill_backoff_min,
            backoff_max: content.fill_backoff_max,
            set_aside_for: content.set_aside_for,
            checkpoint_bytes: content.checkpoint_bytes.bytes(),
        },
    }
}

/// A process that serves alone from a file has its blobs for itself.
fn sharing(mode: Mode, settings: &Settings) -> Sharing {
    let is_file = settings.database.url.expose().starts_with("sqlite:");
    if mode == Mode::Serve && is_file { Sharing::Alone } else { Sharing::Nodes }
}

/// How long streams may go on after a shutdown was asked for.
pub(crate) fn shutdown_timeout(mode: Mode, settings: &Settings) -> Duration {
    if mode == Mode::ContentApp { settings.content.drain_timeout } else { settings.api.shutdown_timeout }
}

/// How long a process serves on after it was told to end, so that balancers and registry-api notice first. In serve mode
/// there is nobody to notice.
pub(crate) fn drain_grace(mode: Mode, settings: &Settings) -> Duration {
    match mode {
        Mode::RegistryApi => settings.api.drain_grace,
        Mode::ContentApp => settings.content.drain_grace,
        _ => Duration::ZERO,
    }
}

fn process_id(service: &str, listening: Listening) -> String {
    format!("{service}-{}-{}", std::process::id(), listening.internal)
}
