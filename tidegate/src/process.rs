//! One process: its listeners, its services, its end.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use actix_web::web::ServiceConfig;
use anyhow::{Context as _, bail};
use content_app::ContentApp;
use http_server::{Health, HttpMetrics, Listen, Options, Readiness, serve};
use prometheus_client::registry::Registry;
use registry_api::RegistryApi;
use shared_models::{
    db::{Db, DbConfig},
    migrate,
};
use tokio::sync::watch;
use upstream_client::{Observer, Upstream};

use crate::{
    banner::Listening,
    cli::Mode,
    config::{Place, Settings},
    data_dir, services, storage,
    upstream_metrics::UpstreamMetrics,
    upstream_sharing,
};

/// When so many bytes of an answer are gathered they are written to the socket, and no more is read for it meanwhile: what a
/// client that hardly reads costs, beside one chunk of its body.
const WRITE_BUFFER: usize = 16 * 1024;

/// How long requests on the internal listener may still take when all else has ended. The services' own are over by then.
const INTERNAL_SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a service waits for `tidegate migrate`.
const SCHEMA_WAIT: Duration = Duration::from_secs(300);

/// A process that is ready to serve: bound, connected, and with the schema it expects.
pub struct Process {
    listeners: Listeners,
    options: Options,
    metrics: HttpMetrics,
    health: Health,
    /// How long the process serves on after it was told to end.
    drain_grace: Duration,
    api: Option<RegistryApi>,
    content: Option<ContentApp>,
    sharing: Sharing,
}

/// What is shared of upstreams with other processes.
struct Sharing {
    db: Db,
    upstreams: Vec<Upstream>,
}

struct Listeners {
    public: TcpListener,
    internal: TcpListener,
    at: Listening,
}

/// How the database is reached.
pub fn database(settings: &Settings) -> DbConfig {
    DbConfig {
        url: settings.database.url.expose().to_owned(),
        max_connections: settings.database.max_connections,
        wait: settings.database.wait,
        prepared_statements: settings.database.prepared_statements,
    }
}

impl Process {
    /// Binds, opens and connects everything that `mode` needs. In serve mode the database is migrated; the other modes
    /// wait for the schema that they expect.
    ///
    /// # Errors
    /// One sentence with its cause: an address in use, a folder that cannot be written, a database that does not answer.
    pub async fn start(mode: Mode, settings: &Settings) -> anyhow::Result<Self> {
        // The provider is the process's; a second process in one test finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listeners = Listeners::bind(mode, settings)?;
        data_dir::create(&settings.data_dir)?;
        let db = connect(mode, settings).await?;
        let mut registry = Registry::default();
        let observer: Arc<dyn Observer> = Arc::new(UpstreamMetrics::register(&mut registry));
        let clients = services::upstreams(settings, &observer)?;
        let sharing = Sharing { db: db.clone(), upstreams: services::shared(mode, settings, &clients) };
        let link_keys = services::link_keys(settings)?;
        let mut readiness = Readiness::default();
        let mut api = None;
        if mode != Mode::ContentApp {
            let config =
                services::registry_api(mode, settings, listeners.at, Arc::clone(&link_keys), &clients)?;
            let service = RegistryApi::new(config, db.clone(), &mut registry)?;
            readiness = service.readiness(readiness);
            api = Some(service);
        }
        let mut content = None;
        if mode != Mode::RegistryApi {
            let config = services::content_app(mode, settings, listeners.at, link_keys);
            let service = ContentApp::new(config, db, storage::open(settings)?, clients, &mut registry)?;
            readiness = service.readiness(readiness);
            content = Some(service);
        }
        let metrics = HttpMetrics::register(&mut registry);
        let refresh = api.iter().map(RegistryApi::refresh).collect();
        let health = Health { readiness, refresh, registry: Arc::new(registry) };
        let drain_grace = services::drain_grace(mode, settings);
        Ok(Self {
            listeners,
            options: options(mode, settings),
            metrics,
            health,
            drain_grace,
            api,
            content,
            sharing,
        })
    }

    /// Where this process listens.
    pub fn listening(&self) -> Listening {
        self.listeners.at
    }

