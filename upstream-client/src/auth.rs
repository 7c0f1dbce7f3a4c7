//! Answering a challenge: a token from the realm, or the login itself.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use crate::{
    UpstreamError,
    challenge::{self, Challenge},
    dial::Lane,
    error::Failure,
    redirect,
    token::{Grant, MAX_TOKEN_ANSWER, token_url},
    transport::{Ask, Transport},
};

impl Transport {
    /// Answers the challenge of a 401. `rejected`: what the request was sent with.
    pub(crate) async fn authorize(
        &self,
        ask: &Ask,
        challenged: &HeaderMap,
        rejected: Option<&Arc<Grant>>,
    ) -> Result<Arc<Grant>, Failure> {
        let credentials = self.config.credentials.as_ref();
        match challenge::choose(challenged, credentials.is_some())? {
            Challenge::Bearer { realm, service, scope } => {
                self.realms.check(&realm).map_err(UpstreamError::BadAnswer)?;
                let url = token_url(&realm, service.as_deref(), scope.as_deref().unwrap_or(&ask.scope));
                self.tokens.renew(&ask.scope, rejected, self.fetch_token(&url)).await
            }
            Challenge::Basic if rejected.is_some_and(|grant| grant.is_login) => {
                Err(UpstreamError::Denied.into())
            }
            Challenge::Basic => {
                let login = async { self.login().ok_or_else(|| UpstreamError::Denied.into()) };
                self.tokens.renew(&ask.scope, rejected, login).await
            }
        }
    }

    /// Asks a realm that was checked. Its redirects are not followed: they would take the login along.
    async fn fetch_token(&self, url: &Url) -> Result<Grant, Failure> {
        let accept = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
        let login = self.login();
        let response = self.exchange(Lane::Metadata, &Method::GET, url, &accept, login.as_ref()).await?;
        match response.status() {
            StatusCode::OK => Grant::from_token_answer(&self.read_all(response, MAX_TOKEN_ANSWER).await?),
            status if redirect::is_redirect(status) => {
                Err(Failure::bad_answer("the token service redirects"))
            }
            // It is the service that is missing, not what was asked for.
            status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => {
                Err(Failure::bad_answer(format!("the token service answered {}", status.as_u16())))
            }
            status => Err(Failure::from_status(status, response.headers())),
        }
    }

    fn login(&self) -> Option<Grant> {
        self.config.credentials.as_ref().and_then(Grant::from_credentials)
    }
}
