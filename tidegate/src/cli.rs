//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum as _};
use url::Url;

use crate::config::{LogFormat, Override, Overrides, UpstreamFlag};

#[cfg(test)]
mod tests;

/// A pull-through cache for container images.
///
/// Clients pull from it as from any OCI registry. It downloads missing content from the upstream registries once, and stores
/// it. Without a subcommand, it serves.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    after_help = "All other settings are in the configuration file or in environment variables: see docs/configuration.md."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run both services and the background jobs in one process (default)
    Serve(Flags),
    /// Run registry-api: manifests, pull decisions, and redirects to content-app for blobs
    RegistryApi(Flags),
    /// Run one content-app node: blobs
    ContentApp(Flags),
    /// Migrate the database to the schema of this version
    Migrate(Flags),
    /// Validate the configuration and print it as TOML with secrets masked
    CheckConfig(Flags),
    /// Check the readiness of a running process
    Health(Health),
}

#[derive(Debug, Args)]
struct Health {
    /// URL of the readiness check [default: http://ADDR/readyz, where ADDR is the internal listener]
    #[arg(long, value_name = "URL", value_parser = url_flag)]
    url: Option<Url>,

    #[command(flatten)]
    flags: Flags,
}

/// The action of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Run both services and the background jobs.
    Serve,
    /// Run registry-api.
    RegistryApi,
    /// Run content-app.
    ContentApp,
    /// Migrate the database.
    Migrate,
    /// Print the effective configuration.
    CheckConfig,
    /// Check the readiness of a running process.
    Health,
}

impl Mode {
    /// The section with the addresses of the process.
    pub fn section(self) -> &'static str {
        if self == Self::ContentApp { "content" } else { "api" }
    }
}

/// The flags of all subcommands, which are accepted before and after a subcommand.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Configuration file, in TOML format [env: TIDEGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Data directory [default: ./tidegate-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,

    /// Address to listen on for clients; port 0 selects a free port [default: 127.0.0.1:5000, content-app: 127.0.0.1:5001]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Address of the internal listener: health, metrics, internal API [default: 127.0.0.1:5100, content-app: 127.0.0.1:5101]
    #[arg(long, value_name = "ADDR")]
    pub internal_listen: Option<SocketAddr>,

    /// Add an upstream registry under the prefix NAME/ (repeatable)
    #[arg(long, value_name = "NAME=URL", value_parser = upstream_flag)]
    pub upstream: Vec<UpstreamFlag>,

    /// Log format [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
}

impl Cli {
    /// The action of the process.
    pub fn mode(&self) -> Mode {
        match self.command {
            None | Some(Command::Serve(_)) => Mode::Serve,
            Some(Command::RegistryApi(_)) => Mode::RegistryApi,
            Some(Command::ContentApp(_)) => Mode::ContentApp,
            Some(Command::Migrate(_)) => Mode::Migrate,
            Some(Command::CheckConfig(_)) => Mode::CheckConfig,
            Some(Command::Health(_)) => Mode::Health,
        }
    }

    /// `health --url`
    pub fn health_url(&self) -> Option<&Url> {
        match &self.command {
            Some(Command::Health(health)) => health.url.as_ref(),
            _ => None,
        }
    }

    /// The flags before and after the subcommand. The last occurrence of a flag applies; upstreams accumulate.
    pub fn flags(&self) -> Flags {
        let before = self.flags.clone();
        let after = match &self.command {
            None => Flags::default(),
            Some(
                Command::Serve(flags)
                | Command::RegistryApi(flags)
                | Command::ContentApp(flags)
                | Command::Migrate(flags)
                | Command::CheckConfig(flags)
                | Command::Health(Health { flags, .. }),
            ) => flags.clone(),
        };
        Flags {
            config: after.config.or(before.config),
            data_dir: after.data_dir.or(before.data_dir),
            listen: after.listen.or(before.listen),
            internal_listen: after.internal_listen.or(before.internal_listen),
            upstream: before.upstream.into_iter().chain(after.upstream).collect(),
            log: after.log.or(before.log),
        }
    }
}

impl Flags {
    /// The settings that the flags of a process in `mode` override.
    pub fn overrides(&self, mode: Mode) -> Overrides {
        let section = Some(mode.section());
        let log = self.log.and_then(|format| format.to_possible_value());
        let values = [
            ("--data-dir", None, "data_dir", self.data_dir.clone()),
            ("--listen", section, "listen", self.listen.map(|address| address.to_string())),
            (
                "--internal-listen",
                section,
                "internal_listen",
                self.internal_listen.map(|address| address.to_string()),
            ),
            ("--log", Some("log"), "format", log.map(|format| format.get_name().to_owned())),
        ];
        let values = values
            .into_iter()
            .filter_map(|(flag, section, key, value)| Some(Override { flag, section, key, value: value? }));
        Overrides { file: self.config.clone(), upstreams: self.upstream.clone(), values: values.collect() }
    }
}

fn upstream_flag(text: &str) -> Result<UpstreamFlag, String> {
    let (name, url) = text.split_once('=').ok_or("expected NAME=URL, such as local=http://127.0.0.1:5050")?;
    if name.is_empty() {
        return Err("the name before '=' is missing".to_owned());
    }
    let url = url_flag(url)?;
    Ok(UpstreamFlag { name: name.to_owned(), url })
}

fn url_flag(text: &str) -> Result<Url, &'static str> {
    settings::http_url::parse(text)
        .ok_or("expected an http or https URL without user, password, query and fragment")
}
