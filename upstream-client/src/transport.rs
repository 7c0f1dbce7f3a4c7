//! One request to an upstream, from the decision that it may be sent to the answer's headers.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use circuit_breaker::{CircuitBreaker, Transition};
use http::{Method, header};
use reqwest::Response;
use tokio::time::timeout;
use url::Url;

use crate::{
    Observer, Priority, UpstreamConfig, UpstreamConfigError, UpstreamError,
    error::{AttemptError, host_and_port},
    http_clients::Clients,
    rate_limit::Quota,
    redirect,
    request::UpstreamRequest,
    retry::retry,
    snapshot::LastNews,
    ssrf_guard,
    token::{Grant, Tokens},
    token_realms::Realms,
    verdict::{Content, Facts, GrantInHand, Hop, HopHost, Verdict, content_length, outcome, verdict},
};

/// Everything that the requests to one upstream share.
pub(crate) struct Transport {
    pub(crate) config: UpstreamConfig,
    pub(crate) realms: Realms,
    pub(crate) tokens: Tokens,
    pub(crate) breaker: CircuitBreaker,
    pub(crate) quota: Quota,
    pub(crate) news: LastNews,
    clients: Clients,
    observer: Arc<dyn Observer>,
}

/// A response whose body has not been read, and what its headers prove.
#[derive(Debug)]
pub(crate) struct UpstreamResponse {
    pub(crate) verdict: Verdict,
    pub(crate) response: Response,
}

impl UpstreamResponse {
    /// The content, where the response has it; its body has not been read.
    ///
    /// # Errors
    /// As [`Verdict::content`].
    pub(crate) fn content(self) -> Result<(Content, Response), AttemptError> {
        Ok((self.verdict.content()?, self.response))
    }
}

