//! The HTTP proxies of requests: a setting, or the variables of the environment.

use std::{fmt, sync::Arc};

use hyper_util::client::proxy::matcher::Matcher;
use serde::{Deserializer, Serializer};
use url::Url;

/// The setting `proxy` of a service.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum ProxySetting {
    /// Not set: the proxies of the environment.
    #[default]
    Environment,
    /// `"none"`: no proxy.
    None,
    /// One proxy for all requests.
    Url(Url),
}

impl ProxySetting {
    /// The proxies of the service. `environment`: those of the environment.
    pub fn proxies(&self, environment: &Proxies) -> Proxies {
        match self {
            Self::Environment => environment.clone(),
            Self::None => Proxies::default(),
            Self::Url(url) => Proxies::all(url),
        }
    }
}

impl fmt::Debug for ProxySetting {
    // The URL may contain a password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Environment => "Environment",
            Self::None => "None",
            Self::Url(_) => "Url(…)",
        })
    }
}

/// Deserializes a setting that is present.
///
/// # Errors
/// Neither an http or https URL nor `none`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ProxySetting, D::Error> {
    let expected = "a URL that begins with http:// or https://, or \"none\"";
    crate::from_text(deserializer, expected, |text| {
        if text == "none" {
            return Some(ProxySetting::None);
        }
        let url = Url::parse(text).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(ProxySetting::Url(url))
    })
}

/// Serializes a setting, if it is set, with its password masked.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(setting: &ProxySetting, serializer: S) -> Result<S::Ok, S::Error> {
    match setting {
        ProxySetting::Environment => serializer.serialize_none(),
        ProxySetting::None => serializer.serialize_str("none"),
        ProxySetting::Url(url) => serializer.serialize_str(&crate::secret_url::mask(url.clone())),
    }
}

/// The proxies of requests, by URL. The default is no proxy.
#[derive(Clone)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    no_proxy: String,
    matcher: Arc<Matcher>,
}

/// The destinations that no proxy of the environment applies to: this machine. Clients written in Go have the same rule.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// A variable of the environment that does not name an HTTP proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proxy must be an HTTP proxy: http://HOST:PORT or https://HOST:PORT")]
pub struct InvalidProxy {
    /// The name of the variable.
    pub variable: &'static str,
}

impl Proxies {
    /// One proxy for all requests.
    pub fn all(url: &Url) -> Self {
        Self::new(Some(url.to_string()), Some(url.to_string()), String::new())
    }

    /// The proxies of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, each also in lower case, which counts less.
    /// None in a CGI program, whose variable `HTTP_PROXY` is the header `Proxy` of a request.
    ///
    /// # Errors
    /// The value of a variable that applies is not an HTTP proxy.
    pub fn of_environment<'a>(
        variable: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Result<Self, InvalidProxy> {
        if variable("REQUEST_METHOD").is_some() {
            return Ok(Self::default());
        }
        let first = |names: [&'static str; 4]| {
            let set = names.into_iter().find_map(|name| Some((name, variable(name)?)));
            set.map(|(name, value)| http_proxy(value).ok_or(InvalidProxy { variable: name })).transpose()
        };
        let http = first(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])?;
        let https = first(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])?;
        let no_proxy = variable("NO_PROXY").or_else(|| variable("no_proxy"));
        Ok(Self::new(http, https, format!("{LOOPBACK},{}", no_proxy.unwrap_or_default())))
    }

    fn new(http: Option<String>, https: Option<String>, no_proxy: String) -> Self {
        let text = |url: &Option<String>| url.clone().unwrap_or_default();
        let matcher = Matcher::builder().http(text(&http)).https(text(&https)).no(&no_proxy).build();
        Self { http, https, no_proxy, matcher: Arc::new(matcher) }
    }

    /// The proxy of requests to a URL, without its login.
    pub fn of(&self, url: &Url) -> Option<ProxyAddress> {
        let proxy = self.matcher.intercept(&url.as_str().parse().ok()?)?;
        Some(ProxyAddress(proxy.uri().to_string()))
    }

    /// The URL of the proxy for http URLs, with its login.
    pub fn http(&self) -> Option<&str> {
        self.http.as_deref()
    }

    /// The URL of the proxy for https URLs, with its login.
    pub fn https(&self) -> Option<&str> {
        self.https.as_deref()
    }

    /// The destinations without a proxy, as in `NO_PROXY`.
    pub fn no_proxy(&self) -> &str {
        &self.no_proxy
    }
}

impl Default for Proxies {
    fn default() -> Self {
        Self::new(None, None, String::new())
    }
}

