//! What must hold between values that are right one by one.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use globset::GlobBuilder;
use oci_types::RepositoryName;
use tracing_subscriber::EnvFilter;

use super::{
    Settings,
    assemble::{items, place_of},
    error::{ConfigError, Place, Problem},
    storage,
    tree::{Node, Table},
    units::ByteSize,
};

/// The largest manifest that is ever taken (distribution-spec: "Pushing Manifests" asks for 4 MiB at least).
const MAX_MANIFEST: u64 = 4 << 20;

/// Checks everything but the secrets. `root` is what `settings` was read from.
///
/// # Errors
/// [`Problem::Value`], [`Problem::Twice`], [`Problem::Conflict`].
pub(crate) fn check(root: &Table, settings: &Settings) -> Result<(), ConfigError> {
    services(root, settings)?;
    upstreams(list(root, "upstream"), settings)?;
    namespaces(list(root, "namespace"), settings)
}

/// The elements of a list of the document.
pub(crate) fn list<'a>(root: &'a Table, key: &str) -> &'a [Node] {
    match root.get(key).map(|node| &node.value) {
        Some(super::tree::Value::List(nodes)) => nodes,
        _ => &[],
    }
}

fn services(root: &Table, settings: &Settings) -> Result<(), ConfigError> {
    let nowhere = Node::list(&Place::Default, Vec::new());
    let at = |section: &str, key: &str| place_of(root.get(section).unwrap_or(&nowhere), key).clone();
    let Settings { api, content, database, tasks, .. } = settings;

    let at_least_one = [
        ("api", "workers", api.workers == Some(0)),
        ("api", "catalog_max", api.catalog_max == 0),
        ("content", "workers", content.workers == Some(0)),
        ("content", "segment", content.segment.bytes() == 0),
        // Without it the last byte goes out before the digest is known.
        ("content", "hold_back", content.hold_back.bytes() == 0),
        ("content", "read_size", content.read_size.bytes() == 0),
        ("content", "checkpoint_bytes", content.checkpoint_bytes.bytes() == 0),
        ("content", "max_fills", content.max_fills == 0),
        ("content", "max_fills_per_upstream", content.max_fills_per_upstream == 0),
        ("content", "max_downloads_per_fill", content.max_downloads_per_fill == 0),
        ("content", "fill_attempts", content.fill_attempts == 0),
        ("database", "max_connections", database.max_connections == 0),
        ("tasks", "max_attempts", tasks.max_attempts == 0),
    ];
    let some_time = [
        ("content", "link_lifetime", content.link_lifetime.is_zero()),
        ("api", "revalidate_wait", api.revalidate_wait.is_zero()),
        ("content", "heartbeat", content.heartbeat.is_zero()),
        ("database", "wait", database.wait.is_zero()),
        ("tasks", "lease", tasks.lease.is_zero()),
    ];
    for (section, key, wrong) in at_least_one.into_iter().chain(some_time) {
        if wrong {
            return Err(zero(key).at(&at(section, key)));
        }
    }
    let conflict =
        |section: &str, key: &str, text: &str| Err(Problem::Conflict(text.to_owned()).at(&at(section, key)));
    if content.finish_abandoned_over > 100 {
        return conflict(
            "content",
            "finish_abandoned_over",
            "`finish_abandoned_over` is percent: at most 100",
        );
    }
    if content.fill_backoff_min > content.fill_backoff_max {
        return conflict(
            "content",
            "fill_backoff_min",
            "`fill_backoff_min` is longer than `fill_backoff_max`",
        );
    }
    if tasks.backoff > tasks.backoff_max {
        return conflict("tasks", "backoff", "`backoff` is longer than `backoff_max`");
    }
    let same = |one: SocketAddr, other: SocketAddr| one == other && one.port() != 0;
    if same(api.listen, api.internal_listen) {
        return conflict("api", "internal_listen", "`internal_listen` is the same address as `listen`");
    }
    if same(content.listen, content.internal_listen) {
        return conflict("content", "internal_listen", "`internal_listen` is the same address as `listen`");
    }
    if !matches!(database.url.scheme(), "sqlite" | "postgres" | "postgresql") {
        return conflict("database", "url", "`url` must begin with sqlite:// or postgres://");
    }
    storage::check(root.get("storage").unwrap_or(&nowhere), &settings.storage)?;
    if let Err(error) = EnvFilter::try_new(&settings.log.filter) {
        return conflict("log", "filter", &format!("the log filter cannot be read: {error}"));
    }
    link_keys(root.get("content").map_or(&[], |content| items(content, "link_keys")), settings)
}

