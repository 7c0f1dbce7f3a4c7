//! The `tidegate` command.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to who called it")]

use std::process::ExitCode;

use clap::Parser;
use shared_models::{db::DbConfig, migrate};
use tidegate::{
    banner,
    cli::{Cli, Mode},
    config::{self, Settings},
    health, process, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let mode = cli.mode();
    if let Some(url) = cli.health_url() {
        return health::ask(url).await;
    }
    let settings = config::load(&cli.common(), mode, config::environment())?;
    match mode {
        Mode::CheckConfig => println!("{}", settings.to_toml()),
        Mode::Migrate => migrate_database(&settings).await?,
        Mode::Health => health::ask(&health::url(&settings)?).await?,
        Mode::Serve | Mode::RegistryApi | Mode::ContentApp => Box::pin(serve(mode, settings)).await?,
    }
    Ok(())
}

async fn migrate_database(settings: &Settings) -> anyhow::Result<()> {
    let _logging = telemetry::init(&settings.log)?;
    let config: DbConfig = process::database(settings);
    match migrate::migrate(&config).await?.as_slice() {
        [] => println!("the database has schema version {} already", migrate::expected_version()),
        applied => println!("applied {}", applied.join(", ")),
    }
    Ok(())
}

async fn serve(mode: Mode, settings: Settings) -> anyhow::Result<()> {
    let _logging = telemetry::init(&settings.log)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut told_to_stop = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // A process that still waits for its schema stops at once.
    let process = tokio::select! {
        process = process::Process::start(mode, &settings) => process?,
        () = told_to_stop() => return Ok(()),
    };
    println!("{}", banner::banner(mode, process.listening(), &settings));
    process
        .run(async {
            told_to_stop().await;
            tracing::info!("shutting down: requests in flight may finish");
        })
        .await
}
