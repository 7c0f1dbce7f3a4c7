//! What all requests to one upstream share, and the conditions under which a call is made.

use std::{cell::Cell, pin::pin, sync::Arc, time::Duration};

use circuit_breaker::{CircuitBreaker, Transition};
use parking_lot::Mutex;
use settings::proxy::Proxies;
use tokio::time::timeout;

use crate::{
    FirstByteLimit, Observer, Priority, UpstreamConfig, UpstreamConfigError, UpstreamError,
    admission::Admission,
    challenge::Challenge,
    clock,
    error::AttemptError,
    failure_log::FailureLog,
    grants::Grants,
    http_clients::HttpClients,
    rate_limit::RateLimitState,
    request::HeadWorks,
    retry::retry,
    snapshot::LastChange,
    ssrf_guard::SsrfGuard,
    tags::PageSize,
    token_realms::TokenRealms,
    verdict::{HopHost, outcome},
};

tokio::task_local! {
    /// The host of the last exchange of a call: the one that failed, when the call fails.
    static LAST_HOST: Cell<HopHost>;
}

/// The time limits of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallLimits {
    /// For all attempts.
    total: Duration,
    /// While the call counts as a request in flight, and as the probe of a half-open circuit. Others do not wait longer for a
    /// registry that stores a blob before it sends it.
    counted: Duration,
}

/// Records that the call of this task begins an exchange with `host`.
pub(crate) fn begin_exchange(host: HopHost) {
    let _ = LAST_HOST.try_with(|last| last.set(host));
}

/// What all requests to one upstream share.
pub(crate) struct Transport {
    pub(crate) config: UpstreamConfig,
    pub(crate) proxies: Proxies,
    pub(crate) guard: SsrfGuard,
    pub(crate) clients: HttpClients,
    pub(crate) token_realms: TokenRealms,
    pub(crate) grants: Grants,
    /// The challenge of `/v2/`, where the upstream sends it only there.
    pub(crate) base_challenge: Mutex<Option<Challenge>>,
    pub(crate) head_works: HeadWorks,
    pub(crate) page_size: PageSize,
    pub(crate) breaker: CircuitBreaker,
    pub(crate) admission: Admission,
    pub(crate) rate_limit: RateLimitState,
    pub(crate) last_change: LastChange,
    failure_log: FailureLog,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Transport {
    pub(crate) fn new(
        config: UpstreamConfig,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, UpstreamConfigError> {
        config.check()?;
        let proxies = config.proxy.proxies(&config.env_proxies);
        let guard = SsrfGuard::new(&config.url);
        Ok(Self {
            clients: HttpClients::new(&config, &proxies, &guard)?,
            proxies,
            guard,
            token_realms: TokenRealms::new(config.url.clone(), &config.realms)?,
            grants: Grants::new(),
            base_challenge: Mutex::default(),
            head_works: HeadWorks::default(),
            page_size: PageSize::default(),
            breaker: CircuitBreaker::new(config.breaker_failures, config.breaker_open_for),
            admission: Admission::new(&config),
            rate_limit: RateLimitState::default(),
            last_change: LastChange::default(),
            failure_log: FailureLog::default(),
            observer,
            config,
        })
    }

    /// The limits of a call about metadata.
    pub(crate) fn metadata_limits(&self) -> CallLimits {
        CallLimits { total: self.config.answer_timeout, counted: Duration::MAX }
    }

    /// The limits of a call that opens a blob.
    pub(crate) fn blob_limits(&self, first_byte: FirstByteLimit) -> CallLimits {
        let (first_byte_timeout, read_timeout) = (self.config.first_byte_timeout, self.config.read_timeout);
        match first_byte {
            FirstByteLimit::Full => CallLimits { total: first_byte_timeout, counted: read_timeout },
            FirstByteLimit::Short => {
                CallLimits { total: read_timeout.min(first_byte_timeout), counted: Duration::MAX }
            }
        }
    }

    /// Makes attempts until one succeeds or fails for good, within `limits`. Sends nothing while the upstream is
    /// offline or its circuit is open, and no background request while the quota is low.
    pub(crate) async fn call<T, F>(
        &self,
        priority: Priority,
        limits: CallLimits,
        attempt: impl Fn() -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, AttemptError>>,
    {
        if self.config.offline {
            return Err(UpstreamError::Offline);
        }
        let reserve = self.config.ratelimit_reserve;
        if priority == Priority::Background
            && let Some(wait) = self.rate_limit.background_wait(reserve, clock::now())
        {
            return Err(UpstreamError::RateLimited { retry_after: Some(wait) });
        }
        if let Some(retry_after) = self.breaker.remaining(clock::now()) {
            return Err(UpstreamError::CircuitOpen { retry_after });
        }
        let admitted = self.admission.request(limits.total.min(limits.counted)).await?;
        let permit = self.breaker.admit(clock::now())?;
        let mut counted = Some((admitted, permit));
        let mut attempts = pin!(LAST_HOST.scope(Cell::new(HopHost::Upstream), async {
            let result = retry(limits.total, attempt).await;
            (result, LAST_HOST.with(Cell::get))
        }));
        let (result, host) = match timeout(limits.counted, &mut attempts).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                counted = None;
                attempts.await
            }
        };
        self.failure_log.record(&self.config.name, &result);
        let Some(outcome) = outcome(&result, host) else { return result };
        let transition = match counted {
            Some((_, permit)) => permit.record(outcome, clock::now()),
            None => self.breaker.record(outcome, clock::now()),
        };
        match transition {
            Some(Transition::Opened) => {
                self.last_change.set();
                tracing::warn!(upstream = self.config.name, "circuit opened after repeated failures");
            }
            Some(Transition::Closed) => self.last_change.set(),
            None => {}
        }
        result
    }
}
