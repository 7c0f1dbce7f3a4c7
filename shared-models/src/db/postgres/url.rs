//! URLs of PostgreSQL servers, as libpq defines them. tokio-postgres parses a subset.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{ChannelBinding, Config, Host, SslMode};

use super::verify::Verification;
use crate::db::DbError;

/// The timeout to open a connection, unless the URL has one.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long sent bytes may stay unacknowledged, and a connection may be idle before keepalive probes. Without it, the
/// kernel needs about 15 minutes to detect a server that disappeared.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const MAX_KEEPALIVES: u32 = 3;

/// The contents of a URL.
pub(super) struct Parsed {
    pub(super) config: Config,
    /// How the server is verified; `None` for a connection without TLS.
    pub(super) verification: Option<Verification>,
}

/// Reads a URL of the form `postgres://…`. In addition to tokio-postgres, `sslmode` may be `verify-ca` and
/// `verify-full`, and `sslrootcert` is a file of certificates (PEM) or `system`.
///
/// # Errors
/// [`DbError::Config`] for an invalid or unsupported URL.
pub(super) fn parse(url: &str) -> Result<Parsed, DbError> {
    // A password may contain a question mark. tokio-postgres also searches for the first `@`.
    let authority = url.find('@').unwrap_or(0);
    let query_at = url.get(authority..).and_then(|rest| rest.find('?')).map(|at| authority + at);
    let (base, query) = query_at.and_then(|at| url.split_at_checked(at)).unwrap_or((url, ""));

    let (mut mode, mut root, mut kept, mut names) = (None, None, Vec::new(), Vec::new());
    for pair in query.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || percent_decode_str(value).decode_utf8_lossy().into_owned();
        match name {
            "sslmode" => mode = Some(value()),
            "sslrootcert" => root = Some(value()).filter(|root| !root.is_empty()),
            _ => {
                kept.push(pair);
                names.push(name);
            }
        }
    }
    let separator = if kept.is_empty() { "" } else { "?" };
    let mut config: Config = format!("{base}{separator}{}", kept.join("&"))
        .parse()
        .map_err(|error| DbError::config(super::bad(&error).to_string()))?;

    if !names.contains(&"connect_timeout") {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if !names.contains(&"tcp_user_timeout") {
        config.tcp_user_timeout(TCP_TIMEOUT);
    }
    if !names.contains(&"keepalives_idle") {
        config.keepalives_idle(TCP_TIMEOUT);
    }
    if !names.contains(&"keepalives_interval") {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if !names.contains(&"keepalives_retries") {
        config.keepalives_retries(MAX_KEEPALIVES);
    }
    if config.get_application_name().is_none() {
        config.application_name("tidegate");
    }
    if config.get_channel_binding() == ChannelBinding::Require {
        return Err(DbError::config("channel_binding=require is not supported".to_owned()));
    }
    let (ssl_mode, verification) = verification(mode.as_deref().unwrap_or("prefer"), root)?;
    // libpq: sslmode is ignored where the server is reached through a Unix socket.
    if config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_))) {
        config.ssl_mode(SslMode::Disable);
        return Ok(Parsed { config, verification: None });
    }
    config.ssl_mode(ssl_mode);
    Ok(Parsed { config, verification })
}

/// As libpq: `prefer` and `require` encrypt without verification, but `require` with `sslrootcert` verifies the chain.
fn verification(mode: &str, root: Option<String>) -> Result<(SslMode, Option<Verification>), DbError> {
    Ok(match (mode, root) {
        ("disable", _) => (SslMode::Disable, None),
        ("prefer", _) => (SslMode::Prefer, Some(Verification::Off)),
        ("require", None) => (SslMode::Require, Some(Verification::Off)),
        ("require" | "verify-ca", root) => (SslMode::Require, Some(Verification::Chain { root })),
        ("verify-full", root) => (SslMode::Require, Some(Verification::ChainAndName { root })),
        _ => {
            let modes = "disable, prefer, require, verify-ca or verify-full";
            return Err(DbError::config(format!("sslmode must be {modes}")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Parsed {
        parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn sslmode_and_sslrootcert_have_the_meanings_of_libpq() {
        let cases = [
            ("", SslMode::Prefer, Some(Verification::Off)),
            ("?sslmode=disable", SslMode::Disable, None),
            ("?sslmode=disable&sslrootcert=/x", SslMode::Disable, None),
            ("?sslmode=prefer", SslMode::Prefer, Some(Verification::Off)),
            ("?sslmode=require", SslMode::Require, Some(Verification::Off)),
            (
                "?application_name=a&sslmode=require&sslrootcert=/a%20b",
                SslMode::Require,
                Some(Verification::Chain { root: Some("/a b".to_owned()) }),
            ),
            ("?sslmode=verify-ca", SslMode::Require, Some(Verification::Chain { root: None })),
            (
                "?sslrootcert=system&sslmode=verify-full",
                SslMode::Require,
                Some(Verification::ChainAndName { root: Some("system".to_owned()) }),
            ),
        ];
        for (query, mode, verification) in cases {
            let found = parsed(&format!("postgres://u:p?w@db.test:1/x{query}"));
            assert_eq!((found.config.get_ssl_mode(), found.verification), (mode, verification), "{query}");
            assert_eq!(found.config.get_password(), Some(&b"p?w"[..]));
            assert_eq!(found.config.get_dbname(), Some("x"));
        }
    }

    #[test]
    fn timeouts_have_defaults_and_those_in_the_url_win() {
        let config = parsed("postgres://db.test/x").config;
        assert_eq!(config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(config.get_tcp_user_timeout(), Some(&TCP_TIMEOUT));
        assert_eq!(config.get_keepalives_idle(), TCP_TIMEOUT);
        let config = parsed("postgres://db.test/x?connect_timeout=99&tcp_user_timeout=77").config;
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(99)));
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(77)));
    }

    #[test]
    fn a_unix_socket_has_no_tls() {
        let found = parsed("postgres:///x?host=/run/postgresql&sslmode=verify-full");
        assert_eq!((found.config.get_ssl_mode(), found.verification), (SslMode::Disable, None));
    }

    #[test]
    fn an_invalid_url_is_refused_without_revealing_secrets() {
        for query in ["sslmode=allow", "sslmode=", "sslmod=require", "channel_binding=require", "port=x"] {
            match parse(&format!("postgres://u:secret@db.test/x?{query}")) {
                Err(DbError::Config(text)) => assert!(!text.as_str().contains("secret"), "{text}"),
                _ => panic!("{query} was accepted"),
            }
        }
    }
}
