//! URLs that may contain a password. They are serialized with the password masked.

use url::Url;

/// The replacement of a password.
const MASK: &str = "***";

/// The URL with its passwords masked, those in the query included.
pub(crate) fn mask(mut url: Url) -> String {
    if url.password().is_some() {
        // Fails only for URLs that cannot have a password.
        let _ = url.set_password(Some(MASK));
    }
    let is_secret = |name: &str| matches!(name, "password" | "sslpassword");
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let masked = pairs.iter().map(|(name, value)| (name, if is_secret(name) { MASK } else { value }));
        url.query_pairs_mut().clear().extend_pairs(masked);
    }
    url.to_string()
}

/// The URL of a database: `sqlite://PATH` or `postgres://…`.
pub mod database {
    use serde::{Deserializer, Serializer};
    use url::Url;

    /// Deserializes a URL.
    ///
    /// # Errors
    /// Not such a URL.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        crate::from_text(deserializer, "a URL that begins with sqlite:// or postgres://", |text| {
            let is_file = text.strip_prefix("sqlite:").is_some_and(|path| !path.trim_matches('/').is_empty());
            // A database may be reached through a socket, which the query names: there need not be a host.
            let is_server =
                Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"));
            (is_file || is_server).then(|| text.to_owned())
        })
    }

    /// Serializes a URL with its password masked.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&masked(url))
    }

    /// A path has no password, and `Url` would change it.
    pub(super) fn masked(url: &str) -> String {
        match Url::parse(url) {
            Ok(parsed) if parsed.scheme() != "sqlite" => super::mask(parsed),
            _ => url.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{database::masked, *};

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://u:secret@db:5432/t", "postgres://u:***@db:5432/t"),
            ("postgres://db/t?user=u&password=secret", "postgres://db/t?user=u&password=***"),
            ("postgres://u@db/t", "postgres://u@db/t"),
            ("sqlite:///var/lib/a b/tidegate.db", "sqlite:///var/lib/a b/tidegate.db"),
            ("sqlite://./tidegate-data/x.db", "sqlite://./tidegate-data/x.db"),
        ] {
            assert_eq!(masked(url), shown);
        }
        assert_eq!(mask("http://u:secret@proxy:3128".parse().unwrap()), "http://u:***@proxy:3128/");
    }
}
