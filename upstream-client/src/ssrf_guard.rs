//! The SSRF guard: redirects and token realms must not lead into the internal network, to services that trust the
//! address of this process.

mod public_address;

use std::{error::Error, net::SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use self::public_address::is_public;
use crate::UpstreamError;

/// A host whose addresses are all blocked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the address is not public")]
struct BlockedAddress;

/// Resolves names as the system does, without the addresses that are not public.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> =
                resolved.iter().copied().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() && !resolved.is_empty() {
                return Err(BlockedAddress.into());
            }
            Ok::<Addrs, _>(Box::new(public.into_iter()))
        })
    }
}

/// Whether the host of a URL is an address that is not public. The resolver does not see such a host.
pub(crate) fn is_blocked_address(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => !is_public(address.into()),
        Some(Host::Ipv6(address)) => !is_public(address.into()),
        Some(Host::Domain(_)) => false,
        None => true,
    }
}

/// The domains of internal networks (RFC 6761, RFC 6762, RFC 8375, and those in common use that are not delegated).
const PRIVATE_DOMAINS: [&str; 6] = ["localhost", "local", "internal", "corp", "lan", "home.arpa"];

/// Whether the host of a URL is a name that no public host has. A proxy would resolve it in its own network.
pub(crate) fn is_private_name(url: &Url) -> bool {
    let Some(name) = url.domain() else { return false };
    let name = name.trim_end_matches('.');
    let is_below =
        |domain: &&str| name.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.contains('.') || PRIVATE_DOMAINS.iter().any(is_below)
}

/// Whether the resolver of this guard is the cause of an error.
pub(crate) fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|error| error.is::<BlockedAddress>())
}

/// The error for a host that is blocked.
pub(crate) fn blocked(host: &str) -> UpstreamError {
    UpstreamError::invalid_response(format!("{host} is not a public host (allow_private would permit it)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_address_is_recognized_in_every_notation() {
        for url in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://127.0.0.1./",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert!(is_blocked_address(&Url::parse(url).unwrap()), "{url}");
        }
        assert!(!is_blocked_address(&Url::parse("https://registry-1.docker.io/").unwrap()));
    }

    #[test]
    fn a_name_that_no_public_host_has_is_recognized() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "intranet",
            "printer.local",
            "metadata.google.internal",
            "git.corp",
            "nas.lan.",
            "router.home.arpa",
        ] {
            assert!(is_private_name(&Url::parse(&format!("http://{host}/")).unwrap()), "{host}");
        }
        for host in ["notlocalhost.com", "corp.example.com", "local.example", "xlan.com", "8.8.8.8", "[::1]"]
        {
            assert!(!is_private_name(&Url::parse(&format!("https://{host}/")).unwrap()), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_with_no_public_address_does_not_resolve() {
        let error = PublicResolver.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert!(is_cause_of(error.as_ref()));
    }
}
