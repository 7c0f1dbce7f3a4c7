//! http and https URLs without user, password, query and fragment.

use serde::{Deserializer, Serializer};
use url::Url;

use crate::from_text;

/// Deserializes a URL.
///
/// # Errors
/// Not such a URL.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let expected =
        "a URL such as \"https://registry.example.com\", without user, password, query or fragment";
    from_text(deserializer, expected, parse)
}

/// Serializes a URL without a trailing slash.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str().trim_end_matches('/'))
}

/// An http or https URL with a host, and without user, password, query and fragment.
pub fn parse(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

/// Optional URLs.
pub mod option {
    use serde::{Deserializer, Serializer};
    use url::Url;

    /// Deserializes a URL that is present.
    ///
    /// # Errors
    /// Not such a URL.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }

    /// Serializes a URL, if present.
    ///
    /// # Errors
    /// Those of the serializer.
    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(url: &Option<Url>, serializer: S) -> Result<S::Ok, S::Error> {
        match url {
            Some(url) => super::serialize(url, serializer),
            None => serializer.serialize_none(),
        }
    }
}
