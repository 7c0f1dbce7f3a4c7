//! Request log and request metrics. A request is counted when the head of its response is ready,
//! and logged when the last byte is sent or the client disconnects.

use std::{
    borrow::Cow,
    future::{Future, Ready, ready},
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    http::{
        ConnectionType, Method,
        header::{HeaderValue, USER_AGENT},
    },
    web::Bytes,
};
use tokio_util::sync::CancellationToken;

use crate::{
    HttpMetrics,
    connection::{InFlight, Requests},
    metrics::{Counters, WorkerCounters},
    request_id::{RequestId, TRACEPARENT, X_REQUEST_ID, trace_id},
    route::{Route, UNMATCHED},
    unserved::explained,
};

/// The maximum length of a logged user agent, in characters.
const MAX_USER_AGENT: usize = 200;

/// Logs and counts the requests of a listener. `service` maps a path to the name of its service.
pub(crate) struct Access {
    pub(crate) service: fn(&str) -> &'static str,
    pub(crate) metrics: HttpMetrics,
    pub(crate) draining: CancellationToken,
}

impl<S> Transform<S, ServiceRequest> for Access
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
    S::Future: Unpin,
{
    type Response = ServiceResponse<Recorded>;
    type Error = Error;
    type Transform = Recorder<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, next: S) -> Self::Future {
        let counters = Rc::new(WorkerCounters::new(self.metrics.clone()));
        ready(Ok(Recorder { next, service: self.service, counters, draining: self.draining.clone() }))
    }
}

/// [`Access`] on one worker.
pub(crate) struct Recorder<S> {
    next: S,
    service: fn(&str) -> &'static str,
    counters: Rc<WorkerCounters>,
    draining: CancellationToken,
}

impl<S> Service<ServiceRequest> for Recorder<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
    S::Future: Unpin,
{
    type Response = ServiceResponse<Recorded>;
    type Error = Error;
    type Future = Recording<S::Future>;

    forward_ready!(next);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let (started, service) = (Instant::now(), (self.service)(request.path()));
        let id = RequestId::of_headers(request.headers());
        request.extensions_mut().insert(id.clone());
        let in_flight = request.conn_data::<Rc<Requests>>().cloned().map(Requests::begin);
        let (counters, draining) = (Rc::clone(&self.counters), self.draining.clone());
        Recording { answer: self.next.call(request), in_flight, started, service, counters, draining, id }
    }
}

/// A request that is being answered.
pub(crate) struct Recording<F> {
    answer: F,
    in_flight: Option<InFlight>,
    started: Instant,
    service: &'static str,
    counters: Rc<WorkerCounters>,
    draining: CancellationToken,
    id: RequestId,
}

impl<F> Future for Recording<F>
where
    F: Future<Output = Result<ServiceResponse, Error>> + Unpin,
{
    type Output = Result<ServiceResponse<Recorded>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = explained(ready!(Pin::new(&mut self.answer).poll(context))?);
        if self.draining.is_cancelled() {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        if let Some(id) = self.id.header() {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        if let Some(trace) =
            response.request().headers().get(TRACEPARENT).filter(|trace| is_trace(trace)).cloned()
        {
            response.headers_mut().insert(TRACEPARENT, trace);
        }
        let request = response.request();
        let code = response.status().as_u16();
        let counters = self.counters.of(self.service, &route(request), code);
        counters.requests.inc();
        counters.seconds.observe(self.started.elapsed().as_secs_f64());
        let line = Line {
            service: self.service,
            request: RequestFields::of(request, &self.id),
            method: request.method().clone(),
            path: request.path().to_owned(),
            code,
            started: self.started,
            bytes: 0,
            expected: None,
            counters,
        };
        let in_flight = self.in_flight.take();
        Poll::Ready(Ok(response.map_body(|_, body| Recorded::new(body, line, in_flight))))
    }
}

fn route(request: &HttpRequest) -> Cow<'static, str> {
    if let Some(Route(route)) = request.extensions().get::<Route>() {
        return Cow::Borrowed(route);
    }
    request.match_pattern().map_or(Cow::Borrowed(UNMATCHED.0), Cow::Owned)
}

/// Who sent a request, and its identity.
struct RequestFields {
    id: RequestId,
    trace_id: Option<String>,
    client: Option<IpAddr>,
    user_agent: Option<String>,
}

impl RequestFields {
    fn of(request: &HttpRequest, id: &RequestId) -> Self {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            id: id.clone(),
            trace_id: text(TRACEPARENT).and_then(trace_id).map(str::to_owned),
            client: request.peer_addr().map(|address| address.ip()),
            user_agent: text(USER_AGENT).map(|agent| agent.chars().take(MAX_USER_AGENT).collect()),
        }
    }
}

fn is_trace(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| trace_id(text).is_some())
}

struct Line {
    request: RequestFields,
    service: &'static str,
    method: Method,
    /// Without the query, which may contain a signature.
    path: String,
    code: u16,
    started: Instant,
    bytes: u64,
    expected: Option<u64>,
    counters: Rc<Counters>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.counters.served_bytes.inc_by(self.bytes);
        }
        let complete =
            self.method == Method::HEAD || self.expected.is_none_or(|expected| expected == self.bytes);
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (service, code, bytes) = (self.service, self.code, self.bytes);
        let RequestFields { id, trace_id, client, user_agent } = &self.request;
        let (client, user_agent) = (client.as_ref().map(tracing::field::display), user_agent.as_deref());
        let trace_id = trace_id.as_deref();
        if complete {
            tracing::info!(
                service,
                code,
                bytes,
                elapsed_ms,
                client,
                user_agent,
                request_id = %id,
                trace_id,
                "{} {} {code}",
                self.method,
                self.path
            );
        } else {
            tracing::info!(
                service,
                code,
                bytes,
                elapsed_ms,
                expected = self.expected,
                client,
                user_agent,
                request_id = %id,
                trace_id,
                "{} {} {code}, cut short",
                self.method,
                self.path
            );
        }
    }
}

/// A body that counts its bytes for the log line of its request.
pub(crate) struct Recorded {
    body: BoxBody,
    line: Line,
    _in_flight: Option<InFlight>,
}

impl Recorded {
    fn new(body: BoxBody, mut line: Line, in_flight: Option<InFlight>) -> Self {
        if let BodySize::Sized(size) = body.size() {
            line.expected = Some(size);
        }
        Self { body, line, _in_flight: in_flight }
    }
}

impl MessageBody for Recorded {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.line.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        }
        polled
    }
}
