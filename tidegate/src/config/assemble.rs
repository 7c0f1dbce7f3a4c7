//! Which upstreams and namespaces there are: the built-in ones or those that are written, those that flags add, and
//! what follows from them (hosts, namespaces).

use std::collections::BTreeSet;

use url::Url;

use super::{
    error::{ConfigError, Place, Problem, most_like},
    tree::{self, Node, Table, Value},
};
use crate::cli::UpstreamFlag;

const BUILT_IN: &str = include_str!("built_in.toml");

const FLAG: Place = Place::Flag("--upstream");

/// Makes the lists `upstream` and `namespace` of `root` complete.
///
/// - An `upstream` list that is written replaces the built-in upstreams and namespaces.
/// - A `namespace` list alone replaces the built-in namespaces; of the built-in upstreams those stay that it names.
///   So what an operator leaves out, or filters, cannot be reached by another way.
/// - A flag adds an upstream and a namespace of its name, replacing those of the same name.
/// - An upstream that no namespace names gets one of its own name.
/// - An upstream whose hosts are not written answers to its URL's host, and to its name where that is a host name,
///   as far as no other upstream does.
///
/// # Errors
/// [`Problem::Value`] for what is no list, [`Problem::NoSuchUpstream`].
pub(crate) fn registries(root: &mut Table, flags: &[UpstreamFlag]) -> Result<(), ConfigError> {
    let mut built_in = tree::parse_built_in(BUILT_IN)?;
    let written = (list(root, "upstream")?, list(root, "namespace")?);
    let only_namespaces = written.0.is_none() && written.1.is_some();
    let (mut upstreams, mut namespaces) = match written {
        (None, None) => (
            list(&mut built_in, "upstream")?.unwrap_or_default(),
            list(&mut built_in, "namespace")?.unwrap_or_default(),
        ),
        (None, Some(namespaces)) => (list(&mut built_in, "upstream")?.unwrap_or_default(), namespaces),
        (Some(upstreams), namespaces) => (upstreams, namespaces.unwrap_or_default()),
    };
    for flag in flags {
        add(&mut upstreams, &mut namespaces, flag);
    }
    refuse_unknown_upstreams(&upstreams, &namespaces)?;
    let named = |name: &str| namespaces.iter().any(|namespace| text(namespace, "upstream") == Some(name));
    if only_namespaces {
        upstreams
            .retain(|upstream| upstream.place != Place::Default || text(upstream, "name").is_some_and(named));
    }
    let unnamed = upstreams.iter().filter_map(|upstream| {
        let name = text(upstream, "name").filter(|name| !named(name))?;
        Some(namespace(place_of(upstream, "name"), name))
    });
    let implied: Vec<Node> = unnamed.collect();
    namespaces.extend(implied);
    imply_hosts(&mut upstreams);
    root.insert("upstream".to_owned(), Node::list(&Place::Default, upstreams));
    root.insert("namespace".to_owned(), Node::list(&Place::Default, namespaces));
    Ok(())
}

/// The text at `key` of a table.
pub(crate) fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    entry(node, key)?.text()
}

/// Where `key` of a table is written; where the table is, when it isn't.
pub(crate) fn place_of<'a>(node: &'a Node, key: &str) -> &'a Place {
    entry(node, key).map_or(&node.place, |entry| &entry.place)
}

/// The items of the list at `key` of a table.
pub(crate) fn items<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    match entry(node, key).map(|entry| &entry.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Table(table) => table.get(key),
        _ => None,
    }
}

fn list(root: &mut Table, key: &str) -> Result<Option<Vec<Node>>, ConfigError> {
    let Some(node) = root.remove(key) else { return Ok(None) };
    match &node.typed()?.value {
        Value::List(items) => Ok(Some(items.clone())),
        _ => Err(node.wrong(key, &format!("a list of tables: each begins with [[{key}]]"))),
    }
}

fn add(upstreams: &mut Vec<Node>, namespaces: &mut Vec<Node>, flag: &UpstreamFlag) {
    let mut table = Table::new();
    table.insert("name".to_owned(), Node::raw(&FLAG, &flag.name));
    table.insert("url".to_owned(), Node::raw(&FLAG, flag.url.as_str()));
    let same_name = |node: &Node| text(node, "name") == Some(&flag.name);
    if let Some(replaced) = upstreams.iter().find(|node| same_name(node)) {
        // Clients that ask with `?ns=` for the one that is replaced mean this one now.
        let hosts = items(replaced, "hosts").iter().filter_map(Node::text);
        let hosts: Vec<Node> = hosts.map(|host| Node::raw(&FLAG, host)).collect();
        table.insert("hosts".to_owned(), Node::list(&FLAG, hosts));
    }
    upstreams.retain(|node| !same_name(node));
    upstreams.push(Node { place: FLAG, value: Value::Table(table) });

    namespaces.retain(|node| text(node, "prefix") != Some(&flag.name));
    namespaces.push(namespace(&FLAG, &flag.name));
}

fn namespace(place: &Place, upstream: &str) -> Node {
    let entries = ["prefix", "upstream"].map(|key| (key.to_owned(), Node::raw(place, upstream)));
    Node { place: place.clone(), value: Value::Table(Table::from(entries)) }
}

fn refuse_unknown_upstreams(upstreams: &[Node], namespaces: &[Node]) -> Result<(), ConfigError> {
    let names = || upstreams.iter().filter_map(|upstream| text(upstream, "name"));
    for namespace in namespaces {
        let Some(upstream) = text(namespace, "upstream") else { continue };
        if !names().any(|name| name == upstream) {
            let problem = Problem::NoSuchUpstream {
                prefix: text(namespace, "prefix").unwrap_or_default().to_owned(),
                upstream: upstream.to_owned(),
                known: most_like(upstream, names()),
            };
            return Err(problem.at(place_of(namespace, "upstream")));
        }
    }
    Ok(())
}

fn imply_hosts(upstreams: &mut [Node]) {
    let written = upstreams.iter().flat_map(|upstream| items(upstream, "hosts")).filter_map(Node::text);
    let mut claimed: BTreeSet<String> = written.map(str::to_owned).collect();
    for upstream in upstreams {
        if entry(upstream, "hosts").is_some() && upstream.place != FLAG {
            continue;
        }
        let url_host =
            text(upstream, "url").and_then(|url| Url::parse(url).ok()).as_ref().and_then(authority);
        let name = text(upstream, "name").filter(|name| name.contains('.') && !name.contains('/'));
        let candidates = url_host.into_iter().chain(name.map(str::to_owned));
        let place = upstream.place.clone();
        let implied: Vec<Node> = candidates
            .filter(|host| claimed.insert(host.clone()))
            .map(|host| Node::raw(&place, host))
            .collect();
        let Value::Table(table) = &mut upstream.value else { continue };
        let hosts = table.entry("hosts".to_owned()).or_insert_with(|| Node::list(&place, Vec::new()));
        if let Value::List(hosts) = &mut hosts.value {
            hosts.extend(implied);
        }
    }
}

/// `HOST`, or `HOST:PORT` where the port is not the scheme's own.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}
