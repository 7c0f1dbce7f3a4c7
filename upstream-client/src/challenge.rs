//! The challenges of a 401 (RFC 9110, section 11.6.1; distribution's token authentication).

use http::{HeaderMap, header};
use http_auth::{ChallengeParser, ChallengeRef};
use url::Url;

/// A supported challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Send a token.
    Bearer(BearerChallenge),
    /// Send the login itself.
    Basic,
}

/// Where a token is issued, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BearerChallenge {
    /// The URL of the token service.
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
    /// The required scope.
    pub(crate) scope: Option<String>,
}

impl BearerChallenge {
    /// The required scope, or `usual` where the challenge names none.
    pub(crate) fn scope_or<'a>(&'a self, usual: &'a str) -> &'a str {
        self.scope.as_deref().unwrap_or(usual)
    }

    /// The URL of a token for `scope`.
    pub(crate) fn token_url(&self, scope: &str) -> Url {
        let mut url = self.realm.clone();
        url.set_fragment(None);
        let mut query = url.query_pairs_mut();
        if let Some(service) = &self.service {
            query.append_pair("service", service);
        }
        // A challenge may name several scopes; each is one parameter.
        for scope in scope.split_ascii_whitespace() {
            query.append_pair("scope", scope);
        }
        drop(query);
        url
    }
}

/// Why no challenge of a 401 can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unanswerable {
    /// There is no challenge.
    Absent,
    /// Basic is offered while no credentials are configured.
    NoCredentials,
    /// No scheme is supported, or the realm is not usable. The text is for the operator.
    Invalid(String),
}

/// Chooses among the challenges of a 401. Bearer takes precedence over Basic: a leaked token does less damage than a
/// leaked login. `check` decides whether a realm may be used.
pub(crate) fn choose(
    headers: &HeaderMap,
    has_credentials: bool,
    check: impl Fn(&Url) -> Result<(), String>,
) -> Result<Challenge, Unanswerable> {
    let (mut basic, mut any) = (false, false);
    let mut unusable = None;
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        any = true;
        // Challenges after a syntax error are lost.
        for challenge in ChallengeParser::new(value.to_str().unwrap_or_default()).map_while(Result::ok) {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                match bearer(&challenge, &check) {
                    Ok(challenge) => return Ok(Challenge::Bearer(challenge)),
                    Err(reason) => unusable = Some(reason),
                }
            }
            basic |= challenge.scheme.eq_ignore_ascii_case("basic");
        }
    }
    match unusable {
        _ if basic && has_credentials => Ok(Challenge::Basic),
        Some(reason) => Err(Unanswerable::Invalid(reason)),
        None if basic => Err(Unanswerable::NoCredentials),
        None if any => Err(Unanswerable::Invalid("unsupported authentication scheme".to_owned())),
        None => Err(Unanswerable::Absent),
    }
}

fn bearer(
    challenge: &ChallengeRef<'_>,
    check: impl Fn(&Url) -> Result<(), String>,
) -> Result<BearerChallenge, String> {
    let parameter = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
    };
    let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
    let realm = realm.ok_or("token realm is not a URL")?;
    check(&realm)?;
    Ok(BearerChallenge { realm, service: parameter("service"), scope: parameter("scope") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str], has_credentials: bool) -> Result<Challenge, Unanswerable> {
        let headers = values.iter().map(|value| (header::WWW_AUTHENTICATE, value.parse().unwrap())).collect();
        let check = |realm: &Url| match realm.domain() {
            Some("a") => Ok(()),
            _ => Err("not allowed".to_owned()),
        };
        choose(&headers, has_credentials, check)
    }

    #[test]
    fn a_bearer_challenge_is_parsed() {
        let text = r#"Bearer realm="https://a/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let expected = BearerChallenge {
            realm: Url::parse("https://a/token").unwrap(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:library/alpine:pull".to_owned()),
        };
        assert_eq!(challenge(&[text], false), Ok(Challenge::Bearer(expected)));
    }

    #[test]
    fn the_url_of_a_token_has_the_service_and_scopes() {
        let realm = Url::parse("https://a/token?account=x#fragment").unwrap();
        let challenge = BearerChallenge { realm, service: Some("the registry".to_owned()), scope: None };
        let url = challenge.token_url("repository:a/b:pull repository:c:pull");
        let expected = "https://a/token?account=x&service=the+registry\
                        &scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull";
        assert_eq!(url.as_str(), expected);
    }

    #[test]
    fn bearer_takes_precedence_over_basic_in_any_order() {
        let both = r#"Basic realm="x", bearer realm="https://a/token""#;
        assert!(matches!(challenge(&[both], true), Ok(Challenge::Bearer(_))));
        let apart = ["Negotiate", r#"Basic realm="x""#, r#"Bearer realm="https://a/token""#];
        assert!(matches!(challenge(&apart, true), Ok(Challenge::Bearer(_))));
        assert_eq!(challenge(&apart[..2], true), Ok(Challenge::Basic));
    }

    #[test]
    fn basic_is_answered_where_bearer_is_not_usable() {
        for bearer in [r#"Bearer realm="https://b/token""#, r#"Bearer realm="null://x""#, "Bearer"] {
            let both = [bearer, r#"Basic realm="x""#];
            assert_eq!(challenge(&both, true), Ok(Challenge::Basic), "{bearer}");
            assert!(matches!(challenge(&both, false), Err(Unanswerable::Invalid(_))), "{bearer}");
        }
    }

    #[test]
    fn absent_and_invalid_challenges_and_missing_credentials_are_distinguished() {
        assert_eq!(challenge(&[], true), Err(Unanswerable::Absent));
        assert_eq!(challenge(&[r#"Basic realm="x""#], false), Err(Unanswerable::NoCredentials));
        for unknown in ["Negotiate", r#"Digest realm="x", nonce="y""#, "", "=="] {
            assert!(matches!(challenge(&[unknown], true), Err(Unanswerable::Invalid(_))), "{unknown:?}");
        }
        for realm in [r#"Bearer realm="/token""#, "Bearer", r#"Bearer service="x""#] {
            assert!(matches!(challenge(&[realm], true), Err(Unanswerable::Invalid(_))), "{realm}");
        }
    }
}
