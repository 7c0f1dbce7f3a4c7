//! Which token services an upstream may refer to. They receive the credentials of the upstream.

use url::{Host, Url};

use crate::{
    UpstreamConfigError,
    docker_hub::{DOCKER_HUB_HOSTS, DOCKER_HUB_TOKEN_HOST},
    error::host_and_port,
    registrable_domain::same_party,
};

/// The token services that one upstream may refer to.
#[derive(Debug)]
pub(crate) struct TokenRealms {
    upstream: Url,
    configured: Vec<(Host<String>, Option<u16>)>,
}

impl TokenRealms {
    /// `configured` are further hosts, as `host` or `host:port`.
    pub(crate) fn new(upstream: Url, configured: &[String]) -> Result<Self, UpstreamConfigError> {
        let configured = configured
            .iter()
            .map(|entry| parse_entry(entry).ok_or(UpstreamConfigError::Realm))
            .collect::<Result<_, _>>()?;
        Ok(Self { upstream, configured })
    }

    /// Checks the realm of a challenge by the upstream.
    ///
    /// # Errors
    /// The reason, which contains the host and nothing else of the URL.
    pub(crate) fn check(&self, realm: &Url) -> Result<(), String> {
        let allowed = self.is_same_host(realm) || self.is_configured(realm) || self.is_related(realm);
        self.check_url(realm, allowed)
    }

    /// Checks the realm of a challenge by a host that the upstream redirected to.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn check_listed(&self, realm: &Url) -> Result<(), String> {
        self.check_url(realm, self.is_configured(realm))
    }

    fn check_url(&self, realm: &Url, allowed: bool) -> Result<(), String> {
        let host = host_and_port(realm);
        match (self.upstream.scheme(), realm.scheme()) {
            (_, "https") | ("http", "http") => {}
            _ => return Err(format!("token realm {host} does not use https")),
        }
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(format!("token realm {host} contains credentials"));
        }
        if allowed {
            Ok(())
        } else {
            Err(format!("token realm {host} is not allowed (realms would permit it)"))
        }
    }

    fn is_same_host(&self, realm: &Url) -> bool {
        realm.host() == self.upstream.host()
            && realm.port_or_known_default() == self.upstream.port_or_known_default()
    }

    fn is_configured(&self, realm: &Url) -> bool {
        self.configured.iter().any(|(host, port)| {
            realm.host().map(|realm| realm.to_owned()).as_ref() == Some(host) && realm.port() == *port
        })
    }

    /// Whether the realm is a host of the same registrable domain, or Docker Hub's, at the default port or the
    /// upstream's.
    fn is_related(&self, realm: &Url) -> bool {
        if realm.port().is_some() && realm.port() != self.upstream.port() {
            return false;
        }
        let (Some(Host::Domain(realm)), Some(Host::Domain(upstream))) = (realm.host(), self.upstream.host())
        else {
            return false;
        };
        let of_docker_hub = realm == DOCKER_HUB_TOKEN_HOST && DOCKER_HUB_HOSTS.contains(&upstream);
        of_docker_hub || same_party(realm, upstream)
    }
}

fn parse_entry(entry: &str) -> Option<(Host<String>, Option<u16>)> {
    let url = Url::parse(&format!("https://{entry}")).ok()?;
    let bare =
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !entry.contains(['/', '@']);
    bare.then(|| Some((url.host()?.to_owned(), url.port())))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(upstream: &str, listed: &[&str], realm: &str) -> bool {
        let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
        let realms = TokenRealms::new(Url::parse(upstream).unwrap(), &listed).unwrap();
        realms.check(&Url::parse(realm).unwrap()).is_ok()
    }

    #[test]
    fn realms_of_known_registries_are_allowed() {
        for (upstream, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://docker.io", "https://auth.docker.io/token"),
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://quay.io", "https://quay.io/v2/auth"),
            ("https://us-docker.pkg.dev", "https://us-docker.pkg.dev/v2/token"),
            ("https://mine.azurecr.io", "https://mine.azurecr.io/oauth2/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://registry.example.co.uk:5050", "https://git.example.co.uk/jwt/auth"),
            ("https://10.0.0.1:5000", "https://10.0.0.1:5000/token"),
            ("http://localhost:5000", "http://localhost:5000/token"),
        ] {
            assert!(allowed(upstream, &[], realm), "{upstream} {realm}");
        }
    }

    #[test]
    fn realms_of_other_parties_are_refused() {
        for (upstream, realm) in [
            ("https://registry.example.com", "https://evil.test/token"),
            ("https://registry.example.com", "https://example.com.evil.test/token"),
            ("https://registry.example.com", "https://badexample.com/token"),
            ("https://registry.example.com", "https://auth.docker.io/token"),
            ("https://mine.azurecr.io", "https://evil.azurecr.io/token"),
            ("https://mine.github.io", "https://evil.github.io/token"),
            ("https://mine.s3.amazonaws.com", "https://evil.s3.amazonaws.com/token"),
            ("https://mine.co.uk", "https://evil.co.uk/token"),
            ("https://mine.com.au", "https://evil.com.au/token"),
            ("https://10.0.0.1:5000", "https://10.0.0.1:6000/token"),
            ("https://10.0.0.1", "https://11.0.0.1/token"),
            ("https://registry", "https://evil/token"),
            ("https://registry.example.com", "https://auth.example.com:8443/token"),
            ("https://registry.example.com", "https://user:pw@registry.example.com/token"),
        ] {
            assert!(!allowed(upstream, &[], realm), "{upstream} {realm}");
        }
    }

    #[test]
    fn a_realm_uses_https_unless_the_upstream_does_not() {
        assert!(!allowed("https://r.example.com", &[], "http://r.example.com/token"));
        assert!(!allowed("https://r.example.com", &["r.example.com"], "ftp://r.example.com/token"));
        assert!(allowed("http://r.example.com", &[], "http://auth.example.com/token"));
        assert!(allowed("http://r.example.com", &[], "https://auth.example.com/token"));
    }

    #[test]
    fn a_configured_host_is_allowed_at_its_port() {
        assert!(allowed("https://r.example.com", &["login.test"], "https://login.test/token"));
        assert!(!allowed("https://r.example.com", &["login.test"], "https://login.test:8443/token"));
        assert!(allowed("https://r.example.com", &["login.test:8443"], "https://login.test:8443/token"));
        assert!(allowed(
            "https://r.example.com",
            &["[2001:db8::1]:8443"],
            "https://[2001:db8::1]:8443/token"
        ));
        for entry in ["", "https://login.test", "login.test/path", "a@login.test", "login.test?x", "a b"] {
            let realms = TokenRealms::new(Url::parse("https://a").unwrap(), &[entry.to_owned()]);
            assert!(realms.is_err(), "{entry:?}");
        }
    }
}
