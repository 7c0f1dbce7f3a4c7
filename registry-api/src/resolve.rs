//! From a request to a repository and its upstream repository.

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
    /// The first namespace of each upstream that has a prefix; without one, its root namespace.
    primary: HashMap<String, Arc<Namespace>>,
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
        let mut primary: HashMap<String, Arc<Namespace>> = HashMap::new();
        for namespace in &namespaces {
            let first =
                primary.entry(namespace.upstream_name().to_owned()).or_insert_with(|| Arc::clone(namespace));
            if first.prefix.is_empty() {
                *first = Arc::clone(namespace);
            }
        }
        namespaces.sort_by_key(|namespace| std::cmp::Reverse(namespace.prefix.len()));
        let mut hosts = HashMap::new();
        for upstream in &upstreams {
            let Some(namespace) = primary.get(upstream.client.name()) else { continue };
            for host in &upstream.policy.hosts {
                hosts.insert(host.to_ascii_lowercase(), Arc::clone(namespace));
            }
        }
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
        let upstream_name = if is_docker_hub(upstream) && rest.segments().count() == 1 {
            rest.below("library")?
        } else {
            rest
        };
        self.admit(namespace, upstream, upstream_name)
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
        let mut namespaces = self.namespaces.iter().filter(|namespace| namespace.upstream_name() == upstream);
        let namespace = namespaces
            .clone()
            .find(|namespace| namespace.prefix == prefix)
            .or_else(|| namespaces.next())
            .ok_or(ApiError::UnknownRepository)?;
        let upstream = self.upstreams.get(upstream).ok_or(ApiError::UnknownRepository)?;
        self.admit(namespace, upstream, upstream_name)
    }

    /// The target, if the rules of the namespace admit the repository.
    fn admit(
        &self,
        namespace: &Arc<Namespace>,
        upstream: &Arc<ConfiguredUpstream>,
        upstream_name: RepositoryName,
    ) -> Result<Target, ApiError> {
        check_rules(namespace, &upstream_name)?;
        Ok(Target {
            repository: upstream_name.below(self.prefix_of(namespace))?,
            key: proxy(upstream, &upstream_name).key(),
            namespace: Arc::clone(namespace),
            upstream: Arc::clone(upstream),
            upstream_name,
        })
    }

    /// The prefix of the repositories of a namespace: its own; for the root namespace, that of the upstream's primary one,
    /// so that both spellings share a repository.
    fn prefix_of<'a>(&'a self, namespace: &'a Namespace) -> &'a str {
        if !namespace.prefix.is_empty() {
            return &namespace.prefix;
        }
        self.primary.get(namespace.upstream_name()).map_or("", |primary| &primary.prefix)
    }
}

impl Namespace {
    /// Whether this namespace has a prefix, and the upstream of `other`.
    fn is_explicit_for(&self, other: &Self) -> bool {
        !self.prefix.is_empty() && self.upstream == other.upstream
    }
}

fn is_docker_hub(upstream: &ConfiguredUpstream) -> bool {
    upstream.policy.hosts.iter().any(|host| DOCKER_HUB_HOSTS.contains(&host.as_str()))
}

