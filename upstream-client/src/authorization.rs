//! The answer to a challenge: a token from its realm, or the login itself.

use std::sync::Arc;

use url::{Origin, Url};

use crate::{
    UpstreamError,
    challenge::{BearerChallenge, Challenge},
    error::{AttemptError, host_and_port},
    grant::Grant,
    redirect::same_origin,
    request::{RequestKind, UpstreamRequest},
    transport::Transport,
    verdict::{GrantInHand, Verdict},
};

/// Maximum size in bytes of the response of a token service.
const MAX_TOKEN_RESPONSE: usize = 256 * 1024;

/// The grants that a request is sent with.
#[derive(Debug)]
pub(crate) struct Authorization {
    /// For the host that the request is for.
    grant: Option<Arc<Grant>>,
    in_hand: GrantInHand,
    /// For a registry that the upstream redirected to.
    elsewhere: Option<(Origin, Arc<Grant>)>,
}

impl Authorization {
    /// With a grant from the cache, where there is one.
    pub(crate) fn cached(grant: Option<Arc<Grant>>) -> Self {
        let in_hand = match &grant {
            None => GrantInHand::None,
            Some(login) if login.is_login => GrantInHand::Login,
            Some(_) => GrantInHand::Token,
        };
        Self { grant, in_hand, elsewhere: None }
    }

    /// The grant for an exchange with `url`. The first one is not for hosts behind a redirect, nor for the first host once a
    /// redirect has left it: another host must not choose what is requested with it.
    pub(crate) fn grant_for(&self, url: &Url, has_left: bool) -> (Option<&Grant>, GrantInHand) {
        if !has_left {
            return (self.grant.as_deref(), self.in_hand);
        }
        match &self.elsewhere {
            Some((origin, grant)) if url.origin() == *origin => (Some(&**grant), GrantInHand::Renewed),
            _ => (None, GrantInHand::None),
        }
    }

    fn renewed(&mut self, grant: Arc<Grant>) {
        self.grant = Some(grant);
        self.in_hand = GrantInHand::Renewed;
    }
}

/// The authorization of one request from its first exchange to the last: which steps are left.
pub(crate) struct Renewal {
    pub(crate) authorization: Authorization,
    /// The grant from the cache that was not accepted.
    rejected: Option<Arc<Grant>>,
    /// The challenge that was answered with its own scope, while that of the request is another one.
    other_scope: Option<BearerChallenge>,
}

impl Renewal {
    pub(crate) fn new(cached: Option<Arc<Grant>>) -> Self {
        Self { authorization: Authorization::cached(cached), rejected: None, other_scope: None }
    }
}

impl Transport {
    /// Takes the step that a verdict asks for. Returns whether the request is to be repeated. Each step is taken once for a
    /// request: a cached grant is dropped, a challenge is answered with its scope, and with that of the request.
    pub(crate) async fn renew(
        &self,
        request: &UpstreamRequest,
        renewal: &mut Renewal,
        verdict: &Verdict,
        url: &Url,
    ) -> Result<bool, AttemptError> {
        let is_elsewhere = !same_origin(url, &request.url);
        let challenge = match verdict {
            Verdict::DropGrant => {
                renewal.rejected = renewal.authorization.grant.take();
                renewal.authorization.in_hand = GrantInHand::None;
                self.grants.remove(&request.scope, renewal.rejected.as_ref()).await;
                return Ok(true);
            }
            Verdict::Renew(challenge) if is_elsewhere => {
                if renewal.authorization.elsewhere.is_some() {
                    return Err(UpstreamError::Denied.into());
                }
                let grant = self.authorize_elsewhere(request, challenge, url).await?;
                renewal.authorization.elsewhere = Some((url.origin(), grant));
                return Ok(true);
            }
            Verdict::Renew(challenge) => challenge.clone(),
            Verdict::AskChallenge => match self.base_challenge().await? {
                Some(challenge) => challenge,
                None => return Ok(false),
            },
            Verdict::Refused if !is_elsewhere => {
                return match renewal.other_scope.take() {
                    Some(challenge) => {
                        let rejected = renewal.authorization.grant.clone();
                        let token = self.fetch_token(&challenge, &request.scope);
                        let grant = self.grants.renew(&request.scope, rejected.as_ref(), token).await?;
                        renewal.authorization.renewed(grant);
                        Ok(true)
                    }
                    None if renewal.authorization.grant.as_ref().is_some_and(|grant| grant.is_login) => {
                        Err(UpstreamError::LoginRefused { issuer: host_and_port(&request.url) }.into())
                    }
                    None => Ok(false),
                };
            }
            _ => return Ok(false),
        };
        let rejected = renewal.rejected.take().or_else(|| renewal.authorization.grant.take());
        let grant = self.authorize(request, &challenge, rejected.as_ref()).await?;
        renewal.authorization.renewed(grant);
        renewal.other_scope = match challenge {
            Challenge::Bearer(challenge) if challenge.scope_or(&request.scope) != request.scope => {
                Some(challenge)
            }
            _ => None,
        };
        Ok(true)
    }

