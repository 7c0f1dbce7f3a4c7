//! One process: its services, and the stages of its shutdown.

use std::{future::Future, sync::Arc, thread::available_parallelism, time::Duration};

use actix_web::web::ServiceConfig;
use anyhow::Context as _;
use content_app::ContentApp;
use http_server::{Health, HttpMetrics, Listen, Options, Readiness, serve};
use prometheus_client::registry::Registry;
use registry_api::RegistryApi;
use shared_models::{db::Db, migrate};
use tokio::sync::watch;
use upstream_client::{Observer, Upstream};

use crate::{
    banner::Listening, cli::Mode, config::Settings, data_dir, link_keys, listeners::Listeners, services,
    storage, upstream_metrics::UpstreamMetrics, upstream_sharing,
};

/// The size of a response buffer, in bytes. While it is full no more of the body is read: it bounds the memory of a slow
/// client, together with one chunk of the body.
const WRITE_BUFFER_SIZE: usize = 16 * 1024;

/// The time limit of running requests on the internal listener after the services have stopped.
const INTERNAL_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a service waits for `tidegate migrate`.
const SCHEMA_TIMEOUT: Duration = Duration::from_mins(5);

/// A process that is ready to serve: its listeners are bound, its database is connected and has the expected schema.
pub struct Process {
    listeners: Listeners,
    options: Options,
    metrics: HttpMetrics,
    health: Health,
    drain_grace: Duration,
    api: Option<RegistryApi>,
    content: Option<ContentApp>,
    db: Db,
    /// The upstreams whose state is shared with other processes.
    shared_upstreams: Vec<Upstream>,
}

impl Process {
    /// Binds, opens and connects everything that `mode` needs. In serve mode it migrates the database; the other modes wait
    /// for the expected schema.
    ///
    /// # Errors
    /// One line with its cause: an address in use, a directory that is not writable, a database that does not respond.
    pub async fn start(mode: Mode, settings: &Settings) -> anyhow::Result<Self> {
        // The provider is global; a second process in one test finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listeners = Listeners::bind(mode, settings)?;
        let listening = listeners.listening;
        data_dir::create(&settings.data_dir)?;
        let db = connect(mode, settings).await?;
        let mut registry = Registry::default();
        let observer: Arc<dyn Observer> = Arc::new(UpstreamMetrics::register(&mut registry));
        let clients = services::upstreams(settings, &observer)?;
        let is_shared = services::shares_database(mode, settings);
        let shared_upstreams = clients.values().filter(|_| is_shared).cloned().collect();
        let link_keys = link_keys::load(settings)?;
        let mut readiness = Readiness::default();
        let mut api = None;
        if mode != Mode::ContentApp {
            let config = services::registry_api(mode, settings, listening, Arc::clone(&link_keys), &clients)?;
            let service = RegistryApi::new(config, db.clone(), &mut registry)?;
            readiness = service.readiness(readiness);
            api = Some(service);
        }
        let mut content = None;
        if mode != Mode::RegistryApi {
            let config = services::content_app(mode, settings, listening, link_keys);
            let service =
                ContentApp::new(config, db.clone(), storage::open(settings)?, clients, &mut registry)?;
            readiness = service.readiness(readiness);
            content = Some(service);
        }
        let metrics = HttpMetrics::register(&mut registry);
        let refresh = api.iter().map(RegistryApi::refresh).collect();
        let cpus = || available_parallelism().map_or(1, usize::from);
        Ok(Self {
            listeners,
            options: Options {
                workers: services::workers(mode, settings).unwrap_or_else(cpus),
                shutdown_timeout: services::shutdown_timeout(mode, settings),
                write_buffer: WRITE_BUFFER_SIZE,
            },
            metrics,
            health: Health { readiness, refresh, registry: Arc::new(registry) },
            drain_grace: services::drain_grace(mode, settings),
            api,
            content,
            db,
            shared_upstreams,
        })
    }

    /// The addresses that this process listens on.
    pub fn listening(&self) -> Listening {
        self.listeners.listening
    }

    /// Serves until `shutdown` resolves. From then on it is not ready, and no more tasks and no content links come here; it
    /// still serves what comes within the grace, then lets requests in flight finish.
    ///
    /// # Errors
    /// A listener cannot be served on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { listeners, options, metrics, mut health, drain_grace, api, content, db, shared_upstreams } =
            self;
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
        let internal_options =
            Options { workers: 1, shutdown_timeout: INTERNAL_SHUTDOWN_TIMEOUT, ..options.clone() };
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
                        () = upstream_sharing::run(&db, &shared_upstreams) => {}
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

async fn connect(mode: Mode, settings: &Settings) -> anyhow::Result<Db> {
    let config = &settings.database;
    if mode == Mode::Serve {
        let applied = migrate::migrate(config).await.context("failed to migrate the database")?;
        if !applied.is_empty() {
            tracing::info!(applied = applied.join(", "), "migrated the database");
        }
    }
    let db = Db::connect(config).await.context("failed to connect to the database")?;
    migrate::wait_for_schema(&db, SCHEMA_TIMEOUT)
        .await
        .context("the database does not have the expected schema")?;
    Ok(db)
}
