//! From a request to a repository and its upstream repository.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use oci_types::RepositoryName;
use parking_lot::RwLock;
use shared_models::db::repositories::{NewRepository, Repository, RepositoryKey};
use upstream_client::DOCKER_HUB_HOSTS;

use crate::{
    config::{ConfiguredUpstream, Namespace},
    error::ApiError,
};

/// The repository that a request is for.
#[derive(Clone)]
pub(crate) struct Target {
    /// The name of the repository for clients: the same for every spelling by the same prefix.
    pub(crate) repository: RepositoryName,
    /// The identity of the repository. What belongs to the repository is found by it alone.
    pub(crate) key: RepositoryKey,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) upstream: Arc<ConfiguredUpstream>,
    /// The repository at the upstream.
    pub(crate) upstream_name: RepositoryName,
}

impl Target {
    /// The row to record once the upstream has confirmed what the request is for.
    pub(crate) fn row(&self) -> NewRepository {
        let repository = proxy(&self.upstream, &self.upstream_name);
        NewRepository { name: self.repository.clone(), repository }
    }
}

fn proxy(upstream: &ConfiguredUpstream, upstream_name: &RepositoryName) -> Repository {
    Repository::Proxy { upstream: upstream.client.name().to_owned(), upstream_name: upstream_name.clone() }
}

/// The configured namespaces and upstreams, indexed for lookups.
pub(crate) struct Resolver {
    upstreams: HashMap<String, Arc<ConfiguredUpstream>>,
    /// The namespace of each host that `?ns=` may name, in lower case.
    hosts: HashMap<String, Arc<Namespace>>,
    /// The first namespace of each destination that has a prefix; without one, its root namespace.
    primary: Vec<Arc<Namespace>>,
    /// The longest prefix first.
    namespaces: Vec<Arc<Namespace>>,
    /// The targets of names without `?ns=`. They never change; the number of names is bounded.
    cached: RwLock<HashMap<String, Arc<Target>>>,
    max_cached: usize,
}

/// The maximum number of names in the cache.
const MAX_CACHED_NAMES: usize = 10_000;

impl Resolver {
    pub(crate) fn new(upstreams: Vec<ConfiguredUpstream>, namespaces: Vec<Namespace>) -> Self {
        Self::with_max_cached(upstreams, namespaces, MAX_CACHED_NAMES)
    }

    fn with_max_cached(
        upstreams: Vec<ConfiguredUpstream>,
        namespaces: Vec<Namespace>,
        max_cached: usize,
    ) -> Self {
        let mut namespaces: Vec<_> = namespaces.into_iter().map(Arc::new).collect();
        let mut primary: Vec<Arc<Namespace>> = Vec::new();
        for namespace in &namespaces {
            match primary.iter_mut().find(|first| first.has_destination_of(namespace)) {
                Some(first) if first.prefix.is_empty() => *first = Arc::clone(namespace),
                Some(_) => {}
                None => primary.push(Arc::clone(namespace)),
            }
        }
        let mut hosts = HashMap::new();
        for upstream in &upstreams {
            for host in &upstream.policy.hosts {
                if let Some(namespace) = of_host(host, upstream.client.name(), &namespaces, &primary) {
                    hosts.insert(host.to_ascii_lowercase(), Arc::clone(namespace));
                }
            }
        }
        namespaces.sort_by_key(|namespace| std::cmp::Reverse(namespace.prefix.len()));
        let upstreams = upstreams
            .into_iter()
            .map(|upstream| (upstream.client.name().to_owned(), Arc::new(upstream)))
            .collect();
        Self { upstreams, hosts, primary, namespaces, cached: RwLock::default(), max_cached }
    }

