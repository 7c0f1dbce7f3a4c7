//! A new PostgreSQL server for tests, in a temporary directory, started from the installed
//! programs.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tempfile::TempDir;

const USER: &str = "tidegate";

/// How long a server may take to start on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Names the port of a server that all tests of a run share.
pub const PORT_VARIABLE: &str = "TEST_POSTGRES_PORT";

/// A running server. It is stopped, and its directory removed, when this value is dropped or the
/// process ends: a shell, the keeper, reads from a pipe and cleans up when the pipe closes.
#[derive(Debug)]
pub struct TestPostgres {
    programs: PathBuf,
    port: u16,
    creating: Mutex<()>,
    /// `None` if another process started the server.
    own: Option<Own>,
}

/// The resources of a server that this process started.
#[derive(Debug)]
struct Own {
    keeper: Child,
    /// The pipes to the keeper: the keeper reads one order per line, and writes a line when the
    /// order is completed.
    orders: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    // Dropped after the keeper has exited.
    folder: TempDir,
}

/// `$1` is the directory; the rest is the command that runs the server. `QUIT` is what `pg_ctl stop -m immediate` sends.
const KEEPER: &str = r#"
# An interrupt from the keyboard reaches all processes; this one must still clean up.
trap '' INT TERM HUP
folder=$1; shift
start() {
    "$@" >>"$folder/log" 2>&1 </dev/null &
    server=$!
}
stop() {
    kill -QUIT "$server" 2>/dev/null
    wait "$server"
}
start "$@"
while read -r order; do
    case $order in
        start) start "$@" ;;
        stop) stop ;;
    esac
    echo done
done
stop
rm -rf "$folder"
"#;

impl TestPostgres {
    /// Starts a server on a free port of 127.0.0.1 and waits until it answers. Its default collation differs from that of
    /// SQLite, and it does not sync to disk.
    ///
    /// # Errors
    /// If PostgreSQL is not installed or does not start. The message contains its log.
    pub fn start() -> io::Result<Self> {
        Self::launch(&[], &[])
    }

    /// As [`TestPostgres::start`], with TLS. Both arguments are PEM.
    ///
    /// # Errors
    /// As [`TestPostgres::start`].
    pub fn start_with_tls(certificate: &str, key: &str) -> io::Result<Self> {
        Self::launch(&["ssl=on"], &[("server.crt", certificate), ("server.key", key)])
    }

