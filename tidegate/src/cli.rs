//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};
use url::Url;

use crate::config::{LogFormat, http_url};

#[cfg(test)]
mod tests;

/// A pull-through cache for container images.
///
/// Clients pull through it as from any OCI registry; it fetches from the upstream registries what it does not have,
/// once, and keeps it. Without a sub-command it serves.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    after_help = "Everything else is set in the configuration file or in environment variables: see docs/configuration.md."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run both services and the background tasks in one process (the default)
    Serve(Common),
    /// Run registry-api alone: it answers manifests, decides what to pull, and sends clients to content-app for blobs
    RegistryApi(Common),
    /// Run one content-app node: it carries the bytes of blobs
    ContentApp(Common),
    /// Bring the database to the schema of this version
    Migrate(Common),
    /// Print the configuration that holds, as TOML with passwords masked; exit 1 and say what is wrong if it cannot be used
    CheckConfig(Common),
    /// Ask a running process whether it is ready; exit 1 and say why if it is not
    Health(Health),
}

#[derive(Debug, Args)]
struct Health {
    /// What to ask [default: http://ADDR/readyz, where ADDR is the one of --internal-listen]
    #[arg(long, value_name = "URL", value_parser = url_flag)]
    url: Option<Url>,

    #[command(flatten)]
    common: Common,
}

/// What the process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Both services and the background tasks.
    Serve,
    /// registry-api.
    RegistryApi,
    /// content-app.
    ContentApp,
    /// Migrate the database.
    Migrate,
    /// Print the effective configuration.
    CheckConfig,
    /// Ask a running process whether it is ready.
    Health,
}

/// The flags of every sub-command; they may stand before it or behind it.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// The configuration file, in TOML [env: TIDEGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The folder for everything that outlives the process [default: ./tidegate-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where clients are listened for; port 0 picks a free one [default: 127.0.0.1:5000, content-app: 127.0.0.1:5001]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Where health, metrics and the internal API are [default: 127.0.0.1:5100, content-app: 127.0.0.1:5101]
    #[arg(long, value_name = "ADDR")]
    pub internal_listen: Option<SocketAddr>,

    /// Pull through this registry too, below NAME/; may be given several times
    #[arg(long, value_name = "NAME=URL", value_parser = upstream_flag)]
    pub upstream: Vec<UpstreamFlag>,

    /// How log lines are written [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
}

/// What `--upstream` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFlag {
    /// The upstream's name, and the prefix of its namespace.
    pub name: String,
    /// Where it answers.
    pub url: Url,
}

impl Cli {
    /// What the process is to do.
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

    /// What `health` is to ask, where that was said.
    pub fn health_url(&self) -> Option<&Url> {
        match &self.command {
            Some(Command::Health(health)) => health.url.as_ref(),
            _ => None,
        }
    }

    /// The flags from before and behind the sub-command; of a flag that stands in both places the last one holds, but
    /// upstreams add up.
    pub fn common(&self) -> Common {
        let before = self.common.clone();
        let behind = match &self.command {
            None => Common::default(),
            Some(
                Command::Serve(common)
                | Command::RegistryApi(common)
                | Command::ContentApp(common)
                | Command::Migrate(common)
                | Command::CheckConfig(common)
                | Command::Health(Health { common, .. }),
            ) => common.clone(),
        };
        Common {
            config: behind.config.or(before.config),
            data_dir: behind.data_dir.or(before.data_dir),
            listen: behind.listen.or(before.listen),
            internal_listen: behind.internal_listen.or(before.internal_listen),
            upstream: before.upstream.into_iter().chain(behind.upstream).collect(),
            log: behind.log.or(before.log),
        }
    }
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.word()))
    }
}

fn upstream_flag(text: &str) -> Result<UpstreamFlag, String> {
    let (name, url) = text.split_once('=').ok_or("expected NAME=URL, as in local=http://127.0.0.1:5050")?;
    if name.is_empty() {
        return Err("the name before '=' is missing".to_owned());
    }
    let url = http_url(url).ok_or(
        "what follows '=' is not an http or https URL, or has a user, a password, a query or a fragment",
    )?;
    Ok(UpstreamFlag { name: name.to_owned(), url })
}

fn url_flag(text: &str) -> Result<Url, &'static str> {
    http_url(text).ok_or("not an http or https URL, or one with a user, a password, a query or a fragment")
}
