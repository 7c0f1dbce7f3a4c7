//! One process: its services, and the stages of its shutdown.

use std::{future::Future, pin::pin, sync::Arc, thread::available_parallelism, time::Duration};

use actix_web::web::ServiceConfig;
use anyhow::Context as _;
use content_app::ContentApp;
use http_server::{Health, HttpMetrics, Listen, Options, Readiness, serve};
use prometheus_client::registry::Registry;
use registry_api::RegistryApi;
use shared_models::{db::Db, migrate};
use tokio::task::JoinSet;
use upstream_client::{Observer, Upstream};

use crate::{
    banner::Listening, cli::Mode, clock::ClockOffset, config::Settings, data_dir, link_keys,
    listeners::Listeners, services, signals::Shutdown, stages::Stages, storage,
    upstream_metrics::UpstreamMetrics, upstream_sharing,
};

/// The size of a response buffer, in bytes. While it is full no more of the body is read: it bounds the memory of a slow
/// client, together with one chunk of the body.
const WRITE_BUFFER_SIZE: usize = 16 * 1024;

/// How long a client may take to send a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a client may take nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

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
    clock_offset: ClockOffset,
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
        let clock_offset = ClockOffset::register(&mut registry);
        clock_offset.measure(&db, false).await;
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
                keep_alive: services::keep_alive(mode, settings),
                head_timeout: HEAD_TIMEOUT,
                write_timeout: WRITE_TIMEOUT,
                write_buffer: WRITE_BUFFER_SIZE,
            },
            metrics,
            health: Health { readiness, refresh, registry: Arc::new(registry) },
            drain_grace: services::drain_grace(mode, settings),
            api,
            content,
            db,
            clock_offset,
            shared_upstreams,
        })
    }

    /// The addresses that this process listens on.
    pub fn listening(&self) -> Listening {
        self.listeners.listening
    }

    /// Serves until `shutdown` resolves, then passes through the stages of the shutdown that it names.
    ///
    /// # Errors
    /// A listener fails, or a background task panics.
    pub async fn run(self, shutdown: impl Future<Output = Shutdown>) -> anyhow::Result<()> {
        let stages = Stages::default();
        let mut tasks = self.background_tasks(&stages);
        let Self { listeners, options, metrics, mut health, drain_grace, api, content, .. } = self;
        let check = stages.clone();
        health.readiness =
            health.readiness.with("shutdown", Arc::new(move || Box::pin(std::future::ready(check.ready()))));

        let internal = Listen {
            listener: listeners.internal,
            configure: internal_routes(health, content.clone()),
            service: |_| "internal",
        };
        let internal_options =
            Options { workers: 1, shutdown_timeout: INTERNAL_SHUTDOWN_TIMEOUT, ..options.clone() };
        let (internal_metrics, stopped) = (metrics.clone(), stages.stopped.clone());
        // Health checks and other processes keep their connections until the end.
        let draining = stages.stopping.clone();
        tasks.spawn(async move {
            let stopped = async move {
                stopped.cancelled().await;
                Duration::ZERO
            };
            Ok(serve(internal, &internal_options, internal_metrics, draining, stopped).await?)
        });

        let public = Listen {
            listener: listeners.public,
            configure: public_routes(api, content.clone()),
            service: |path| if path.starts_with("/content/") { "content-app" } else { "registry-api" },
        };
        let draining = stages.draining.clone();
        let mut serving = pin!(serve(public, &options, metrics, draining, stages.stopping()));
        let mut stopping = pin!(stages.stop(shutdown, drain_grace));
        let served = loop {
            tokio::select! {
                served = &mut serving => break served,
                Some(ended) = tasks.join_next() => ended.context("a background task failed")??,
                never = &mut stopping => match never {},
            }
        };
        if let Some(content) = &content {
            content.stop_fills().await;
        }
        stages.end();
        while let Some(ended) = tasks.join_next().await {
            ended.context("a background task failed")??;
        }
        Ok(served?)
    }

    fn background_tasks(&self, stages: &Stages) -> JoinSet<anyhow::Result<()>> {
        let mut tasks = JoinSet::new();
        if let Some(api) = self.api.clone() {
            let stages = stages.clone();
            tasks.spawn(async move {
                api.run(stages.draining.cancelled()).await;
                Ok(())
            });
        }
        if let Some(content) = self.content.clone() {
            let stages = stages.clone();
            tasks.spawn(async move {
                content.run(stages.draining.cancelled(), stages.stopped.cancelled()).await;
                Ok(())
            });
        }
        let (db, upstreams) = (self.db.clone(), self.shared_upstreams.clone());
        let sharing = stages.stopping.clone().run_until_cancelled_owned(async move {
            upstream_sharing::run(&db, &upstreams).await;
        });
        tasks.spawn(async move {
            sharing.await;
            Ok(())
        });
        let (db, clock_offset) = (self.db.clone(), self.clock_offset.clone());
        let comparing = stages.stopping.clone().run_until_cancelled_owned(async move {
            clock_offset.run(&db).await;
        });
        tasks.spawn(async move {
            comparing.await;
            Ok(())
        });
        tasks
    }
}

fn public_routes(
    api: Option<RegistryApi>,
    content: Option<ContentApp>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    move |config| {
        api.iter().for_each(|api| api.configure(config));
        content.iter().for_each(|content| content.configure(config));
    }
}

fn internal_routes(
    health: Health,
    content: Option<ContentApp>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    move |config| {
        health.configure(config);
        content.iter().for_each(|content| content.configure_internal(config));
    }
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
