//! The challenges of a 401 (RFC 9110, section 11.6.1; distribution's token authentication).

use http::{HeaderMap, header};
use http_auth::{ChallengeParser, ChallengeRef};
use url::Url;

/// A supported challenge.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Send a token from the service at `realm`.
    Bearer { realm: Url, service: Option<String>, scope: Option<String> },
    /// Send the login itself.
    Basic,
}

/// Why no challenge of a 401 can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unanswerable {
    /// There is no challenge, or only Basic while no credentials are configured.
    NoCredentials,
    /// No scheme is supported, or the realm is not a URL.
    Invalid(&'static str),
}

/// Chooses among the challenges of a 401. Bearer takes precedence over Basic: a leaked token does less damage than a
/// leaked login.
pub(crate) fn choose(headers: &HeaderMap, has_credentials: bool) -> Result<Challenge, Unanswerable> {
    let mut basic = false;
    let mut others = false;
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        // Challenges after a syntax error are lost.
        for challenge in ChallengeParser::new(value.to_str().unwrap_or_default()).map_while(Result::ok) {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                return bearer(&challenge);
            }
            basic |= challenge.scheme.eq_ignore_ascii_case("basic");
        }
        others = true;
    }
    match (basic, others) {
        (true, _) if has_credentials => Ok(Challenge::Basic),
        (true, _) | (false, false) => Err(Unanswerable::NoCredentials),
        (false, true) => Err(Unanswerable::Invalid("unsupported authentication scheme")),
    }
}

fn bearer(challenge: &ChallengeRef<'_>) -> Result<Challenge, Unanswerable> {
    let parameter = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
    };
    let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
    let realm = realm.ok_or(Unanswerable::Invalid("token realm is not a URL"))?;
    Ok(Challenge::Bearer { realm, service: parameter("service"), scope: parameter("scope") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str], has_credentials: bool) -> Result<Challenge, Unanswerable> {
        let headers = values.iter().map(|value| (header::WWW_AUTHENTICATE, value.parse().unwrap())).collect();
        choose(&headers, has_credentials)
    }

    #[test]
    fn a_bearer_challenge_is_parsed() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let expected = Challenge::Bearer {
            realm: Url::parse("https://auth.docker.io/token").unwrap(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:library/alpine:pull".to_owned()),
        };
        assert_eq!(challenge(&[text], false), Ok(expected));
    }

    #[test]
    fn bearer_takes_precedence_over_basic_in_any_order() {
        let both = r#"Basic realm="x", bearer realm="https://a/token""#;
        assert!(matches!(challenge(&[both], true), Ok(Challenge::Bearer { .. })));
        let apart = ["Negotiate", r#"Basic realm="x""#, r#"Bearer realm="https://a/token""#];
        assert!(matches!(challenge(&apart, true), Ok(Challenge::Bearer { .. })));
        assert_eq!(challenge(&apart[..2], true), Ok(Challenge::Basic));
    }

    #[test]
    fn missing_credentials_and_invalid_challenges_are_distinguished() {
        assert_eq!(challenge(&[], true), Err(Unanswerable::NoCredentials));
        assert_eq!(challenge(&[r#"Basic realm="x""#], false), Err(Unanswerable::NoCredentials));
        for unknown in ["Negotiate", r#"Digest realm="x", nonce="y""#, "", "=="] {
            assert!(matches!(challenge(&[unknown], true), Err(Unanswerable::Invalid(_))), "{unknown:?}");
        }
        for realm in [r#"Bearer realm="/token""#, "Bearer", r#"Bearer service="x""#] {
            assert!(matches!(challenge(&[realm], true), Err(Unanswerable::Invalid(_))), "{realm}");
        }
    }
}
