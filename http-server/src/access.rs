//! One line a request, written when its last byte has gone or its client has left.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use actix_web::{
    Error,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    middleware::Next,
    web,
    web::Bytes,
};

use crate::HttpMetrics;

/// Logs and counts a request of `service`.
pub(crate) async fn record(
    service: fn(&str) -> &'static str,
    metrics: web::ThinData<HttpMetrics>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let service = service(request.path());
    let response = next.call(request).await?;
    let route = response.request().match_pattern().unwrap_or_else(|| "unmatched".to_owned());
    let code = response.status().as_u16();
    metrics.answered(service, &route, code, started.elapsed());
    let line = Line {
        service,
        method: response.request().method().clone(),
        path: response.request().path().to_owned(),
        code,
        started,
        bytes: 0,
        expected: None,
        metrics: metrics.0,
    };
    Ok(response.map_body(|_, body| BoxBody::new(Recorded::new(body.boxed(), line))))
}

struct Line {
    service: &'static str,
    method: Method,
    /// Without the query, which may be signed.
    path: String,
    code: u16,
    started: Instant,
    bytes: u64,
    expected: Option<u64>,
    metrics: HttpMetrics,
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.metrics.served(self.service, self.bytes);
        }
        let complete =
            self.method == Method::HEAD || self.expected.is_none_or(|expected| expected == self.bytes);
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (service, code, bytes) = (self.service, self.code, self.bytes);
        if complete {
            tracing::info!(service, code, bytes, elapsed_ms, "{} {} {code}", self.method, self.path);
        } else {
            tracing::info!(
                service,
                code,
                bytes,
                elapsed_ms,
                expected = self.expected,
                "{} {} {code}, cut short",
                self.method,
                self.path
            );
        }
    }
}

/// A body that counts its bytes into the line of its request.
struct Recorded {
    body: BoxBody,
    line: Line,
}

impl Recorded {
    fn new(body: BoxBody, mut line: Line) -> Self {
        if let BodySize::Sized(size) = body.size() {
            line.expected = Some(size);
        }
        Self { body, line }
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