    /// Returns the server whose port the variable [`PORT_VARIABLE`] contains, or one that runs
    /// until this process ends.
    ///
    /// # Errors
    /// As [`TestPostgres::start`].
    pub fn shared() -> io::Result<Arc<Self>> {
        static SHARED: LazyLock<io::Result<Arc<TestPostgres>>> = LazyLock::new(|| {
            let Some(port) = std::env::var(PORT_VARIABLE).ok().and_then(|port| port.parse().ok()) else {
                return TestPostgres::start().map(Arc::new);
            };
            let programs = find_programs()?;
            Ok(Arc::new(TestPostgres { programs, port, creating: Mutex::new(()), own: None }))
        });
        SHARED.as_ref().map(Arc::clone).map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    /// Starts a server that runs until the process `pid` ends, and returns its port.
    ///
    /// # Errors
    /// As [`TestPostgres::start`].
    pub fn start_for(pid: u32) -> io::Result<u16> {
        let mut watch = Command::new("tail");
        watch
            .arg(format!("--pid={pid}"))
            .args(["-f", "/dev/null"])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let end = watch.stdout(Stdio::piped()).spawn()?.stdout.ok_or(io::ErrorKind::BrokenPipe)?;
        let (mut keeper, programs, port, folder) = Self::prepare(&[], &[])?;
        keeper.stdin(end).stdout(Stdio::null()).spawn()?;
        // The keeper removes it.
        let _ = folder.keep();
        Self { programs, port, creating: Mutex::new(()), own: None }.wait()?;
        Ok(port)
    }

    /// Starts a server with additional settings, and files in the data directory.
    fn launch(settings: &[&str], files: &[(&str, &str)]) -> io::Result<Self> {
        let (mut keeper, programs, port, folder) = Self::prepare(settings, files)?;
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = Mutex::new(keeper.stdin.take().zip(keeper.stdout.take().map(BufReader::new)));
        let own = Some(Own { keeper, orders, folder });
        let server = Self { programs, port, creating: Mutex::new(()), own };
        server.wait()?;
        Ok(server)
    }

    /// Creates the data directory. Returns the command of the keeper, the directory of the programs, the port and the
    /// directory of the server.
    fn prepare(settings: &[&str], files: &[(&str, &str)]) -> io::Result<(Command, PathBuf, u16, TempDir)> {
        let programs = find_programs()?;
        let folder = tempfile::Builder::new().prefix("tidegate-postgres-").tempdir()?;
        let as_root = fs::metadata(folder.path())?.uid() == 0;
        if as_root {
            // The server refuses to run as root.
            succeed(Command::new("chown").arg("postgres:").arg(folder.path()))?;
        }
        let data = folder.path().join("data");
        let mut init = unprivileged(as_root, &programs.join("initdb"));
        init.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", USER]);
        init.args(["--locale-provider=icu", "--icu-locale=en-US", "--pgdata"]).arg(&data);
        succeed(&mut init)?;
        for (name, content) in files {
            let path = data.join(name);
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(&path)?.write_all(content.as_bytes())?;
            if as_root {
                succeed(Command::new("chown").arg("postgres:").arg(&path))?;
            }
        }

        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let server = unprivileged(as_root, &programs.join("postgres"));
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", KEEPER, "sh"])
            .arg(folder.path())
            .arg(server.get_program())
            .args(server.get_args());
        keeper.arg("-D").arg(&data).arg("-p").arg(port.to_string()).arg("-k").arg(folder.path());
        let usual =
            ["listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off", "max_connections=300"];
        for setting in usual.iter().chain(settings) {
            keeper.args(["-c", setting]);
        }
        keeper.stderr(Stdio::null());
        Ok((keeper, programs, port, folder))
    }

    /// Stops the server as in a crash (`pg_ctl stop -m immediate`) and waits until it has exited.
    /// Committed data is available after [`TestPostgres::start_again`].
    ///
    /// # Errors
    /// If the keeper has exited, or another process started the server.
    pub fn stop(&self) -> io::Result<()> {
        self.order("stop")
    }

    /// Starts a stopped server again, on the same port, and waits until it answers.
    ///
    /// # Errors
    /// As [`TestPostgres::start`].
    pub fn start_again(&self) -> io::Result<()> {
        self.order("start")?;
        self.wait()
    }

    fn order(&self, order: &str) -> io::Result<()> {
        let own = self.own.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        let mut orders = own.orders.lock();
        let Some((orders, done)) = orders.as_mut() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        writeln!(orders, "{order}")?;
        match done.read_line(&mut String::new())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The contents of its log.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> io::Result<String> {
        let own = self.own.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        fs::read_to_string(own.folder.path().join("log"))
    }

    /// Creates an empty database and returns its URL. On the server of another process, the id of this process is appended
    /// to the name.
    ///
    /// # Errors
    /// If the name exists, or the server does not answer.
    pub fn create_database(&self, name: &str) -> io::Result<String> {
        let name = match self.own {
            Some(_) => name.to_owned(),
            None => format!("{name}_{}", std::process::id()),
        };
        // Concurrent copies of a template can fail.
        let _one = self.creating.lock();
        succeed(
            self.client("createdb").args(["--maintenance-db=postgres", "--template=template0"]).arg(&name),
        )?;
        Ok(format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port))
    }

    #[expect(clippy::disallowed_methods, reason = "this is for tests and blocks throughout")]
    fn wait(&self) -> io::Result<()> {
        let end = Instant::now() + START_TIMEOUT;
        while succeed(self.client("pg_isready").arg("--quiet").arg("--dbname=postgres")).is_err() {
            if Instant::now() > end {
                let log = self.log().unwrap_or_default();
                return Err(io::Error::other(format!("PostgreSQL does not start: {log}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(["--host=127.0.0.1", "--username", USER, "--port"]).arg(self.port.to_string());
        command
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        drop(own.orders.get_mut().take());
        // The directory is removed even if this fails.
        drop(own.keeper.wait());
    }
}

/// The directory of the programs of the newest installed version.
fn find_programs() -> io::Result<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "PostgreSQL is not installed; the tests need it")
        })
}

fn unprivileged(as_root: bool, program: &Path) -> Command {
    if !as_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{} failed: {said}", command.get_program().to_string_lossy())))
}
