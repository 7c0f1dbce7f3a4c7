//! A program that runs during a test.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::eventually::Patience;

/// A program that runs until it is told to end, or until this is dropped. What it says goes to a file, which is shown
/// when the test fails.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program in a process group of its own, with standard error, and standard output unless the caller has
    /// redirected it, at the end of the file `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let name = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
        let file = OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stderr(file).process_group(0);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("this test needs `{name}`, which is not installed: scripts/test installs it")
            }
            Err(error) => panic!("cannot start `{name}`: {error}"),
        };
        Self { name, child, status: None, log: log.to_owned() }
    }

    /// The id of the process, and of its process group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        // A destructor asks too, and must not fail.
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// Asks it to end: SIGINT, to itself alone.
    pub fn interrupt(&mut self) {
        if self.ended().is_none() {
            signal("-INT", &self.child.id().to_string());
        }
    }

    /// Asks it to end: SIGTERM, to itself alone.
    pub fn terminate(&mut self) {
        if self.ended().is_none() {
            signal("-TERM", &self.child.id().to_string());
        }
    }

    /// Ends it, and what it started in its process group, at once: SIGKILL.
    pub fn kill9(&mut self) {
        if self.ended().is_none() {
            signal("-KILL", &format!("-{}", self.child.id()));
            self.status = Some(self.child.wait().unwrap());
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `timeout`.
    pub async fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let mut patience = Patience::of(timeout);
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(patience.lasts().await, "{} does not end within {timeout:?}", self.name);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            show(&self.name, &self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test runner shows it below the failure")]
fn show(name: &str, log: &str) {
    eprintln!("---- what {name} said\n{log}----");
}

/// Sends a signal to a process, or with a minus before it to a process group.
fn signal(signal: &str, to: &str) {
    let sent = Command::new("kill").args([signal, "--", to]).stderr(Stdio::null()).status();
    // It may have ended meanwhile, so the result has no meaning.
    assert!(sent.is_ok(), "this test needs `kill`");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assert_eventually;

    fn shell(script: &str, log: &Path) -> Daemon {
        Daemon::start(Command::new("sh").args(["-c", script]), log)
    }

    #[tokio::test]
    async fn a_daemon_ends_when_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut polite =
            shell("trap 'echo bye >&2; exit 7' TERM; echo up >&2; while :; do sleep 0.01; done", &log);
        assert_eventually!(polite.log() == "up\n");
        assert!(polite.ended().is_none());
        polite.terminate();
        assert_eq!(polite.wait(Duration::from_secs(10)).await.code(), Some(7));
        assert_eq!(polite.log(), "up\nbye\n");
        polite.terminate();
        polite.kill9();
        assert_eq!(polite.ended().unwrap().code(), Some(7));
    }

    #[tokio::test]
    async fn a_daemon_ends_with_its_children_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let stubborn = shell("trap '' TERM; sleep 1000 & echo $! >&2; wait", &log);
        assert_eventually!(stubborn.log().ends_with('\n'));
        let child = stubborn.log();
        let lives = || {
            // A process that was not waited for is still listed.
            let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            state.is_ok_and(|state| !state.contains(") Z "))
        };
        assert!(lives());
        drop(stubborn);
        assert_eventually!(!lives());
    }
}
