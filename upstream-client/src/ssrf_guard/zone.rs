//! Which part of the network an address belongs to.

use std::net::IpAddr;

use super::public_address::is_public;

/// The part of the network that an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// This machine.
    Loopback,
    /// An internal network (RFC 1918, RFC 4193).
    Private,
    /// The public internet.
    Public,
    /// Any other one: link-local addresses, where clouds have their metadata, and those of carriers.
    Special,
}

impl Zone {
    pub(super) fn of(address: IpAddr) -> Self {
        let is_private = match address {
            IpAddr::V4(address) => address.is_private(),
            // AWS has its metadata at fd00:ec2::/32.
            IpAddr::V6(address) => {
                address.is_unique_local() && !matches!(address.segments(), [0xfd00, 0xec2, ..])
            }
        };
        match address {
            _ if is_public(address) => Self::Public,
            _ if address.is_loopback() => Self::Loopback,
            _ if is_private => Self::Private,
            _ => Self::Special,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_zone() {
        for (zone, addresses) in [
            (Zone::Loopback, ["127.0.0.1", "127.9.9.9", "::1"].as_slice()),
            (
                Zone::Private,
                &["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1"],
            ),
            (Zone::Public, &["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"]),
            (
                Zone::Special,
                &[
                    "0.0.0.0",
                    "169.254.169.254",
                    "169.254.170.2",
                    "100.64.0.1",
                    "100.100.100.200",
                    "192.0.0.192",
                    "198.18.0.1",
                    "224.0.0.1",
                    "255.255.255.255",
                    "::",
                    "::ffff:10.0.0.1",
                    "::ffff:127.0.0.1",
                    "64:ff9b::a00:1",
                    "fe80::1",
                    "fec0::1",
                    "ff02::1",
                    "fd00:ec2::254",
                ],
            ),
        ] {
            for address in addresses {
                assert_eq!(Zone::of(address.parse().unwrap()), zone, "{address}");
            }
        }
    }
}
