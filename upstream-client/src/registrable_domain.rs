//! Which hosts belong to one party.

/// Domains with unrelated tenants that the Public Suffix List does not contain: registries and hosting services that set
/// no cookies below them.
const MULTI_TENANT_DOMAINS: [&str; 20] = [
    "aliyuncs.com",
    "amazonaws.com",
    "amazonaws.com.cn",
    "azure.com",
    "azurecr.cn",
    "azurecr.io",
    "azurecr.us",
    "backblazeb2.com",
    "cloudflarestorage.com",
    "cloudsmith.io",
    "fastly.net",
    "github.dev",
    "googleusercontent.com",
    "jfrog.io",
    "nip.io",
    "on.aws",
    "oraclecloud.com",
    "pkg.dev",
    "sslip.io",
    "windows.net",
];

/// Whether one party registered the domain of both hosts (<https://publicsuffix.org>). False where that is not certain.
pub(crate) fn same_party(one: &str, other: &str) -> bool {
    registrable_domain(one).is_some_and(|domain| registrable_domain(other) == Some(domain))
}

fn registrable_domain(host: &str) -> Option<&str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    psl::domain_str(host).filter(|domain| !is_below_multi_tenant_domain(domain))
}

fn is_below_multi_tenant_domain(domain: &str) -> bool {
    MULTI_TENANT_DOMAINS
        .iter()
        .any(|shared| domain.strip_suffix(shared).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_below_one_registered_domain_belong_to_one_party() {
        for (one, other) in [
            ("registry.gitlab.com", "gitlab.com"),
            ("registry.example.co.uk", "git.example.co.uk"),
            ("registry.abc.de", "auth.abc.de"),
            ("registry.example.internal.", "git.example.internal"),
            ("registry.mine.github.io", "mine.github.io"),
        ] {
            assert!(same_party(one, other) && same_party(other, one), "{one} {other}");
        }
    }

    #[test]
    fn tenants_of_a_shared_domain_do_not() {
        for (one, other) in [
            ("mine.co.uk", "evil.co.uk"),
            ("mine.com.au", "evil.com.au"),
            ("mine.eu.org", "evil.eu.org"),
            ("mine.github.io", "evil.github.io"),
            ("mine.azurecr.io", "evil.azurecr.io"),
            ("europe-docker.pkg.dev", "evil.pkg.dev"),
            ("mine.jfrog.io", "evil.jfrog.io"),
            ("mine.s3.amazonaws.com", "evil.s3.amazonaws.com"),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "2.dkr.ecr.eu-west-1.amazonaws.com"),
            ("mine-xyz.a.run.app", "evil-xyz.a.run.app"),
            ("localhost", "localhost"),
            ("example.com", "badexample.com"),
            ("com", "com"),
            ("", ""),
        ] {
            assert!(!same_party(one, other), "{one} {other}");
        }
    }
}