    /// Every upstream.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Arc<ConfiguredUpstream>> {
        self.upstreams.values()
    }

    /// The target of a name as a client sent it, and of the host in `?ns=` where there is one.
    ///
    /// # Errors
    /// As [`Resolver::resolve`]; [`ApiError::Name`] for an invalid name.
    pub(crate) fn target(&self, name: &str, ns: Option<&str>) -> Result<Arc<Target>, ApiError> {
        if ns.is_some() {
            return self.resolve(&RepositoryName::parse(name)?, ns).map(Arc::new);
        }
        if let Some(target) = self.cached.read().get(name) {
            return Ok(Arc::clone(target));
        }
        let target = Arc::new(self.resolve(&RepositoryName::parse(name)?, None)?);
        let mut cached = self.cached.write();
        if cached.len() >= self.max_cached {
            cached.clear();
        }
        cached.insert(name.to_owned(), Arc::clone(&target));
        Ok(target)
    }

    /// The target of `name`, and of the host in `?ns=` where there is one.
    ///
    /// # Errors
    /// [`ApiError::UnknownRepository`], [`ApiError::Excluded`]; [`ApiError::Name`] when the name becomes too long.
    pub(crate) fn resolve(&self, name: &RepositoryName, ns: Option<&str>) -> Result<Target, ApiError> {
        let (namespace, rest) = match ns.map(|host| self.hosts.get(&host.to_ascii_lowercase())) {
            // The address of the mirror may have the prefix of a namespace of the host, and the name with it.
            Some(Some(namespace)) => self
                .by_prefix(name, |other| other.is_explicit_for(namespace))
                .or_else(|| Some((namespace, name.clone()))),
            // The root namespace is not for other registries: their images have nothing to do with its own.
            Some(None) => self.by_prefix(name, |namespace| !namespace.prefix.is_empty()),
            None => self.by_prefix(name, |_| true),
        }
        .ok_or(ApiError::UnknownRepository)?;
        let upstream = self.upstreams.get(namespace.upstream_name()).ok_or(ApiError::UnknownRepository)?;
        let name = if self.is_docker_hub(namespace) && rest.segments().count() == 1 {
            rest.below("library")?
        } else {
            rest
        };
        self.admit(namespace, upstream, &name)
    }

    /// The namespace with the longest prefix of a name, among those that are `admitted`, and the rest of the name.
    fn by_prefix(
        &self,
        name: &RepositoryName,
        admitted: impl Fn(&Namespace) -> bool,
    ) -> Option<(&Arc<Namespace>, RepositoryName)> {
        let mut namespaces = self.namespaces.iter().filter(|namespace| admitted(namespace));
        namespaces.find_map(|namespace| Some((namespace, name.strip_prefix(&namespace.prefix)?)))
    }

    /// The prefixes of the namespaces, without the empty one.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().map(|namespace| namespace.prefix.as_str()).filter(|prefix| !prefix.is_empty())
    }

    /// Whether a namespace has this prefix, which is not empty.
    pub(crate) fn is_prefix(&self, text: &str) -> bool {
        self.prefixes().any(|prefix| prefix == text)
    }

    /// The target of a repository of an upstream in the namespace with this prefix, or in another one of the upstream if that
    /// namespace is no longer configured.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub(crate) fn upstream_repository(
        &self,
        prefix: &str,
        upstream: &str,
        upstream_name: RepositoryName,
    ) -> Result<Target, ApiError> {
        let mut names =
            self.namespaces.iter().filter(|namespace| namespace.upstream_name() == upstream).filter_map(
                |namespace| Some((namespace, upstream_name.strip_prefix(&namespace.upstream_prefix)?)),
            );
        let (namespace, name) = names
            .clone()
            .find(|(namespace, _)| namespace.prefix == prefix)
            .or_else(|| names.next())
            .ok_or(ApiError::UnknownRepository)?;
        let upstream = self.upstreams.get(upstream).ok_or(ApiError::UnknownRepository)?;
        self.admit(namespace, upstream, &name)
    }

    /// The target of a name below the prefixes of the namespace, if the rules of the namespace admit it.
    fn admit(
        &self,
        namespace: &Arc<Namespace>,
        upstream: &Arc<ConfiguredUpstream>,
        name: &RepositoryName,
    ) -> Result<Target, ApiError> {
        check_rules(namespace, name)?;
        let upstream_name = name.below(&namespace.upstream_prefix)?;
        Ok(Target {
            repository: name.below(self.prefix_of(namespace))?,
            key: proxy(upstream, &upstream_name).key(),
            namespace: Arc::clone(namespace),
            upstream: Arc::clone(upstream),
            upstream_name,
        })
    }

    /// Whether a namespace leads to Docker Hub, or to what mirrors it.
    fn is_docker_hub(&self, namespace: &Namespace) -> bool {
        let mut hosts = DOCKER_HUB_HOSTS.iter().filter_map(|host| self.hosts.get(*host));
        hosts.any(|of_host| of_host.has_destination_of(namespace))
    }

    /// The prefix of the repositories of a namespace: its own; for the root namespace, that of the primary one with its
    /// destination, so that both spellings share a repository.
    fn prefix_of<'a>(&'a self, namespace: &'a Namespace) -> &'a str {
        if !namespace.prefix.is_empty() {
            return &namespace.prefix;
        }
        let mut primary = self.primary.iter();
        primary.find(|primary| primary.has_destination_of(namespace)).map_or("", |primary| &primary.prefix)
    }
}

impl Namespace {
    /// Whether this namespace has a prefix, and the destination of `other`.
    fn is_explicit_for(&self, other: &Self) -> bool {
        !self.prefix.is_empty() && self.has_destination_of(other)
    }

    /// Whether equal names in this namespace and in `other` are one repository: upstream and `upstream_prefix` are equal.
    fn has_destination_of(&self, other: &Self) -> bool {
        self.upstream == other.upstream && self.upstream_prefix == other.upstream_prefix
    }
}

/// The namespace of a host that selects an upstream: the one with the host as its prefix, else the first of the upstream.
fn of_host<'a>(
    host: &str,
    upstream: &str,
    namespaces: &'a [Arc<Namespace>],
    primary: &'a [Arc<Namespace>],
) -> Option<&'a Arc<Namespace>> {
    let is_of_upstream = |namespace: &&Arc<Namespace>| namespace.upstream_name() == upstream;
    let is_docker_hub = |host: &str| DOCKER_HUB_HOSTS.contains(&host);
    let has_prefix = |namespace: &&Arc<Namespace>| {
        namespace.prefix == host || (is_docker_hub(&namespace.prefix) && is_docker_hub(host))
    };
    let named = namespaces.iter().filter(is_of_upstream).find(has_prefix);
    named.or_else(|| primary.iter().find(is_of_upstream))
}

/// Whether the rules of the namespace admit a repository, by its name without the prefixes of the namespace.
fn check_rules(namespace: &Namespace, name: &RepositoryName) -> Result<(), ApiError> {
    if let Some(rule) = namespace.exclude.matching(name.as_str()) {
        return Err(ApiError::Excluded { rule: format!("exclude {rule}") });
    }
    if !namespace.include.is_empty() && namespace.include.matching(name.as_str()).is_none() {
        return Err(ApiError::Excluded { rule: "include (no pattern matches)".to_owned() });
    }
    Ok(())
}
