//! The server around a service's routes.

use std::{
    future::{Future, ready},
    io,
    net::TcpListener,
    time::Duration,
};

use actix_http::HttpService;
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{
    App, HttpMessage as _, HttpRequest, HttpResponse,
    body::{BodySize, MessageBody as _},
    dev::{AppConfig, Server, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{ALLOW, HeaderValue},
    },
    rt::net::TcpStream,
    web,
};

use crate::{
    HttpMetrics, OciCode, OciError,
    access::{Access, UNMATCHED},
    connection::Connection,
};

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
    /// How long a client may take to send a request head.
    pub head_timeout: Duration,
    /// How long a client may take nothing of a response. The kernel closes the connection then.
    pub write_timeout: Duration,
    /// How much of an answer is gathered before it is written to the socket, in bytes.
    pub write_buffer: usize,
}

/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

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
    let Options { head_timeout, write_timeout, write_buffer, .. } = *options;
    let server = Server::build()
        .workers(options.workers)
        .shutdown_timeout(options.shutdown_timeout.as_secs())
        .disable_signals();
    let draining = server.graceful_shutdown_signal();
    let server = server
        .listen("http", listener, move || {
            let app = App::new()
                .wrap(Access { service, metrics: metrics.clone() })
                .configure(configure.clone())
                .default_service(web::to(async |request: HttpRequest| unmatched(&request)))
                .into_factory()
                .map_err(|error| error.error_response());
            let draining = draining.clone();
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let draining = draining.clone();
                    async move { draining.notified().await }
                })
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(head_timeout)
                .h1_allow_half_closed(false)
                .h1_write_buffer_size(write_buffer)
                .on_connect_ext(|connection: &Connection, data| {
                    data.insert(connection.requests());
                })
                .h1(map_config(app, |()| AppConfig::default()));
            fn_service(move |stream: TcpStream| {
                let peer = stream.peer_addr().ok();
                ready(Ok((Connection::new(stream, head_timeout, write_timeout), peer)))
            })
            .and_then(http)
        })?
        .run();
    let handle = server.handle();
    let running = tokio::spawn(server);
    shutdown.await;
    handle.stop(true).await;
    running.await.map_err(io::Error::other)?
}

/// The answer to a path that no route takes.
pub fn unmatched(request: &HttpRequest) -> HttpResponse {
    request.extensions_mut().insert(UNMATCHED);
    if is_read(request.method()) {
        OciError::new(OciCode::Unsupported, "there is nothing at this path")
            .with_status(StatusCode::NOT_FOUND)
            .response()
    } else {
        only_read()
    }
}

/// Whether a method is one of those that [`only_read`] names.
pub fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The answer to a method that does not read, where nothing else is served (RFC 9110, section 15.5.6).
pub fn only_read() -> HttpResponse {
    method_not_served(Some(HeaderValue::from_static("GET, HEAD")))
}

fn method_not_served(allowed: Option<HeaderValue>) -> HttpResponse {
    let mut response = OciError::new(OciCode::Unsupported, "this method is not served here").response();
    if let Some(allowed) = allowed {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// A path that is known by other methods is refused by the framework, without a word: clients get an error body, too.
pub(crate) fn explained(response: ServiceResponse) -> ServiceResponse {
    let silent = matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0));
    if silent && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = response.headers().get(ALLOW).cloned();
        response.into_response(method_not_served(allowed))
    } else {
        response
    }
}