impl fmt::Debug for Proxies {
    // The URLs may contain passwords.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matcher.fmt(out)
    }
}

/// The address of a proxy, without its login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddress(String);

impl ProxyAddress {
    /// Host and port.
    pub fn host(&self) -> &str {
        let text = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        text.trim_end_matches('/')
    }
}

/// The URL: scheme, host and port.
impl fmt::Display for ProxyAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.trim_end_matches('/'))
    }
}

/// The URL of an HTTP proxy in a variable, which may lack `http://`.
fn http_proxy(value: &str) -> Option<String> {
    let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let url = Url::parse(&text).ok()?;
    let matcher = Matcher::builder().all(&text).build();
    let is_understood = matcher.intercept(&http::Uri::from_static("http://host")).is_some();
    (is_understood && matches!(url.scheme(), "http" | "https")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &'static str)]) -> Result<Proxies, InvalidProxy> {
        Proxies::of_environment(|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
        })
    }

    fn proxy(variables: &[(&str, &'static str)], url: &str) -> Option<String> {
        of(variables).unwrap().of(&Url::parse(url).unwrap()).map(|proxy| proxy.to_string())
    }

    const BOTH: [(&str, &str); 2] = [("HTTP_PROXY", "http://one:1"), ("HTTPS_PROXY", "https://two:2")];

    #[test]
    fn the_scheme_of_the_destination_selects_the_variable() {
        assert_eq!(proxy(&BOTH, "http://registry.test").as_deref(), Some("http://one:1"));
        assert_eq!(proxy(&BOTH, "https://registry.test").as_deref(), Some("https://two:2"));
        assert_eq!(proxy(&BOTH[..1], "https://registry.test"), None);
        let all = [BOTH[0], ("ALL_PROXY", "http://three:3")];
        assert_eq!(proxy(&all, "http://registry.test").as_deref(), Some("http://one:1"));
        assert_eq!(proxy(&all, "https://registry.test").as_deref(), Some("http://three:3"));
        assert_eq!(proxy(&[("all_proxy", "three:3")], "http://a.test").as_deref(), Some("http://three:3"));
        assert_eq!(proxy(&[], "https://registry.test"), None);
    }

    #[test]
    fn a_variable_in_lower_case_counts_less() {
        let both = [("https_proxy", "http://lower:1"), ("HTTPS_PROXY", "http://upper:2")];
        assert_eq!(proxy(&both, "https://a.test").as_deref(), Some("http://upper:2"));
        assert_eq!(proxy(&both[..1], "https://a.test").as_deref(), Some("http://lower:1"));
    }

    #[test]
    fn a_cgi_program_has_no_proxy() {
        let cgi = [("HTTP_PROXY", "http://attacker:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(proxy(&cgi, "http://registry.test"), None);
    }

    #[test]
    fn no_proxy_and_this_machine_are_excluded() {
        let of = |url| proxy(&[BOTH[1], ("no_proxy", "corp.test, 10.0.0.0/8,.exact.test")], url).is_some();
        for url in [
            "https://corp.test",
            "https://registry.corp.test:8443",
            "https://10.1.2.3",
            "https://a.exact.test",
            "https://localhost:5000",
            "https://127.0.0.1",
            "https://[::1]:5000",
        ] {
            assert!(!of(url), "{url}");
        }
        for url in ["https://notcorp.test", "https://11.0.0.1", "https://localhost.test"] {
            assert!(of(url), "{url}");
        }
        assert_eq!(proxy(&[BOTH[1], ("NO_PROXY", "*")], "https://registry.test"), None);
    }

    #[test]
    fn only_http_proxies_are_accepted_where_they_apply() {
        for value in ["socks5://host:1080", "data:x", "http://", "a b"] {
            let error = of(&[("ALL_PROXY", value)]).unwrap_err();
            assert_eq!(error.variable, "ALL_PROXY", "{value}");
            assert!(of(&[BOTH[0], BOTH[1], ("ALL_PROXY", value)]).is_ok(), "{value}");
        }
    }

    #[test]
    fn a_login_is_never_shown() {
        let url = Url::parse("http://user:secret@proxy.test:3128").unwrap();
        let proxies = Proxies::all(&url);
        let address = proxies.of(&Url::parse("https://registry.test").unwrap()).unwrap();
        assert_eq!(address.to_string(), "http://proxy.test:3128");
        assert_eq!(address.host(), "proxy.test:3128");
        let setting = ProxySetting::Url(url.clone());
        assert!(!format!("{proxies:?} {address:?} {setting:?}").contains("secret"));
        assert!(proxies.https().is_some_and(|url| url.contains("secret")));
    }
}
