//! From a request to a repository here and a repository at an upstream.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use oci_types::RepositoryName;
use shared_models::db::repositories::NewRepository;
use upstream_client::DOCKER_HUB_HOSTS;

use crate::{
    config::{Namespace, UpstreamPolicy},
    error::ApiError,
};

/// What a request is about.
#[derive(Clone)]
pub(crate) struct Target {
    /// The repository here: one row for every spelling that leads to the same upstream repository by the same prefix.
    pub(crate) repository: RepositoryName,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) upstream: Arc<UpstreamPolicy>,
    /// The repository there.
    pub(crate) upstream_name: RepositoryName,
}

impl Target {
    /// The row to record when upstream has confirmed what was asked for.
    pub(crate) fn row(&self) -> NewRepository {
        NewRepository {
            name: self.repository.clone(),
            upstream: self.upstream.client.name().to_owned(),
            upstream_name: self.upstream_name.clone(),
        }
    }
}

/// The configured names, ready to be looked up.
pub(crate) struct Resolver {
    upstreams: HashMap<String, Arc<UpstreamPolicy>>,
    /// What `?ns=` may say.
    hosts: HashMap<String, Arc<Namespace>>,
    /// The first namespace of each upstream that has a prefix; its root default where none has.
    homes: HashMap<String, Arc<Namespace>>,
    /// The longest prefix first.
    namespaces: Vec<Arc<Namespace>>,
    /// Where names lead to that were asked for without a host. That never changes, but there may be many names.
    known: RwLock<HashMap<String, Arc<Target>>>,
}

/// The most names that are remembered.
const MOST_KNOWN: usize = 10_000;

impl Resolver {
    pub(crate) fn new(upstreams: Vec<UpstreamPolicy>, namespaces: Vec<Namespace>) -> Self {
        let mut namespaces: Vec<_> = namespaces.into_iter().map(Arc::new).collect();
        let mut homes: HashMap<String, Arc<Namespace>> = HashMap::new();
        for namespace in &namespaces {
            let home = homes.entry(namespace.upstream.clone()).or_insert_with(|| Arc::clone(namespace));
            if home.prefix.is_empty() {
                *home = Arc::clone(namespace);
            }
        }
        namespaces.sort_by_key(|namespace| std::cmp::Reverse(namespace.prefix.len()));
        let home_of = |upstream: &UpstreamPolicy| homes.get(upstream.client.name()).cloned();
        let hosts = upstreams
            .iter()
            .filter_map(|upstream| Some((upstream, home_of(upstream)?)))
            .flat_map(|(upstream, home)| {
                upstream.hosts.iter().map(move |host| (host.to_ascii_lowercase(), Arc::clone(&home)))
            })
            .collect();
        let upstreams = upstreams
            .into_iter()
            .map(|upstream| (upstream.client.name().to_owned(), Arc::new(upstream)))
            .collect();
        Self { upstreams, hosts, homes, namespaces, known: RwLock::default() }
    }

    /// Every upstream.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Arc<UpstreamPolicy>> {
        self.upstreams.values()
    }

    /// Finds what a name, as a client sent it, leads to, and `ns` where there is one.
    ///
    /// # Errors
    /// As [`Resolver::resolve`]; [`ApiError::Name`] when it is no name.
    pub(crate) fn target(&self, name: &str, ns: Option<&str>) -> Result<Arc<Target>, ApiError> {
        if ns.is_some() {
            return self.resolve(&RepositoryName::parse(name)?, ns).map(Arc::new);
        }
        if let Some(target) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Arc::clone(target));
        }
        let target = Arc::new(self.resolve(&RepositoryName::parse(name)?, None)?);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(name.to_owned(), Arc::clone(&target));
        Ok(target)
    }

    /// Finds what `name`, and `ns` where the client sent it, leads to.
    ///
    /// # Errors
    /// [`ApiError::UnknownRepository`], [`ApiError::Excluded`]; [`ApiError::Name`] when the name becomes too long.
    pub(crate) fn resolve(&self, name: &RepositoryName, ns: Option<&str>) -> Result<Target, ApiError> {
        let (namespace, rest) = match ns {
            Some(host) => (self.hosts.get(&host.to_ascii_lowercase()), Some(name.clone())),
            None => {
                let found = self
                    .namespaces
                    .iter()
                    .find_map(|namespace| name.strip_prefix(&namespace.prefix).map(|rest| (namespace, rest)));
                found.map_or((None, None), |(namespace, rest)| (Some(namespace), Some(rest)))
            }
        };
        let (Some(namespace), Some(rest)) = (namespace, rest) else {
            return Err(ApiError::UnknownRepository);
        };
        let upstream = self.upstreams.get(&namespace.upstream).ok_or(ApiError::UnknownRepository)?;
        let upstream_name = if is_docker_hub(upstream) && rest.segments().count() == 1 {
            rest.below("library")?
        } else {
            rest
        };
        allowed(namespace, &upstream_name)?;
        let prefix = self.prefix_of(namespace);
        Ok(Target {
            repository: upstream_name.below(prefix)?,
            namespace: Arc::clone(namespace),
            upstream: Arc::clone(upstream),
            upstream_name,
        })
    }

    /// The prefix under which a namespace's repositories are kept: its own, and for the root default the upstream's named
    /// one, so that both spellings share what is known.
    fn prefix_of<'a>(&'a self, namespace: &'a Namespace) -> &'a str {
        if !namespace.prefix.is_empty() {
            return &namespace.prefix;
        }
        self.homes.get(&namespace.upstream).map_or("", |home| &home.prefix)
    }
}

