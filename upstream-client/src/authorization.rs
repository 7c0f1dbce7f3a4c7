//! Answering a challenge: a token from the realm, or the login itself.

use std::sync::Arc;

use url::Url;

use crate::{
    UpstreamError,
    challenge::Challenge,
    error::AttemptError,
    request::{RequestKind, UpstreamRequest},
    token::{Grant, MAX_TOKEN_ANSWER, token_url},
    transport::Transport,
    verdict::{GrantInHand, Hop},
};

impl Transport {
    /// Answers the challenge of a 401. `rejected`: what the request was sent with.
    pub(crate) async fn authorize(
        &self,
        request: &UpstreamRequest,
        challenge: Challenge,
        rejected: Option<&Arc<Grant>>,
    ) -> Result<Arc<Grant>, AttemptError> {
        let scope = &request.scope;
        match challenge {
            Challenge::Bearer { realm, service, scope: challenged } => {
                self.realms.check(&realm).map_err(UpstreamError::invalid_response)?;
                let url = token_url(&realm, service.as_deref(), challenged.as_deref().unwrap_or(scope));
                self.tokens.renew(scope, rejected, self.fetch_token(url, scope)).await
            }
            Challenge::Basic => {
                let login = async { self.login().ok_or_else(|| UpstreamError::Denied.into()) };
                self.tokens.renew(scope, rejected, login).await
            }
        }
    }

    /// Asks a realm that was checked. Its redirects are not followed: they would take the login along.
    async fn fetch_token(&self, url: Url, scope: &str) -> Result<Grant, AttemptError> {
        let request = UpstreamRequest::new(RequestKind::GetToken, url, scope.to_owned());
        let hop = Hop { url: &request.url, host: self.host_of(&request.url), redirects: 0 };
        let answer = self.exchange(&request, hop, self.login().as_ref(), GrantInHand::Login).await?;
        let (_, response) = answer.content()?;
        Grant::from_token_answer(&self.read_all(response, MAX_TOKEN_ANSWER).await?)
    }

    fn login(&self) -> Option<Grant> {
        self.config.credentials.as_ref().and_then(Grant::from_credentials)
    }
}