/// Whether the rules of the namespace admit an upstream repository.
fn check_rules(namespace: &Namespace, name: &RepositoryName) -> Result<(), ApiError> {
    if let Some(rule) = namespace.exclude.matching(name.as_str()) {
        return Err(ApiError::Excluded { rule: format!("exclude {rule}") });
    }
    if !namespace.include.is_empty() && namespace.include.matching(name.as_str()).is_none() {
        return Err(ApiError::Excluded { rule: "include (no pattern matches)".to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use upstream_client::{Unobserved, Upstream, UpstreamConfig};

    use super::*;
    use crate::config::{Prefetch, Rules, UpstreamPolicy};

    fn upstream(name: &str, hosts: &[&str]) -> ConfiguredUpstream {
        let url = format!("http://{name}.test").parse().unwrap();
        ConfiguredUpstream {
            client: Upstream::new(UpstreamConfig::new(name, url), Arc::new(Unobserved)).unwrap(),
            policy: UpstreamPolicy {
                hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
                ..UpstreamPolicy::default()
            },
        }
    }

    fn namespace(prefix: &str, upstream: &str, include: &[&str], exclude: &[&str]) -> Namespace {
        let rules = |globs: &[&str]| {
            Rules::new(&globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        Namespace {
            include: rules(include),
            exclude: rules(exclude),
            prefetch: Prefetch::None,
            ..Namespace::new(prefix, upstream)
        }
    }

    fn resolver(max_cached: usize) -> Resolver {
        Resolver::with_max_cached(
            vec![
                upstream("docker.io", &["docker.io", "registry-1.docker.io"]),
                upstream("other", &["other.test:5000"]),
            ],
            vec![
                namespace("", "docker.io", &[], &[]),
                namespace("docker.io", "docker.io", &[], &[]),
                namespace("cache", "other", &[], &["secret/**"]),
                namespace("cache/deep", "other", &["team/*"], &["team/no"]),
            ],
            max_cached,
        )
    }

    fn resolved(name: &str, ns: Option<&str>) -> Result<(String, String), ApiError> {
        let target = resolver(1).resolve(&RepositoryName::parse(name).unwrap(), ns)?;
        Ok((
            target.repository.to_string(),
            format!("{}!{}", target.upstream.client.name(), target.upstream_name),
        ))
    }

    #[test]
    fn a_name_has_the_same_target_each_time() {
        let resolver = resolver(100);
        let target =
            |name: &str, ns| resolver.target(name, ns).map(|target| target.repository.to_string()).ok();
        for _ in 0..2 {
            assert_eq!(target("alpine", None).as_deref(), Some("docker.io/library/alpine"));
            assert_eq!(target("alpine", Some("other.test:5000")).as_deref(), Some("cache/alpine"));
            assert_eq!(target("cache/secret/x", None), None);
            assert_eq!(target("X", None), None);
        }
    }

    #[test]
    fn the_number_of_cached_names_is_bounded_and_an_evicted_name_resolves_again() {
        let resolver = resolver(3);
        let target = |name: &str| resolver.target(name, None).map(|target| target.repository.to_string());
        for name in ["a", "b", "c", "d", "e", "a"] {
            assert_eq!(target(name).unwrap(), format!("docker.io/library/{name}"));
            assert!(resolver.cached.read().len() <= 3);
        }
    }

    fn assert_target(name: &str, ns: Option<&str>, repository: &str, upstream: &str) {
        let found = resolved(name, ns).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found, (repository.to_owned(), upstream.to_owned()), "{name} {ns:?}");
    }

    #[test]
    fn every_spelling_of_a_docker_hub_repository_is_one_repository() {
        for (name, ns) in [
            ("alpine", None),
            ("library/alpine", None),
            ("docker.io/alpine", None),
            ("docker.io/library/alpine", None),
            ("library/alpine", Some("docker.io")),
            ("alpine", Some("REGISTRY-1.docker.io")),
        ] {
            assert_target(name, ns, "docker.io/library/alpine", "docker.io!library/alpine");
        }
        assert_target("team/app", None, "docker.io/team/app", "docker.io!team/app");
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        assert_target("cache/x/y", None, "cache/x/y", "other!x/y");
        assert_target("cache/deep/team/x", None, "cache/deep/team/x", "other!team/x");
        assert_target("cache2/x", None, "docker.io/cache2/x", "docker.io!cache2/x");
        assert_target("cache", None, "docker.io/library/cache", "docker.io!library/cache");
    }

    #[test]
    fn ns_selects_a_configured_upstream() {
        assert_target("x", Some("other.test:5000"), "cache/x", "other!x");
        // The prefix of a namespace of that upstream may come before the name.
        assert_target("cache/x", Some("other.test:5000"), "cache/x", "other!x");
        assert_target("cache/deep/team/x", Some("other.test:5000"), "cache/deep/team/x", "other!team/x");
        assert_target("docker.io/library/x", Some("docker.io"), "docker.io/library/x", "docker.io!library/x");
        assert_target("cache/x", Some("docker.io"), "docker.io/cache/x", "docker.io!cache/x");
    }

    #[test]
    fn an_unknown_ns_leaves_the_choice_to_a_prefix_that_is_written() {
        assert_target("cache/x", Some("registry.example.com"), "cache/x", "other!x");
        assert!(matches!(resolved("x", Some("registry.example.com")), Err(ApiError::UnknownRepository)));
    }

    #[test]
    fn unknown_hosts_and_excluded_names_are_refused() {
        for host in ["other.test", "127.0.0.1:80", "", "docker.io:443"] {
            assert!(matches!(resolved("x", Some(host)), Err(ApiError::UnknownRepository)), "{host}");
        }
        let rule = |name| match resolved(name, None) {
            Err(ApiError::Excluded { rule }) => rule,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(rule("cache/secret/x"), "exclude secret/**");
        assert_eq!(rule("cache/deep/team/no"), "exclude team/no");
        assert_eq!(rule("cache/deep/elsewhere/x"), "include (no pattern matches)");
    }
}
