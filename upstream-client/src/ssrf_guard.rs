//! Which addresses may be dialled. An upstream can name any host in a redirect or a token realm; those inside the
//! network are not its to name.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::UpstreamError;

/// The host, or everything it resolves to, is inside the network.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the address is not public")]
pub(crate) struct NotPublic;

/// Resolves names as the system does and leaves out every address that is not public.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> =
                resolved.iter().copied().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() && !resolved.is_empty() {
                return Err(NotPublic.into());
            }
            Ok::<Addrs, _>(Box::new(public.into_iter()))
        })
    }
}

/// Checks a host that is an address: those never come before the resolver.
pub(crate) fn check_address(url: &Url) -> Result<(), NotPublic> {
    let public = match url.host() {
        Some(Host::Ipv4(address)) => is_public(address.into()),
        Some(Host::Ipv6(address)) => is_public(address.into()),
        Some(Host::Domain(_)) => true,
        None => false,
    };
    if public { Ok(()) } else { Err(NotPublic) }
}

/// Checks a name that a proxy will resolve, as far as the name alone tells.
pub(crate) fn check_name(url: &Url) -> Result<(), NotPublic> {
    let name = url.domain().unwrap_or_default().trim_end_matches('.');
    if name == "localhost" || name.ends_with(".localhost") { Err(NotPublic) } else { Ok(()) }
}

/// Whether an error goes back to [`NotPublic`].
pub(crate) fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The error for a blocked host.
pub(crate) fn refusal(host: &str) -> UpstreamError {
    UpstreamError::invalid_response(format!("{host} is not a public address (allow_private would permit it)"))
}

/// Whether an address is of the public internet. Everything special is refused, also where it wraps an IPv4 address.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0 | 2, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64 (RFC 6052) is how a network without IPv4 reaches public IPv4 hosts: judged by what it wraps.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Teredo, ORCHID and documentation; 6to4.
        [0x2001, second, ..] => second > 0x01ff && second != 0xdb8,
        [0x2002, ..] => false,
        [0x3fff, second, ..] => second > 0x0fff,
        // Global unicast. Outside of it lie ::, ::1, mapped IPv4, unique-local, link-local and multicast.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_the_network_are_not_public() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn addresses_of_the_internet_are_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.169.0.1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_is_judged_however_it_is_written() {
        for url in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://127.0.0.1./",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert!(check_address(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(check_address(&Url::parse("https://registry-1.docker.io/").unwrap()).is_ok());
    }

    #[test]
    fn a_proxy_is_not_sent_to_itself() {
        for url in ["http://localhost/", "http://LOCALHOST./", "http://a.localhost/"] {
            assert!(check_name(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(check_name(&Url::parse("https://notlocalhost/").unwrap()).is_ok());
    }

    #[tokio::test]
    async fn a_name_of_this_machine_does_not_resolve() {
        let error = PublicOnly.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert!(is_cause_of(error.as_ref()));
    }
}