    /// The grant that answers the challenge to a request. `rejected` is the one that the request was sent with.
    async fn authorize(
        &self,
        request: &UpstreamRequest,
        challenge: &Challenge,
        rejected: Option<&Arc<Grant>>,
    ) -> Result<Arc<Grant>, AttemptError> {
        let scope = &request.scope;
        match challenge {
            Challenge::Bearer(challenge) => {
                let required = challenge.scope_or(scope);
                let token = async {
                    match self.fetch_token(challenge, required).await {
                        // The scope of the challenge may be a placeholder.
                        Err(failed) if required != scope && failed.is_refusal() => {
                            self.fetch_token(challenge, scope).await
                        }
                        result => result,
                    }
                };
                self.grants.renew(scope, rejected, token).await
            }
            Challenge::Basic => {
                let login = async {
                    let login = self.login().await?.ok_or(UpstreamError::LoginRequired)?;
                    let is_rejected =
                        rejected.is_some_and(|rejected| rejected.authorization == login.authorization);
                    if is_rejected {
                        return Err(
                            UpstreamError::LoginRefused { issuer: host_and_port(&request.url) }.into()
                        );
                    }
                    Ok(login)
                };
                self.grants.renew(scope, rejected, login).await
            }
        }
    }

    /// The token that answers the challenge of a registry that the upstream redirected to. Its realm is a listed one.
    async fn authorize_elsewhere(
        &self,
        request: &UpstreamRequest,
        challenge: &Challenge,
        url: &Url,
    ) -> Result<Arc<Grant>, AttemptError> {
        let Challenge::Bearer(challenge) = challenge else { return Err(UpstreamError::Denied.into()) };
        let scope = challenge.scope_or(&request.scope);
        let key = format!("{} {scope}", url.origin().ascii_serialization());
        self.grants.renew(&key, None, self.fetch_token(challenge, scope)).await
    }

    /// The challenge that the upstream sends at `/v2/`, where clients ask first. It is remembered.
    async fn base_challenge(&self) -> Result<Option<Challenge>, AttemptError> {
        let known = self.base_challenge.lock().clone();
        if known.is_some() {
            return Ok(known);
        }
        let mut url = self.config.url.clone();
        url.set_path(&format!("{}/v2/", url.path().trim_end_matches('/')));
        let request = UpstreamRequest::new(RequestKind::GetBase, url, String::new());
        let response = self.follow(&request, &Authorization::cached(None)).await?;
        let Verdict::Renew(challenge) = response.verdict else { return Ok(None) };
        *self.base_challenge.lock() = Some(challenge.clone());
        Ok(Some(challenge))
    }

    /// Fetches a token from a checked realm. Redirects to other hosts are refused: the request contains the login.
    async fn fetch_token(&self, challenge: &BearerChallenge, scope: &str) -> Result<Grant, AttemptError> {
        let url = challenge.token_url(scope);
        let request = UpstreamRequest::new(RequestKind::GetToken, url, scope.to_owned());
        let login = self.login().await?.map(Arc::new);
        let has_login = login.is_some();
        let response = self.follow(&request, &Authorization::cached(login)).await?;
        if response.verdict == Verdict::Refused && has_login {
            let issuer = format!("the token service {}", host_and_port(&request.url));
            return Err(UpstreamError::LoginRefused { issuer }.into());
        }
        let (_, response) = response.content()?;
        let issuer = host_and_port(response.url());
        let (body, _memory) = self.read_body(response, MAX_TOKEN_RESPONSE).await?;
        Ok(Grant::from_token_response(&body, &issuer)?)
    }

    async fn login(&self) -> Result<Option<Grant>, AttemptError> {
        let Some(credentials) = &self.config.credentials else { return Ok(None) };
        let grant = Grant::from_login(&credentials.read().await?);
        let invalid = || UpstreamError::LoginUnreadable { reason: "it is not a valid header".to_owned() };
        Ok(Some(grant.ok_or_else(invalid)?))
    }
}
