//! The real `tidegate` as a process.

mod binary;
mod daemon;

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use oci_types::Millis;
use tempfile::TempDir;

use crate::eventually::Patience;
use crate::http_client::http_client;
use crate::tool::Tool;
pub use binary::path as program;
pub use daemon::Daemon;

/// The time limit for the start and the end of a process.
const PATIENCE: Duration = Duration::from_secs(40);

/// `tidegate` to be run to its end: `migrate`, `check-config`, what cannot start.
///
/// # Panics
/// When it has not been built, or not from the sources as they are.
pub fn tidegate() -> Tool {
    let tool = Tool::new(binary::path().to_str().unwrap());
    // An empty variable counts as not set.
    foreign_variables().fold(tool, |tool, name| tool.env(name, ""))
}

/// Variables of the environment that would configure Tidegate.
fn foreign_variables() -> impl Iterator<Item = OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name == "RUST_LOG" || name.to_string_lossy().starts_with("TIDEGATE_"))
}

/// A running `tidegate`. It is killed when it is dropped, and its data folder removed, unless that is the caller's.
#[derive(Debug)]
pub struct TidegateProcess {
    setup: Setup,
    // Before the folder, so that it has ended when that is removed.
    daemon: Daemon,
    started_at: Millis,
    folder: TempDir,
    listening: SocketAddr,
    internal: SocketAddr,
}

/// The arguments of a process.
#[derive(Clone, Debug, Default)]
struct Setup {
    args: Vec<OsString>,
    config: Option<String>,
    data_dir: Option<PathBuf>,
    /// What the wall clock of the process is ahead of that of the machine at the start, in seconds.
    clock_ahead: Option<i64>,
}

/// A process to be started: on free ports and with a new data directory by default.
#[derive(Debug, Default)]
pub struct TidegateBuilder {
    setup: Setup,
}

impl TidegateBuilder {
    /// More arguments; a sub-command is the first one.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.setup.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The content of its configuration file.
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.setup.config = Some(toml.into());
        self
    }

    /// A data folder that others use too, or that outlives the process.
    pub fn data_dir(mut self, folder: &Path) -> Self {
        self.setup.data_dir = Some(folder.to_owned());
        self
    }

    /// A wall clock that is ahead of that of the machine by so many seconds, or behind it, and that can be stepped. The
    /// monotonic clock is right.
    pub fn clock_ahead(mut self, seconds: i64) -> Self {
        self.setup.clock_ahead = Some(seconds);
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// If it does not start; the message has its output.
    pub async fn start(self) -> TidegateProcess {
        let folder = tempfile::tempdir().unwrap();
        let anywhere = ([127, 0, 0, 1], 0).into();
        let started_at = Millis::now();
        let (daemon, [listening, internal]) = launch(&self.setup, folder.path(), [anywhere; 2]).await;
        TidegateProcess { setup: self.setup, daemon, started_at, folder, listening, internal }
    }
}

impl TidegateProcess {
    /// A process with a configuration file, or a data folder that is the caller's.
    pub fn builder() -> TidegateBuilder {
        TidegateBuilder::default()
    }

