//! The answer to a challenge: a token from its realm, or the login itself.

use std::sync::Arc;

use url::Url;

use crate::{
    UpstreamError,
    challenge::Challenge,
    error::AttemptError,
    grant::Grant,
    request::{RequestKind, UpstreamRequest},
    transport::Transport,
    verdict::{GrantInHand, Hop},
};

/// Maximum size in bytes of the response of a token service.
const MAX_TOKEN_RESPONSE: usize = 256 * 1024;

impl Transport {
    /// The grant that answers the challenge to a request. `rejected` is the one that the request was sent with.
    pub(crate) async fn authorize(
        &self,
        request: &UpstreamRequest,
        challenge: Challenge,
        rejected: Option<&Arc<Grant>>,
    ) -> Result<Arc<Grant>, AttemptError> {
        let scope = &request.scope;
        match challenge {
            Challenge::Bearer { realm, service, scope: required } => {
                self.token_realms.check(&realm).map_err(UpstreamError::invalid_response)?;
                let url = token_url(&realm, service.as_deref(), required.as_deref().unwrap_or(scope));
                self.grants.renew(scope, rejected, self.fetch_token(url, scope)).await
            }
            Challenge::Basic => {
                let login = async { self.login().ok_or_else(|| UpstreamError::Denied.into()) };
                self.grants.renew(scope, rejected, login).await
            }
        }
    }

    /// Fetches a token from a checked realm. Redirects are not followed: the request contains the login.
    async fn fetch_token(&self, url: Url, scope: &str) -> Result<Grant, AttemptError> {
        let request = UpstreamRequest::new(RequestKind::GetToken, url, scope.to_owned());
        let hop = Hop { url: &request.url, host: self.host_of(&request.url), redirects: 0 };
        let response = self.exchange(&request, hop, self.login().as_ref(), GrantInHand::Login).await?;
        let (_, response) = response.content()?;
        let (body, _memory) = self.read_body(response, MAX_TOKEN_RESPONSE).await?;
        Ok(Grant::from_token_response(&body)?)
    }

    fn login(&self) -> Option<Grant> {
        self.config.credentials.as_ref().and_then(Grant::from_credentials)
    }
}

/// The URL of a token for `scope`.
fn token_url(realm: &Url, service: Option<&str>, scope: &str) -> Url {
    let mut url = realm.clone();
    url.set_fragment(None);
    let mut query = url.query_pairs_mut();
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    // A challenge may name several scopes; each is one parameter.
    for scope in scope.split_ascii_whitespace() {
        query.append_pair("scope", scope);
    }
    drop(query);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_token_has_the_service_and_scopes_of_the_challenge() {
        let realm = Url::parse("https://a/token?account=x#fragment").unwrap();
        let url = token_url(&realm, Some("the registry"), "repository:a/b:pull repository:c:pull");
        let expected = "https://a/token?account=x&service=the+registry\
                        &scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull";
        assert_eq!(url.as_str(), expected);
    }
}