impl Transport {
    pub(crate) fn new(
        config: UpstreamConfig,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, UpstreamConfigError> {
        config.check()?;
        Ok(Self {
            realms: Realms::new(config.url.clone(), &config.realms)?,
            tokens: Tokens::new(),
            breaker: CircuitBreaker::new(config.breaker_failures, config.breaker_open_for),
            quota: Quota::default(),
            news: LastNews::default(),
            clients: Clients::new(&config)?,
            observer,
            config,
        })
    }

    /// Makes attempts until one succeeds or fails for good, all of them `within` a time. Sends nothing while the
    /// upstream is offline or its circuit open, nor in the background while the quota is short.
    pub(crate) async fn call<T, F>(
        &self,
        priority: Priority,
        within: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, AttemptError>>,
    {
        if self.config.offline {
            return Err(UpstreamError::Offline);
        }
        if priority == Priority::Background
            && let Some(wait) = self.quota.hold_back(self.config.ratelimit_reserve, Instant::now())
        {
            return Err(UpstreamError::RateLimited { retry_after: Some(wait) });
        }
        let permit = self.breaker.admit(Instant::now())?;
        let result = retry(within, attempt).await;
        match permit.record(outcome(&result), Instant::now()) {
            Some(Transition::Opened) => {
                self.news.note();
                tracing::warn!(
                    upstream = self.config.name,
                    "upstream failed repeatedly: its circuit is open"
                );
            }
            Some(Transition::Closed) => self.news.note(),
            None => {}
        }
        result
    }

    /// Sends a request, answers a challenge once and follows redirects. The verdict is not [`Verdict::Renew`] or
    /// [`Verdict::Redirect`].
    pub(crate) async fn send(&self, request: &UpstreamRequest) -> Result<UpstreamResponse, AttemptError> {
        let mut grant = self.tokens.current(&request.scope).await;
        let mut in_hand = match &grant {
            None => GrantInHand::None,
            Some(login) if login.is_login => GrantInHand::Login,
            Some(_) => GrantInHand::Token,
        };
        loop {
            let UpstreamResponse { verdict, response } =
                self.follow(request, grant.as_deref(), in_hand).await?;
            let Verdict::Renew(challenge) = verdict else {
                return Ok(UpstreamResponse { verdict, response });
            };
            drop(response);
            grant = Some(self.authorize(request, challenge, grant.as_ref()).await?);
            in_hand = GrantInHand::Renewed;
        }
    }

    async fn follow(
        &self,
        request: &UpstreamRequest,
        grant: Option<&Grant>,
        in_hand: GrantInHand,
    ) -> Result<UpstreamResponse, AttemptError> {
        let mut url = request.url.clone();
        let mut grant = grant;
        let mut redirects = 0;
        loop {
            let hop = Hop { url: &url, host: self.host_of(&url), redirects };
            let answer = self.exchange(request, hop, grant, in_hand).await?;
            let Verdict::Redirect(next) = answer.verdict else { return Ok(answer) };
            // Once dropped it stays dropped: another host must not choose what is requested here with a login.
            grant = grant.filter(|_| redirect::same_origin(&url, &next));
            url = next;
            redirects += 1;
        }
    }

    /// Sends a request to the URL of a hop.
    pub(crate) async fn exchange(
        &self,
        request: &UpstreamRequest,
        hop: Hop<'_>,
        grant: Option<&Grant>,
        in_hand: GrantInHand,
    ) -> Result<UpstreamResponse, AttemptError> {
        let url = hop.url;
        // The configured host is the operator's choice, wherever it lies. It stays so when its name changes address:
        // over https the certificate then tells whether it is still the same party.
        let exempt = self.config.allow_private || hop.host == HopHost::Upstream;
        let proxied = self.config.proxy.is_some();
        let refused =
            ssrf_guard::check_address(url).is_err() || (proxied && ssrf_guard::check_name(url).is_err());
        if !exempt && refused {
            return Err(ssrf_guard::refusal(&host_and_port(url)).into());
        }
        let method = request.kind.method();
        let mut exchange = Exchange { transport: self, method: &method, code: 0 };
        let client = self.clients.pick(request.kind.lane(), exempt);
        let mut sent = client.request(method.clone(), url.clone()).headers(request.headers.clone());
        if let Some(grant) = grant {
            sent = sent.header(header::AUTHORIZATION, grant.authorization.clone());
        }
        let response = sent.send().await.map_err(|error| AttemptError::from_transport(error, url))?;
        exchange.code = response.status().as_u16();
        let verdict = verdict(&Facts {
            request: &request.kind,
            hop,
            status: response.status(),
            headers: response.headers(),
            grant: in_hand,
            has_credentials: self.config.credentials.is_some(),
            now: SystemTime::now(),
        });
        if hop.host == HopHost::Upstream {
            let retry_after = match verdict {
                Verdict::Limited { retry_after } => retry_after,
                _ => None,
            };
            if self.quota.note(retry_after, response.headers(), Instant::now()) {
                self.news.note();
            }
        }
        Ok(UpstreamResponse { verdict, response })
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read_all(&self, mut response: Response, limit: usize) -> Result<Bytes, AttemptError> {
        let announced = content_length(response.headers()).and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(UpstreamError::TooLarge.into());
        }
        let mut body = BytesMut::with_capacity(announced.unwrap_or_default());
        while let Some(piece) = self.next_piece(&mut response).await? {
            if body.len().saturating_add(piece.len()) > limit {
                return Err(UpstreamError::TooLarge.into());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// The next piece of a body, within the time between two pieces. The clock runs only while it is waited for.
    pub(crate) async fn next_piece(&self, response: &mut Response) -> Result<Option<Bytes>, AttemptError> {
        let piece = match timeout(self.config.read_timeout, response.chunk()).await {
            Ok(piece) => piece.map_err(|error| AttemptError::from_transport(error, response.url()))?,
            Err(_) => return Err(UpstreamError::Timeout.into()),
        };
        if let Some(piece) = &piece {
            self.observer.bytes(&self.config.name, u64::try_from(piece.len()).unwrap_or(u64::MAX));
        }
        Ok(piece)
    }

    pub(crate) fn host_of(&self, url: &Url) -> HopHost {
        if redirect::same_origin(url, &self.config.url) { HopHost::Upstream } else { HopHost::Other }
    }
}

/// Reports an exchange when it ends, one that was given up too.
struct Exchange<'a> {
    transport: &'a Transport,
    method: &'a Method,
    code: u16,
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.transport.observer.answered(&self.transport.config.name, self.method.as_str(), self.code);
    }
}
