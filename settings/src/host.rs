//! Lists of hosts: `HOST` or `HOST:PORT` in lower case.

use std::net::Ipv6Addr;

use serde::Deserializer;

/// Deserializes a list of hosts.
///
/// # Errors
/// Not a list, or an element is not a host.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let expected = "HOST or HOST:PORT in lower case";
    crate::list_from_text(deserializer, expected, |text| is_host(text).then(|| text.to_owned()))
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_valid = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_allowed),
    };
    is_valid && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_with_an_optional_port() {
        for host in ["a", "registry-1.docker.io", "a:5000", "127.0.0.1:80", "[::1]", "[::1]:5000"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "A", "https://a", "a/b", "a:x", "a:70000", "[x]", ":80"] {
            assert!(!is_host(host), "{host}");
        }
    }
}