    /// Starts it with these arguments (`--upstream`, `local=http://…`) on free ports, with a data folder of its own, and
    /// waits until it listens.
    ///
    /// # Panics
    /// If it does not start; the message has its output.
    pub async fn start<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::builder().args(args).start().await
    }

    /// When it was started the last time.
    pub fn started_at(&self) -> Millis {
        self.started_at
    }

    /// Steps its wall clock to so many seconds ahead of that of the machine.
    ///
    /// # Panics
    /// When it was not started with [`TidegateBuilder::clock_ahead`].
    pub fn step_clock(&self, seconds: i64) {
        assert!(self.setup.clock_ahead.is_some(), "the process has the clock of the machine");
        write_clock(self.folder.path(), seconds);
    }

    /// Where it listens for clients.
    pub fn listening(&self) -> SocketAddr {
        self.listening
    }

    /// Where its health, its metrics and the internal API are.
    pub fn internal(&self) -> SocketAddr {
        self.internal
    }

    /// Where it listens for clients, as a URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.listening)
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.setup, self.folder.path())
    }

    /// What it has logged, with what the processes before a restart have.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The sum of those of its metrics that have this name and all these labels, each written as `name="value"`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let url = format!("http://{}/metrics", self.internal);
        let text = http_client().get(url).send().await.unwrap().text().await.unwrap();
        let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        let wanted = samples.filter(|(key, _)| {
            key.split('{').next() == Some(name) && labels.iter().all(|label| key.contains(label))
        });
        wanted.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }

    /// Asks it to end at once: SIGINT.
    pub fn interrupt(&mut self) {
        self.daemon.interrupt();
    }

    /// Asks it to end after its grace period: SIGTERM.
    pub fn terminate(&mut self) {
        self.daemon.terminate();
    }

    /// Ends it at once: SIGKILL.
    pub fn kill9(&mut self) {
        self.daemon.kill9();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn wait(&mut self) -> ExitStatus {
        self.daemon.wait(PATIENCE).await
    }

    /// Starts it again with the same data folder and on the same ports, after SIGKILL if it still runs.
    ///
    /// # Panics
    /// If it does not start; the message has its output.
    pub async fn restart(&mut self) {
        self.daemon.kill9();
        let ports = [self.listening, self.internal];
        self.started_at = Millis::now();
        (self.daemon, _) = launch(&self.setup, self.folder.path(), ports).await;
    }

    /// The same with another clock; see [`TidegateBuilder::clock_ahead`]. It counts from the next start.
    pub fn set_clock_ahead(&mut self, seconds: i64) {
        self.setup.clock_ahead = Some(seconds);
    }

    /// Like [`Self::restart`], with another configuration file.
    pub async fn restart_with(&mut self, toml: impl Into<String>) {
        self.setup.config = Some(toml.into());
        self.restart().await;
    }
}

fn data_dir(setup: &Setup, folder: &Path) -> PathBuf {
    setup.data_dir.clone().unwrap_or_else(|| folder.join("data"))
}

/// Starts the program and waits for it to print where it listens.
async fn launch(setup: &Setup, folder: &Path, ports: [SocketAddr; 2]) -> (Daemon, [SocketAddr; 2]) {
    let [listen, internal] = ports.map(|port| port.to_string());
    let output = folder.join("stdout");
    let mut command = Command::new(binary::path());
    command.args(&setup.args).arg("--data-dir").arg(data_dir(setup, folder));
    command.args(["--listen", &listen, "--internal-listen", &internal]);
    if let Some(config) = &setup.config {
        let file = folder.join("tidegate.toml");
        std::fs::write(&file, config).unwrap();
        command.arg("--config").arg(file);
    }
    for name in foreign_variables() {
        command.env_remove(name);
    }
    if let Some(seconds) = setup.clock_ahead {
        write_clock(folder, seconds);
        command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", clock_file(folder));
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
    }
    command.current_dir(folder).stdout(File::create(&output).unwrap());
    let mut daemon = Daemon::start(&mut command, &folder.join("stderr"));
    let mut patience = Patience::of(PATIENCE);
    loop {
        let ended = daemon.ended();
        let printed = std::fs::read_to_string(&output).unwrap();
        if let Some(addresses) = addresses(&printed) {
            return (daemon, addresses);
        }
        assert!(patience.lasts().await && ended.is_none(), "tidegate does not come up: {ended:?}\n{printed}");
    }
}

/// The file from which the library reads what the wall clock is ahead.
fn clock_file(folder: &Path) -> PathBuf {
    folder.join("clock")
}

/// Replaces the file in one step, as the process reads it at any time.
fn write_clock(folder: &Path, seconds: i64) {
    let new = folder.join("clock.new");
    std::fs::write(&new, format!("{seconds:+}s")).unwrap();
    std::fs::rename(new, clock_file(folder)).unwrap();
}

/// The library of Debian's package `faketime`, which scripts/setup installs.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists()).expect("the package faketime is installed")
}

/// The addresses for clients and for health in what the program prints once it listens.
fn addresses(printed: &str) -> Option<[SocketAddr; 2]> {
    let whole = printed.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let mut lines = whole.take(2).map(|line| line.split_once(" on http://"));
    let (said, listening) = lines.next()??;
    assert_eq!(said, "listening", "the first line that tidegate prints says where it listens");
    Some([listening.parse().unwrap(), lines.next()??.1.parse().unwrap()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_when_both_lines_are_there() {
        let printed = "listening on http://127.0.0.1:1\nhealth and metrics on http://[::1]:2\ndata in /x\n";
        let both = ["127.0.0.1:1", "[::1]:2"].map(|address| address.parse().unwrap());
        assert_eq!(addresses(printed), Some(both));
        for cut in 0..printed.find("\ndata").unwrap() {
            assert_eq!(addresses(&printed[..=cut]), None, "{cut}");
        }
    }
}
