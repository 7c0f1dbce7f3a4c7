//! The SSRF guard: redirects and token realms must not lead into the internal network, to services that trust the
//! address of this process, unless the upstream itself is there.

mod public_address;
mod zone;

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use self::zone::Zone;
use crate::UpstreamError;

/// A host whose addresses are all blocked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the address is not public")]
struct BlockedAddress;

/// The addresses that redirects and token realms of one upstream may lead to: public ones, and private ones if all addresses
/// of the upstream itself are private. Clones share what is known of the upstream.
#[derive(Debug, Clone)]
pub(crate) struct SsrfGuard {
    /// The zone of the upstream; `None` until it has answered.
    upstream: Arc<Mutex<Option<Zone>>>,
}

impl SsrfGuard {
    /// The guard of an upstream at this URL.
    pub(crate) fn new(upstream: &Url) -> Self {
        Self { upstream: Arc::new(Mutex::new(literal_address(upstream).map(Zone::of))) }
    }

    /// Records an address that the upstream has answered from. Once it was a public one, the upstream counts as public: a
    /// name must not lead into the internal network by a change of its address.
    pub(crate) fn observe(&self, address: IpAddr) {
        let observed = Zone::of(address.to_canonical());
        let mut upstream = self.upstream.lock();
        *upstream = Some(match *upstream {
            None => observed,
            Some(known) if known == observed => known,
            Some(Zone::Loopback | Zone::Private) if matches!(observed, Zone::Loopback | Zone::Private) => {
                Zone::Private
            }
            Some(_) => Zone::Public,
        });
    }

    fn admits(&self, address: IpAddr) -> bool {
        match Zone::of(address) {
            Zone::Public => true,
            Zone::Private => matches!(*self.upstream.lock(), Some(Zone::Private | Zone::Loopback)),
            Zone::Loopback => matches!(*self.upstream.lock(), Some(Zone::Loopback)),
            Zone::Special => false,
        }
    }

    /// Whether the host of a URL is an address that is not admitted. The resolver does not see such a host.
    pub(crate) fn blocks_address(&self, url: &Url) -> bool {
        literal_address(url).map_or(!url.has_host(), |address| !self.admits(address))
    }
}

/// Resolves names as the system does, without the addresses that are not admitted.
impl Resolve for SsrfGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let admitted: Vec<SocketAddr> =
                resolved.iter().copied().filter(|address| guard.admits(address.ip())).collect();
            if admitted.is_empty() && !resolved.is_empty() {
                return Err(BlockedAddress.into());
            }
            Ok::<Addrs, _>(Box::new(admitted.into_iter()))
        })
    }
}

/// The address that is written as the host of a URL.
fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
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

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// Which of a public, a private, a loopback and a metadata address a guard admits.
    fn admitted(guard: &SsrfGuard) -> [bool; 4] {
        ["8.8.8.8", "10.0.0.1", "127.0.0.1", "169.254.169.254"]
            .map(|address| guard.admits(address.parse().unwrap()))
    }

    #[test]
    fn a_blocked_address_is_recognized_in_every_notation() {
        let guard = SsrfGuard::new(&url("https://registry-1.docker.io/"));
        for text in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://127.0.0.1./",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert!(guard.blocks_address(&url(text)), "{text}");
        }
        assert!(!guard.blocks_address(&url("https://registry-1.docker.io/")));
        assert!(!guard.blocks_address(&url("https://8.8.8.8/")));
    }

    #[test]
    fn the_address_in_the_url_of_the_upstream_decides() {
        for (upstream, expected) in [
            ("https://registry.example.com", [true, false, false, false]),
            ("https://8.8.8.8", [true, false, false, false]),
            ("https://192.168.1.1:5000", [true, true, false, false]),
            ("http://[fd12::1]", [true, true, false, false]),
            ("http://127.0.0.1:5000", [true, true, true, false]),
            ("http://169.254.169.254", [true, false, false, false]),
            ("http://100.64.0.1", [true, false, false, false]),
        ] {
            assert_eq!(admitted(&SsrfGuard::new(&url(upstream))), expected, "{upstream}");
        }
    }

    #[test]
    fn all_addresses_that_the_upstream_answers_from_decide() {
        for (observed, expected) in [
            (["10.0.0.1", "192.168.0.1"], [true, true, false, false]),
            (["::ffff:10.0.0.1", "fd12::1"], [true, true, false, false]),
            (["127.0.0.1", "::1"], [true, true, true, false]),
            (["127.0.0.1", "10.0.0.1"], [true, true, false, false]),
            (["10.0.0.1", "8.8.8.8"], [true, false, false, false]),
            // A change of the address opens nothing.
            (["8.8.8.8", "10.0.0.1"], [true, false, false, false]),
            (["169.254.1.1", "10.0.0.1"], [true, false, false, false]),
        ] {
            let guard = SsrfGuard::new(&url("https://registry.example.com"));
            for address in observed {
                guard.observe(address.parse().unwrap());
            }
            assert_eq!(admitted(&guard), expected, "{observed:?}");
        }
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
        let guard = SsrfGuard::new(&url("https://registry.example.com"));
        let localhost = || "localhost".parse().unwrap();
        let error = guard.resolve(localhost()).await.err().unwrap();
        assert!(is_cause_of(error.as_ref()));
        guard.observe(IpAddr::from([127, 0, 0, 1]));
        assert!(guard.resolve(localhost()).await.is_ok());
    }
}