fn is_docker_hub(upstream: &UpstreamPolicy) -> bool {
    upstream.hosts.iter().any(|host| DOCKER_HUB_HOSTS.contains(&host.as_str()))
}

fn allowed(namespace: &Namespace, name: &RepositoryName) -> Result<(), ApiError> {
    if let Some(rule) = namespace.exclude.matching(name.as_str()) {
        return Err(ApiError::Excluded { rule: format!("exclude {rule}") });
    }
    if !namespace.include.is_empty() && namespace.include.matching(name.as_str()).is_none() {
        return Err(ApiError::Excluded { rule: "it matches no include".to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use upstream_client::{Unobserved, Upstream, UpstreamConfig};

    use super::*;
    use crate::config::{Prefetch, Rules, WhenDeleted};

    fn upstream(name: &str, hosts: &[&str]) -> UpstreamPolicy {
        let url = format!("http://{name}.test").parse().unwrap();
        UpstreamPolicy {
            client: Upstream::new(UpstreamConfig::new(name, url), Arc::new(Unobserved)).unwrap(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            tag_ttl: Duration::from_secs(60),
            stale_if_error: None,
            when_deleted: WhenDeleted::Serve,
            fetch_on_head: true,
            offline: false,
        }
    }

    fn namespace(prefix: &str, upstream: &str, include: &[&str], exclude: &[&str]) -> Namespace {
        let rules = |globs: &[&str]| {
            Rules::new(&globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        Namespace {
            prefix: prefix.to_owned(),
            upstream: upstream.to_owned(),
            include: rules(include),
            exclude: rules(exclude),
            prefetch: Prefetch::None,
            platforms: Vec::new(),
            immutable_tags: Rules::default(),
        }
    }

    fn resolver() -> Resolver {
        Resolver::new(
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
        )
    }

    fn resolved(name: &str, ns: Option<&str>) -> Result<(String, String), ApiError> {
        let target = resolver().resolve(&RepositoryName::parse(name).unwrap(), ns)?;
        Ok((
            target.repository.to_string(),
            format!("{}!{}", target.upstream.client.name(), target.upstream_name),
        ))
    }

    #[test]
    fn a_name_leads_to_the_same_place_each_time_it_is_asked_for() {
        let resolver = resolver();
        let lead =
            |name: &str, ns| resolver.target(name, ns).map(|target| target.repository.to_string()).ok();
        for _ in 0..2 {
            assert_eq!(lead("alpine", None).as_deref(), Some("docker.io/library/alpine"));
            assert_eq!(lead("alpine", Some("other.test:5000")).as_deref(), Some("cache/alpine"));
            assert_eq!(lead("cache/secret/x", None), None);
            assert_eq!(lead("X", None), None);
        }
        for number in 0..=MOST_KNOWN {
            assert_eq!(lead(&format!("x{number}"), None), Some(format!("docker.io/library/x{number}")));
        }
        assert_eq!(lead("alpine", None).as_deref(), Some("docker.io/library/alpine"));
        assert!(resolver.known.read().unwrap().len() <= MOST_KNOWN);
    }

    fn leads(name: &str, ns: Option<&str>, repository: &str, upstream: &str) {
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
            leads(name, ns, "docker.io/library/alpine", "docker.io!library/alpine");
        }
        leads("team/app", None, "docker.io/team/app", "docker.io!team/app");
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        leads("cache/x/y", None, "cache/x/y", "other!x/y");
        leads("cache/deep/team/x", None, "cache/deep/team/x", "other!team/x");
        leads("cache2/x", None, "docker.io/cache2/x", "docker.io!cache2/x");
        leads("cache", None, "docker.io/library/cache", "docker.io!library/cache");
    }

    #[test]
    fn ns_is_looked_up_and_never_dialled() {
        leads("x", Some("other.test:5000"), "cache/x", "other!x");
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
        assert_eq!(rule("cache/deep/elsewhere/x"), "it matches no include");
    }
}