fn link_keys(nodes: &[Node], settings: &Settings) -> Result<(), ConfigError> {
    let mut seen = BTreeMap::new();
    for (key, node) in settings.content.link_keys.iter().zip(nodes) {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if key.id.is_empty() || key.id.len() > 64 || !key.id.bytes().all(word) {
            let expected = "1 to 64 letters, digits, '.', '_' or '-'";
            return Err(wrong("id", &key.id, expected).at(place_of(node, "id")));
        }
        claim(&mut seen, "the link key", &key.id, place_of(node, "id"))?;
    }
    Ok(())
}

fn upstreams(nodes: &[Node], settings: &Settings) -> Result<(), ConfigError> {
    let mut names = BTreeMap::new();
    let mut hosts = BTreeMap::new();
    for (upstream, node) in settings.upstreams.iter().zip(nodes) {
        let at = |key: &str| place_of(node, key);
        if RepositoryName::parse(&upstream.name).is_err() {
            return Err(wrong("name", &upstream.name, SEGMENTS).at(at("name")));
        }
        claim(&mut names, "the upstream", &upstream.name, at("name"))?;
        for host in upstream.hosts.iter().chain(&upstream.realms) {
            if !is_host(host) {
                let key = if upstream.hosts.contains(host) { "hosts" } else { "realms" };
                return Err(wrong(key, host, "HOST or HOST:PORT in lower case").at(at(key)));
            }
        }
        for host in &upstream.hosts {
            claim(&mut hosts, "the host", host, at("hosts"))?;
        }
        let zeros = [
            ("connect_timeout", upstream.connect_timeout),
            ("read_timeout", upstream.read_timeout),
            ("answer_timeout", upstream.answer_timeout),
            ("breaker_failures", Duration::from_secs(u64::from(upstream.breaker_failures))),
            ("max_manifest_bytes", Duration::from_secs(upstream.max_manifest_bytes.bytes())),
        ];
        if let Some((key, _)) = zeros.iter().find(|(_, value)| value.is_zero()) {
            return Err(zero(key).at(at(key)));
        }
        if upstream.max_manifest_bytes.bytes() > MAX_MANIFEST {
            let found = upstream.max_manifest_bytes.to_string();
            let limit = format!("{} at most", ByteSize::new(MAX_MANIFEST));
            return Err(wrong("max_manifest_bytes", &found, &limit).at(at("max_manifest_bytes")));
        }
        if let Some(proxy) = &upstream.proxy
            && !matches!(proxy.scheme(), "http" | "https")
        {
            let text = "`proxy` must begin with http:// or https://".to_owned();
            return Err(Problem::Conflict(text).at(at("proxy")));
        }
    }
    Ok(())
}

fn namespaces(nodes: &[Node], settings: &Settings) -> Result<(), ConfigError> {
    let mut prefixes = BTreeMap::new();
    for (namespace, node) in settings.namespaces.iter().zip(nodes) {
        let at = |key: &str| place_of(node, key);
        if !namespace.prefix.is_empty() && RepositoryName::parse(&namespace.prefix).is_err() {
            return Err(wrong("prefix", &namespace.prefix, SEGMENTS).at(at("prefix")));
        }
        claim(&mut prefixes, "the namespace prefix", &namespace.prefix, at("prefix"))?;
        let globs = [
            ("include", &namespace.include),
            ("exclude", &namespace.exclude),
            ("immutable_tags", &namespace.immutable_tags),
        ];
        for (key, globs) in globs {
            for glob in globs {
                if let Err(error) = GlobBuilder::new(glob).literal_separator(true).build() {
                    let expected = format!("a glob: {}", error.kind());
                    return Err(wrong(key, glob, &expected).at(at(key)));
                }
            }
        }
        if let Some(platform) = namespace.platforms.iter().find(|platform| !is_platform(platform)) {
            let expected = "a platform such as \"linux/amd64\" or \"linux/arm/v7\"";
            return Err(wrong("platforms", platform, expected).at(at("platforms")));
        }
    }
    Ok(())
}

/// What upstream names and prefixes are made of, for error messages.
const SEGMENTS: &str = "lower-case letters and digits, parted by '.', '_' or '-', in segments parted by '/'";

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good_host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(host_byte),
    };
    good_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_platform(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    matches!(text.split('/').count(), 2 | 3) && text.split('/').all(part)
}

fn claim(
    seen: &mut BTreeMap<String, Place>,
    what: &'static str,
    name: &str,
    place: &Place,
) -> Result<(), ConfigError> {
    match seen.insert(name.to_owned(), place.clone()) {
        None => Ok(()),
        Some(first) => Err(Problem::Twice { what, name: name.to_owned(), first }.at(place)),
    }
}

pub(crate) fn zero(key: &str) -> Problem {
    Problem::Value { key: key.to_owned(), found: "0".to_owned(), expected: "more than 0".to_owned() }
}

pub(crate) fn wrong(key: &str, found: &str, expected: &str) -> Problem {
    Problem::Value { key: key.to_owned(), found: format!("{found:?}"), expected: expected.to_owned() }
}
