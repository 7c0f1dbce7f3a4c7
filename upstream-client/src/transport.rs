//! One request to an upstream, from the decision that it may be sent to the answer's headers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use circuit_breaker::{CircuitBreaker, Outcome, Transition};
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Response;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::{
    Observer, Priority, UpstreamConfig, UpstreamConfigError, UpstreamError,
    dial::{Clients, Lane},
    error::{Failure, host_and_port},
    guard,
    rate_limit::Quota,
    realm::Realms,
    redirect,
    sighting::LastNews,
    token::{Grant, Tokens},
};

/// How often a request that may be sent again is sent again.
const RETRIES: usize = 2;

/// How long to wait before that, in milliseconds; drawn anew each time, so that many do not come back together.
const PAUSE_MILLIS: std::ops::RangeInclusive<u64> = 100..=400;

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

/// What to ask.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// What a token is asked for, unless the challenge names it: `repository:NAME:pull`.
    pub(crate) scope: String,
    pub(crate) lane: Lane,
}

/// An answer whose body has not been read, after all redirects.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Whether the upstream itself gave it, and not a host it redirected to.
    pub(crate) at_home: bool,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// What this answer means where it is none of those hoped for.
    pub(crate) fn failure(&self) -> Failure {
        Failure::from_status(self.status(), self.headers())
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
        F: Future<Output = Result<T, Failure>>,
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
        let result = match timeout(within, retry(within, attempt)).await {
            Ok(result) => result,
            Err(_) => Err(UpstreamError::Timeout),
        };
        let failed = result.as_ref().is_err_and(|error| error.is_failure());
        let outcome = if failed { Outcome::Failure } else { Outcome::Success };
        match permit.record(outcome, Instant::now()) {
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

    /// Sends a request, answers a challenge once and follows redirects. The answer may have any status.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Answer, Failure> {
        let held = self.tokens.current(&ask.scope).await;
        let answer = self.follow(ask, held.as_deref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !answer.at_home {
            return Ok(answer);
        }
        let grant = self.authorize(ask, answer.headers(), held.as_ref()).await?;
        drop(answer);
        self.follow(ask, Some(&grant)).await
    }

    async fn follow(&self, ask: &Ask, grant: Option<&Grant>) -> Result<Answer, Failure> {
        let mut url = ask.url.clone();
        let mut grant = grant;
        for _ in 0..=redirect::MAX_HOPS {
            let response = self.exchange(ask.lane, &ask.method, &url, &ask.headers, grant).await?;
            if !redirect::is_redirect(response.status()) {
                return Ok(Answer { response, at_home: self.is_home(&url) });
            }
            let next = redirect::next(&url, response.headers())?;
            // Once left behind it stays behind: another host must not choose what is asked here with a login.
            grant = grant.filter(|_| redirect::same_origin(&url, &next));
            url = next;
        }
        Err(Failure::bad_answer(format!("more than {} redirects", redirect::MAX_HOPS)))
    }

    /// One request, one answer.
    pub(crate) async fn exchange(
        &self,
        lane: Lane,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        grant: Option<&Grant>,
    ) -> Result<Response, Failure> {
        // The configured host is the operator's choice, wherever it lies. It stays so when its name changes address:
        // over https the certificate then tells whether it is still the same party.
        let exempt = self.config.allow_private || self.is_home(url);
        let proxied = self.config.proxy.is_some();
        let refused = guard::check_address(url).is_err() || (proxied && guard::check_name(url).is_err());
        if !exempt && refused {
            return Err(Failure::bad_answer(guard::refusal(&host_and_port(url))));
        }
        let mut request =
            self.clients.pick(lane, exempt).request(method.clone(), url.clone()).headers(headers.clone());
        if let Some(grant) = grant {
            request = request.header(header::AUTHORIZATION, grant.authorization.clone());
        }
        let mut exchange = Exchange { transport: self, method, code: 0 };
        let response = request.send().await.map_err(|error| Failure::from_transport(&error, url))?;
        exchange.code = response.status().as_u16();
        if self.is_home(url) && self.quota.note(response.status(), response.headers(), Instant::now()) {
            self.news.note();
        }
        Ok(response)
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read_all(&self, mut response: Response, limit: usize) -> Result<Bytes, Failure> {
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
    pub(crate) async fn next_piece(&self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        let piece = match timeout(self.config.read_timeout, response.chunk()).await {
            Ok(piece) => piece.map_err(|error| Failure::from_transport(&error, response.url()))?,
            Err(_) => return Err(UpstreamError::Timeout.into()),
        };
        if let Some(piece) = &piece {
            self.observer.bytes(&self.config.name, u64::try_from(piece.len()).unwrap_or(u64::MAX));
        }
        Ok(piece)
    }

    fn is_home(&self, url: &Url) -> bool {
        redirect::same_origin(url, &self.config.url)
    }
}

/// The `Content-Length` that stands in the headers, also of an answer to `HEAD`.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

async fn retry<T, F>(within: Duration, attempt: impl Fn() -> F) -> Result<T, UpstreamError>
where
    F: Future<Output = Result<T, Failure>>,
{
    let started = Instant::now();
    let mut left = RETRIES;
    loop {
        let failure = match attempt().await {
            Ok(success) => return Ok(success),
            Err(failure) => failure,
        };
        let pause = Duration::from_millis(rand::random_range(PAUSE_MILLIS));
        // Where no time is left for another attempt, what this one met says more than a timeout would.
        if !failure.retryable || left == 0 || started.elapsed().saturating_add(pause) >= within {
            return Err(failure.error);
        }
        left -= 1;
        sleep(pause).await;
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
