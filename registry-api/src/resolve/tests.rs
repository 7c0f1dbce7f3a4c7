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
    Ok((target.repository.to_string(), format!("{}!{}", target.upstream.client.name(), target.upstream_name)))
}

#[test]
fn a_name_has_the_same_target_each_time() {
    let resolver = resolver(100);
    let target = |name: &str, ns| resolver.target(name, ns).map(|target| target.repository.to_string()).ok();
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

/// A registry whose projects mirror other ones, and Docker Hub as the root default.
fn of_projects() -> Resolver {
    let below = |prefix: &str, upstream_prefix: &str, include: &[&str]| Namespace {
        upstream_prefix: upstream_prefix.to_owned(),
        ..namespace(prefix, "harbor", include, &[])
    };
    let hosts = ["registry-1.docker.io", "docker.io", "registry.k8s.io"];
    let namespaces = vec![
        below("registry.k8s.io", "proxies/k8s", &["pause", "team/**"]),
        below("", "hub", &[]),
        below("docker.io", "hub", &[]),
        below("own", "", &[]),
    ];
    Resolver::new(vec![upstream("harbor", &hosts)], namespaces)
}

#[test]
fn a_namespace_leads_below_its_prefix_at_the_upstream() {
    let resolver = of_projects();
    for (name, ns, repository, upstream_name) in [
        ("alpine", None, "docker.io/library/alpine", "hub/library/alpine"),
        ("docker.io/alpine", None, "docker.io/library/alpine", "hub/library/alpine"),
        ("alpine", Some("docker.io"), "docker.io/library/alpine", "hub/library/alpine"),
        ("docker.io/team/app", Some("registry-1.docker.io"), "docker.io/team/app", "hub/team/app"),
        ("registry.k8s.io/pause", None, "registry.k8s.io/pause", "proxies/k8s/pause"),
        ("pause", Some("registry.k8s.io"), "registry.k8s.io/pause", "proxies/k8s/pause"),
        ("own/x", None, "own/x", "x"),
        // What is not below the prefix of the selected namespace is below that at the upstream.
        ("own/x", Some("docker.io"), "docker.io/own/x", "hub/own/x"),
    ] {
        let target = resolver.resolve(&RepositoryName::parse(name).unwrap(), ns).unwrap();
        let found = (target.repository.as_str(), target.upstream_name.as_str());
        assert_eq!(found, (repository, upstream_name), "{name} {ns:?}");
        assert_eq!(target.key.as_str(), format!("harbor@{upstream_name}"));
    }
}

#[test]
fn rules_apply_to_the_name_without_the_prefix_at_the_upstream() {
    let resolver = of_projects();
    let is_admitted = |name: &str| resolver.target(&format!("registry.k8s.io/{name}"), None).is_ok();
    assert!(is_admitted("pause") && is_admitted("team/deep/x"));
    assert!(!is_admitted("proxies/k8s/pause") && !is_admitted("other/x"));
}

#[test]
fn a_repository_of_the_upstream_is_found_in_a_namespace_that_leads_to_it() {
    let resolver = of_projects();
    let target = |prefix: &str, name: &str| {
        let target = resolver.upstream_repository(prefix, "harbor", RepositoryName::parse(name).unwrap())?;
        assert_eq!(target.upstream_name.as_str(), name);
        Ok::<_, ApiError>(target.repository.to_string())
    };
    assert_eq!(target("", "hub/library/alpine").unwrap(), "docker.io/library/alpine");
    assert_eq!(target("registry.k8s.io", "proxies/k8s/pause").unwrap(), "registry.k8s.io/pause");
    // The namespace is gone, or leads elsewhere by now.
    for gone in ["gone", "registry.k8s.io"] {
        assert_eq!(target(gone, "hub/library/alpine").unwrap(), "docker.io/library/alpine");
    }
    assert_eq!(target("gone", "other/x").unwrap(), "own/other/x");
    assert!(matches!(target("registry.k8s.io", "proxies/k8s/x"), Err(ApiError::Excluded { .. })));
}
