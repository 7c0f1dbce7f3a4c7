//! The URL of a PostgreSQL server: libpq's, of which the client library knows a part.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{ChannelBinding, Config, Host, SslMode};

use super::verify::Verification;
use crate::db::DbError;

/// To open a connection, unless the URL says otherwise.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that vanished without a word is noticed within seconds, not with the kernel's patience of a quarter of an
/// hour: that long may bytes stay unacknowledged; and a connection on which nothing happens is probed as often.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const MAX_KEEPALIVES: u32 = 3;

/// What a URL says.
pub(super) struct Parsed {
    pub(super) config: Config,
    /// How the server is verified; `None` for a connection without TLS.
    pub(super) verification: Option<Verification>,
}

/// Reads a URL of the form `postgres://…`. Beyond what the client library knows: `sslmode` may be `verify-ca` and
/// `verify-full`, and `sslrootcert` names a file of certificates (PEM), or is `system`.
///
/// # Errors
/// [`DbError::Config`] for what is not understood.
pub(super) fn parse(url: &str) -> Result<Parsed, DbError> {
    // A password may have a question mark in it; the client library also looks for the first `@`.
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

/// As libpq: `prefer` and `require` encrypt and look at nothing, but `require` checks the chain where certificates are
/// named.
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
    fn what_tls_is_asked_for_is_as_libpq_says() {
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
    fn the_operators_patience_stands_and_there_is_some_of_ours() {
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
    fn what_is_not_understood_is_refused_without_telling_secrets() {
        for query in ["sslmode=allow", "sslmode=", "sslmod=require", "channel_binding=require", "port=x"] {
            match parse(&format!("postgres://u:secret@db.test/x?{query}")) {
                Err(DbError::Config(text)) => assert!(!text.as_str().contains("secret"), "{text}"),
                _ => panic!("{query} was understood"),
            }
        }
    }
}
