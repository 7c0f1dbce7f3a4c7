//! The `tidegate` command.
#![expect(clippy::print_stdout, reason = "the output of a command")]

use std::{
    io::{Write as _, stderr, stdout},
    process::ExitCode,
};

use clap::Parser;
use shared_models::migrate;
use tidegate::{
    banner,
    cli::{Cli, Mode},
    config::{self, Settings},
    health,
    process::Process,
    signals::Signals,
    telemetry,
};

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = run(Cli::parse()).await {
        // An output that cannot be written must not turn the error into a panic.
        let _ = writeln!(stderr(), "tidegate: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    if let Some(url) = cli.health_url() {
        return health::check(url).await;
    }
    let mode = cli.mode();
    let settings = config::load(&cli.flags().overrides(mode), config::environment())?;
    match mode {
        Mode::CheckConfig => println!("{}", settings.to_toml()?),
        Mode::Migrate => {
            let _logging = telemetry::init(&settings.log)?;
            match migrate::migrate(&settings.database).await?.as_slice() {
                [] => println!("the schema is up to date: version {}", migrate::expected_version()),
                applied => println!("applied {}", applied.join(", ")),
            }
        }
        Mode::Health => health::check(&health::url(&settings)?).await?,
        Mode::Serve | Mode::RegistryApi | Mode::ContentApp => Box::pin(serve(mode, settings)).await?,
    }
    Ok(())
}

async fn serve(mode: Mode, settings: Settings) -> anyhow::Result<()> {
    let _logging = telemetry::init(&settings.log)?;
    let mut signals = Signals::install()?;
    // A signal also ends the wait for the schema.
    let process = tokio::select! {
        process = Process::start(mode, &settings) => process?,
        _ = signals.received() => return Ok(()),
    };
    // A service runs without its banner, for instance when the output is a full disk.
    if let Err(error) = writeln!(stdout(), "{}", banner::banner(mode, process.listening(), &settings)) {
        tracing::warn!(%error, "failed to write to standard output");
    }
    process.run(signals.received()).await
}
