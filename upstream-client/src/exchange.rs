//! One request: authorization, redirects, and each exchange with a host.

use std::time::SystemTime;

use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Response;
use tokio::time::timeout;
use url::Url;

use crate::{
    ProxyRefusal, UpstreamError,
    authorization::{Authorization, Renewal},
    clock,
    error::{AttemptError, host_and_port},
    grant::Grant,
    http_clients::Route,
    redirect::same_origin,
    request::{RequestKind, UpstreamRequest},
    ssrf_guard,
    transport::{Transport, begin_exchange},
    verdict::{Content, Facts, GrantInHand, Hop, HopHost, Verdict, verdict},
};

/// A response whose body has not been read, and what its headers prove.
#[derive(Debug)]
pub(crate) struct UpstreamResponse {
    pub(crate) verdict: Verdict,
    pub(crate) response: Response,
}

impl UpstreamResponse {
    /// The content and the response, whose body has not been read.
    ///
    /// # Errors
    /// As [`Verdict::content`].
    pub(crate) fn content(self) -> Result<(Content, Response), AttemptError> {
        Ok((self.verdict.content()?, self.response))
    }
}

impl Transport {
    /// Sends a request, authorizes it and follows redirects. The verdict never requires another exchange.
    pub(crate) async fn send(&self, request: &UpstreamRequest) -> Result<UpstreamResponse, AttemptError> {
        let mut renewal = Renewal::new(self.grants.current(&request.scope).await);
        // `renew` takes each of its steps once.
        loop {
            let mut response = self.follow(request, &renewal.authorization).await?;
            let url = response.response.url();
            // The limit of a call may be longer, for a registry that stores a blob first. A token service has nothing to store.
            let limit = self.config.read_timeout.max(self.config.answer_timeout);
            let renewing = timeout(limit, self.renew(request, &mut renewal, &response.verdict, url));
            if !renewing.await.map_err(|_elapsed| UpstreamError::Timeout)?? {
                if response.verdict == Verdict::AskChallenge {
                    let head_is_refused = request.kind.is_head() && !self.head_works.contains(&request.kind);
                    response.verdict = if head_is_refused { Verdict::TryGet } else { Verdict::Refused };
                }
                return Ok(response);
            }
        }
    }

    /// Sends a request and follows redirects.
    pub(crate) async fn follow(
        &self,
        request: &UpstreamRequest,
        authorization: &Authorization,
    ) -> Result<UpstreamResponse, AttemptError> {
        let mut url = request.url.clone();
        let mut has_left = false;
        let mut redirects = 0;
        // The verdict refuses more than `MAX_REDIRECTS`.
        loop {
            let hop = Hop { url: &url, host: self.host_of(&url), redirects };
            let (grant, in_hand) = authorization.grant_for(&url, has_left);
            let response = self.exchange(request, hop, grant, in_hand).await?;
            let Verdict::Redirect(next) = response.verdict else { return Ok(response) };
            has_left |= !same_origin(&url, &next);
            url = next;
            redirects += 1;
        }
    }

    /// Sends a request to the URL of a hop.
    async fn exchange(
        &self,
        request: &UpstreamRequest,
        hop: Hop<'_>,
        grant: Option<&Grant>,
        in_hand: GrantInHand,
    ) -> Result<UpstreamResponse, AttemptError> {
        let url = hop.url;
        // Every request depends on the token service.
        begin_exchange(if request.kind == RequestKind::GetToken { HopHost::Upstream } else { hop.host });
        // The operator chose the host of the upstream, wherever it is. It stays exempt when its address changes: over
        // https its certificate proves its identity.
        let is_exempt = hop.host == HopHost::Upstream || self.config.allow_private;
        let proxy = self.proxies.of(url);
        let is_blocked = self.guard.blocks_address(url)
            || (proxy.is_some() && ssrf_guard::is_private_name(url) && url.host() != self.config.url.host());
        if !is_exempt && is_blocked {
            return Err(ssrf_guard::blocked(&host_and_port(url)).into());
        }
        // A proxy resolves the name of the host, and its own name the operator chose.
        let route = if is_exempt || proxy.is_some() { Route::Any } else { Route::Guarded };
        let method = request.kind.method();
        let mut observed = ObservedExchange { transport: self, method: &method, code: 0 };
        let client = self.clients.get(request.kind.traffic_class(), route);
        let mut outgoing = client.request(method.clone(), url.clone()).headers(request.headers.clone());
        if let Some(grant) = grant {
            outgoing = outgoing.header(header::AUTHORIZATION, grant.authorization.clone());
        }
        let sent = outgoing.send().await;
        let response = sent.map_err(|error| AttemptError::from_transport(error, url, proxy.as_ref()))?;
        observed.code = response.status().as_u16();
        if hop.host == HopHost::Upstream
            && proxy.is_none()
            && let Some(address) = response.remote_addr()
        {
            self.guard.observe(address.ip());
        }
        // The proxy itself answers requests to http URLs.
        if let Some(proxy) = proxy
            && url.scheme() == "http"
            && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        {
            let proxy = proxy.host().to_owned();
            return Err(UpstreamError::ProxyRefused { proxy, refusal: ProxyRefusal::Login }.into());
        }
        if response.status().is_server_error() && is_forwarded(response.headers()) {
            begin_exchange(HopHost::Other);
        }
        let verdict = verdict(&Facts {
            request: &request.kind,
            hop,
            status: response.status(),
            headers: response.headers(),
            grant: in_hand,
            has_credentials: self.config.credentials.is_some(),
            realms: &self.token_realms,
            head_works: self.head_works.contains(&request.kind),
            now: SystemTime::now(),
        });
        if let Verdict::Has(_) = verdict {
            self.head_works.insert(&request.kind);
        }
        if hop.host == HopHost::Upstream {
            self.observe_rate_limit(&verdict, &response);
        }
        Ok(UpstreamResponse { verdict, response })
    }

    pub(crate) fn host_of(&self, url: &Url) -> HopHost {
        if same_origin(url, &self.config.url) { HopHost::Upstream } else { HopHost::Other }
    }

    fn observe_rate_limit(&self, verdict: &Verdict, response: &Response) {
        let retry_after = match verdict {
            Verdict::Limited { retry_after } => *retry_after,
            _ => None,
        };
        if self.rate_limit.observe(retry_after, response.headers(), clock::now()) {
            self.last_change.set();
        }
    }
}

/// Whether a response states that the host asked another one for it (RFC 9211, section 2.2): a failure is that one's.
fn is_forwarded(headers: &HeaderMap) -> bool {
    let values = headers.get_all("cache-status").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([';', ','])).any(|parameter| parameter.trim().starts_with("fwd="))
}

/// Reports an exchange to the observer when it ends, also when it is cancelled.
struct ObservedExchange<'a> {
    transport: &'a Transport,
    method: &'a Method,
    code: u16,
}

impl Drop for ObservedExchange<'_> {
    fn drop(&mut self) {
        let Self { transport, method, code } = self;
        transport.observer.request_completed(&transport.config.name, method.as_str(), *code);
    }
}
