//! The server for the routes of a service.

use std::{
    future::{Future, ready},
    io,
    net::TcpListener,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_http::HttpService;
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{
    App, HttpRequest,
    dev::{AppConfig, Server},
    rt::net::TcpStream,
    web,
};
use tokio_util::sync::CancellationToken;

use crate::{HttpMetrics, access::Access, connection::Connection, unserved::unmatched};

/// One listener and its routes.
pub struct Listen<C> {
    /// Already bound, so that a port in use is detected before the server starts.
    pub listener: TcpListener,
    /// Mounts the routes on every worker.
    pub configure: C,
    /// Maps a path to the name of its service, for logs and metrics.
    pub service: fn(&str) -> &'static str,
}

/// The options of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of worker threads.
    pub workers: usize,
    /// Maximum time for requests in flight to complete after shutdown begins.
    pub shutdown_timeout: Duration,
    /// Time after which an idle connection is closed.
    pub keep_alive: Duration,
    /// Maximum time for a client to send a request head.
    pub head_timeout: Duration,
    /// Maximum time without progress of a response. The kernel then closes the connection.
    pub write_timeout: Duration,
    /// Number of response bytes that are buffered before a write to the socket.
    pub write_buffer: usize,
}

/// How long connections that have been established are accepted before the listener closes.
const ACCEPT_GRACE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` resolves, then waits for requests in flight, up to the limit. From `draining` on, each response
/// closes its connection, so that clients do not send a request on a connection that is about to be closed. `shutdown`
/// returns how long open connections without a request remain: a request may be on its way.
///
/// # Errors
/// The server cannot run on the listener.
pub async fn serve<C>(
    listen: Listen<C>,
    options: &Options,
    metrics: HttpMetrics,
    draining: CancellationToken,
    shutdown: impl Future<Output = Duration>,
) -> io::Result<()>
where
    C: Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
{
    let Listen { listener, configure, service } = listen;
    let backlog = listener.try_clone()?;
    let Options { keep_alive, head_timeout, write_timeout, write_buffer, .. } = *options;
    let server = Server::build()
        .workers(options.workers)
        .shutdown_timeout(options.shutdown_timeout.as_secs())
        .disable_signals();
    let stopping = server.graceful_shutdown_signal();
    let idle_grace = Arc::new(OnceLock::new());
    let idle_grace_of_connections = Arc::clone(&idle_grace);
    let server = server
        .listen("http", listener, move || {
            let app = App::new()
                .wrap(Access { service, metrics: metrics.clone(), draining: draining.clone() })
                .configure(configure.clone())
                .default_service(web::to(async |request: HttpRequest| unmatched(&request)))
                .into_factory()
                .map_err(|error| error.error_response());
            let (stopping, idle_grace) = (stopping.clone(), Arc::clone(&idle_grace_of_connections));
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let (stopping, idle_grace) = (stopping.clone(), Arc::clone(&idle_grace));
                    async move {
                        stopping.notified().await;
                        tokio::time::sleep(idle_grace.get().copied().unwrap_or_default()).await;
                    }
                })
                .keep_alive(keep_alive)
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
    let grace = shutdown.await;
    if !grace.is_zero() {
        // New connections wait, so that none is in the queue when the listener closes: the kernel would reset it.
        match rustix::net::listen(&backlog, 0) {
            Ok(()) => tokio::time::sleep(ACCEPT_GRACE).await,
            Err(error) => tracing::warn!(%error, "failed to close the queue of a listener"),
        }
    }
    drop(backlog);
    // Connections read the value once the server stops.
    let _ = idle_grace.set(grace);
    handle.stop(true).await;
    running.await.map_err(io::Error::other)?
}