    /// Serves until `shutdown` resolves. From then on it is not ready, and no more tasks and no content links come here; it
    /// still serves what comes within the grace, then lets requests in flight finish.
    ///
    /// # Errors
    /// A listener cannot be served on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { listeners, options, metrics, mut health, drain_grace, api, content, sharing } = self;
        let (stop, stopped) = watch::channel(Stage::Serving);
        let reached = |stage: Stage| {
            let mut stopped = stopped.clone();
            async move {
                // A sender that is gone means the last stage.
                let _ = stopped.wait_for(|now| *now >= stage).await.is_ok();
            }
        };
        let stage = stopped.clone();
        health.readiness = health.readiness.with(
            "shutdown",
            Arc::new(move || {
                let serves = *stage.borrow() == Stage::Serving;
                let ready = if serves { Ok(()) } else { Err("the process is ending".to_owned()) };
                Box::pin(std::future::ready(ready))
            }),
        );
        let public = Listen {
            listener: listeners.public,
            configure: {
                let (api, content) = (api.clone(), content.clone());
                move |config: &mut ServiceConfig| {
                    api.iter().for_each(|api| api.configure(config));
                    content.iter().for_each(|content| content.configure(config));
                }
            },
            service: |path| if path.starts_with("/content/") { "content-app" } else { "registry-api" },
        };
        let internal = Listen {
            listener: listeners.internal,
            configure: {
                let content = content.clone();
                move |config: &mut ServiceConfig| {
                    health.configure(config);
                    content.iter().for_each(|content| content.configure_internal(config));
                }
            },
            service: |_| "internal",
        };
        let internal_options = Options { workers: 1, shutdown_timeout: INTERNAL_SHUTDOWN, ..options.clone() };
        let background = async {
            tokio::join!(
                async {
                    if let Some(api) = &api {
                        api.run(reached(Stage::Draining)).await
                    }
                },
                async {
                    if let Some(content) = &content {
                        content.run(reached(Stage::Draining), reached(Stage::Stopped)).await
                    }
                },
                async {
                    tokio::select! {
                        () = reached(Stage::Stopping) => {}
                        () = upstream_sharing::run(&sharing.db, &sharing.upstreams) => {}
                    }
                },
            );
        };
        let serving = async {
            let served = serve(public, &options, metrics.clone(), reached(Stage::Stopping)).await;
            // Streams have ended: what is still being filled is saved for the next start.
            if let Some(content) = &content {
                content.stop_fills().await;
            }
            stop.send_replace(Stage::Stopped);
            served
        };
        let advance =
            |next: Stage| stop.send_if_modified(|stage| std::mem::replace(stage, next.max(*stage)) < next);
        let stopping = async {
            shutdown.await;
            advance(Stage::Draining);
            tokio::time::sleep(drain_grace).await;
            advance(Stage::Stopping);
        };
        let health_served = serve(internal, &internal_options, metrics.clone(), reached(Stage::Stopped));
        tokio::select! {
            (served, internal, ()) = async { tokio::join!(serving, health_served, background) } => {
                served?;
                internal?;
            }
            () = async { stopping.await; std::future::pending().await } => {}
        }
        Ok(())
    }
}

/// How far the end of the process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// What comes is served; nobody is sent here any more.
    Draining,
    /// No new work; requests in flight finish.
    Stopping,
    /// Clients are gone; health may go too.
    Stopped,
}

impl Listeners {
    fn bind(mode: Mode, settings: &Settings) -> anyhow::Result<Self> {
        let (public, internal) = match mode {
            Mode::ContentApp => (settings.content.listen, settings.content.internal_listen),
            _ => (settings.api.listen, settings.api.internal_listen),
        };
        let written = &settings.listen_written;
        if mode == Mode::ContentApp
            && internal.ip().is_unspecified()
            && settings.content.internal_url.is_none()
        {
            // Every node would be told, and named, alike.
            bail!("{}: `content.internal_url` must say how others reach {internal}", written.internal);
        }
        let (public, internal) = (bind(public, &written.public)?, bind(internal, &written.internal)?);
        let at = Listening { public: public.local_addr()?, internal: internal.local_addr()? };
        Ok(Self { public, internal, at })
    }
}

fn bind(address: SocketAddr, written: &Place) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("{written}: cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn connect(mode: Mode, settings: &Settings) -> anyhow::Result<Db> {
    let config = database(settings);
    if mode == Mode::Serve {
        let applied = migrate::migrate(&config).await.context("the database could not be migrated")?;
        if !applied.is_empty() {
            tracing::info!(applied = applied.join(", "), "migrated the database");
        }
    }
    let db = Db::connect(&config).await.context("the database cannot be used")?;
    migrate::wait_for_schema(&db, SCHEMA_WAIT)
        .await
        .context("the database has not the schema that is expected")?;
    Ok(db)
}

fn options(mode: Mode, settings: &Settings) -> Options {
    let configured = if mode == Mode::ContentApp { settings.content.workers } else { settings.api.workers };
    let processors = || available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    Options {
        workers: configured.unwrap_or_else(processors),
        shutdown_timeout: services::shutdown_timeout(mode, settings),
        write_buffer: WRITE_BUFFER,
    }
}
