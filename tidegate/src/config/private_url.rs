//! A URL that may carry a password.

use std::fmt;

use url::Url;

use super::setting::text_setting;

/// What stands in place of a password.
const MASK: &str = "***";

/// A URL that may carry a password: `Debug`, `Display` and `check-config` show it masked.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateUrl(String);

impl PrivateUrl {
    /// The URL with everything in it, for the one who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The scheme, as written.
    pub(crate) fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    fn masked(&self) -> String {
        // A SQLite path has no password, and `Url` would not keep it as it is.
        let Some(mut url) = Url::parse(&self.0).ok().filter(|_| self.scheme() != "sqlite") else {
            return self.0.clone();
        };
        if url.password().is_some() {
            // Fails only for URLs that cannot have a password, which this one has.
            let _ = url.set_password(Some(MASK));
        }
        let secret = |name: &str| matches!(name, "password" | "sslpassword");
        if url.query_pairs().any(|(name, _)| secret(&name)) {
            let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            let masked = pairs.iter().map(|(name, value)| (name, if secret(name) { MASK } else { value }));
            url.query_pairs_mut().clear().extend_pairs(masked);
        }
        url.to_string()
    }
}

impl fmt::Display for PrivateUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.masked())
    }
}

impl fmt::Debug for PrivateUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.masked())
    }
}

text_setting!(
    PrivateUrl,
    "URL",
    "a URL",
    |text| {
        let plain_file = text.strip_prefix("sqlite:").is_some_and(|path| !path.trim_matches('/').is_empty());
        // A database may be reached by a socket, which its URL names behind the `?`.
        let url = || {
            Url::parse(text).is_ok_and(|url| match url.scheme() {
                "sqlite" => false,
                "postgres" | "postgresql" => true,
                _ => url.has_host(),
            })
        };
        (plain_file || url()).then(|| PrivateUrl(text.to_owned()))
    },
    |url| url.masked()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://u:secret@db:5432/t", "postgres://u:***@db:5432/t"),
            ("postgres://db/t?user=u&password=secret", "postgres://db/t?user=u&password=***"),
            ("http://u:secret@proxy:3128", "http://u:***@proxy:3128/"),
            ("postgres://u@db/t", "postgres://u@db/t"),
            ("sqlite:///var/lib/a b/tidegate.db", "sqlite:///var/lib/a b/tidegate.db"),
            ("sqlite://./tidegate-data/x.db", "sqlite://./tidegate-data/x.db"),
        ] {
            let url = PrivateUrl(url.to_owned());
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }
}
