//! Runs programs that the tests need: container clients above all. A missing one fails the test that needs it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// A program to be run.
#[derive(Clone, Debug)]
pub struct Tool {
    program: String,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    timeout: Duration,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The exit status; none if it was killed at its time limit.
    pub status: Option<ExitStatus>,
    /// What it wrote there.
    pub stdout: String,
    /// What it wrote there.
    pub stderr: String,
}

impl Ran {
    /// Whether it ended in time and with 0.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

impl Tool {
    /// A program on the `PATH`, or a path. Its time limit is a minute by default.
    pub fn new(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            timeout: Duration::from_secs(60),
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// An environment variable, besides those of the test.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The folder it runs in.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// How long it may take before it is killed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn run(&self) -> Ran {
        // Files, not pipes: what it leaves running in the background may keep a pipe open for ever.
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("this test needs `{}`, which is not installed: scripts/test installs it", self.program)
            }
            Err(error) => panic!("cannot start `{}`: {error}", self.program),
        };
        let status = match tokio::time::timeout(self.timeout, child.wait()).await {
            Ok(status) => Some(status.unwrap()),
            Err(_) => {
                kill_group(child.id()).await;
                drop(child.wait().await);
                None
            }
        };
        Ran { status, stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs it and returns what it wrote.
    ///
    /// # Panics
    /// When it cannot be started, fails, or takes too long; the message has what it wrote.
    pub async fn succeed(&self) -> Ran {
        let ran = self.run().await;
        let how = ran.status.map_or(format!("no end within {:?}", self.timeout), |status| status.to_string());
        assert!(ran.succeeded(), "{self}: {how}\n{}\n{}", ran.stdout.trim_end(), ran.stderr.trim_end());
        ran
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.program)?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", arg.display()))
    }
}

/// Kills a program with all that it started.
async fn kill_group(leader: Option<u32>) {
    if let Some(leader) = leader {
        let killed = Command::new("kill").args(["-KILL", "--", &format!("-{leader}")]).status().await;
        assert!(killed.is_ok(), "this test needs `kill`");
    }
}

/// The content of a file that another process writes.
fn text(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Tool {
        Tool::new("sh").args(["-c", script])
    }

    #[tokio::test]
    async fn a_tool_returns_what_it_wrote_and_how_it_ended() {
        let ran = shell("echo $A; pwd; echo two >&2; exit 3").env("A", "one").dir("/").run().await;
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("one\n/\n", "two\n"));
        assert_eq!(ran.status.unwrap().code(), Some(3));
    }

    #[tokio::test]
    async fn a_tool_that_takes_too_long_is_killed_with_its_children() {
        let ran = shell("echo started; sleep 1000 & wait").timeout(Duration::from_millis(300)).run().await;
        assert!(ran.status.is_none());
        assert_eq!(ran.stdout, "started\n");
    }

    #[tokio::test]
    #[should_panic(expected = "this test needs `no-such-tool`")]
    async fn a_missing_tool_fails_the_test() {
        Tool::new("no-such-tool").run().await;
    }

    #[tokio::test]
    #[should_panic(expected = "sh -c echo why; exit 1: exit status: 1\nwhy")]
    async fn a_failure_says_why() {
        shell("echo why; exit 1").succeed().await;
    }
}
