//! The server around a service's routes.

use std::{future::Future, io, net::TcpListener, time::Duration};

use actix_web::{
    App, Error, HttpRequest, HttpResponse, HttpServer,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, StatusCode},
    middleware::{Next, from_fn},
    web,
};

use crate::{HttpMetrics, OciCode, OciError, access};

/// One listener and what is served on it.
pub struct Listen<C> {
    /// Bound already, so that a port in use is found before anything is started.
    pub listener: TcpListener,
    /// Mounts the routes on every worker.
    pub configure: C,
    /// Which service a path belongs to, for logs and metrics.
    pub service: fn(&str) -> &'static str,
}

/// How a server is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Worker threads.
    pub workers: usize,
    /// How long requests in flight may take after shutdown was asked for.
    pub shutdown_timeout: Duration,
    /// How much of an answer is gathered before it is written to the socket, in bytes.
    pub write_buffer: usize,
}

/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a client may take to send its request head.
const REQUEST_HEAD_LIMIT: Duration = Duration::from_secs(15);

/// Serves until `shutdown` resolves, then lets requests in flight finish within the limit.
///
/// # Errors
/// The listener cannot be served on.
pub async fn serve<C>(
    listen: Listen<C>,
    options: &Options,
    metrics: HttpMetrics,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    C: Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
{
    let Listen { listener, configure, service } = listen;
    let server = HttpServer::new(move || {
        let metrics = metrics.clone();
        App::new()
            .wrap(from_fn(explain_method))
            .wrap(from_fn(move |request, next| {
                access::record(service, web::ThinData(metrics.clone()), request, next)
            }))
            .configure(configure.clone())
            .default_service(web::to(unmatched))
    })
    .workers(options.workers)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(REQUEST_HEAD_LIMIT)
    .tcp_nodelay(true)
    .h1_allow_half_closed(false)
    .h1_write_buffer_size(options.write_buffer)
    .shutdown_timeout(options.shutdown_timeout.as_secs())
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    let running = tokio::spawn(server);
    shutdown.await;
    handle.stop(true).await;
    running.await.map_err(io::Error::other)?
}

/// The answer to a path or method that no route takes.
async fn unmatched(request: HttpRequest) -> HttpResponse {
    let known_method = matches!(*request.method(), Method::GET | Method::HEAD);
    if known_method {
        OciError::new(OciCode::Unsupported, "there is nothing at this path")
            .with_status(StatusCode::NOT_FOUND)
            .response()
    } else {
        method_not_served()
    }
}

fn method_not_served() -> HttpResponse {
    OciError::new(OciCode::Unsupported, "this method is not served here").response()
}

/// A path that is known by other methods is refused by the framework, without a word: clients get an error body, too.
async fn explain_method(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let response = next.call(request).await?.map_into_boxed_body();
    let silent = matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0));
    Ok(if silent && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.into_response(method_not_served())
    } else {
        response
    })
}
