//! The image of `deploy/Containerfile`: its last stage, on a base with the libraries of this machine.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use tidegate_tests::{
    assert_eventually,
    http_client::http_client,
    process::{Daemon, program},
    tool::{Ran, Tool},
};

use super::containers_home::ContainersHome;

const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const COMMAND: &str = "/usr/local/bin/tidegate";
/// The time limit of a service without clients. `api.drain_grace` and `content.drain_grace` are 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A working container of the image.
struct Container {
    home: ContainersHome,
    name: String,
}

/// A service that runs in the container.
struct Service {
    daemon: Daemon,
    public: String,
    internal: String,
}

impl Container {
    async fn build() -> Self {
        let home = ContainersHome::new("");
        let container = Self { home, name: String::new() };
        container.build_base().await;
        let files = container.home.path("files");
        fs::create_dir_all(files.join("data")).unwrap();
        fs::copy(CERTIFICATES, files.join("ca-certificates.crt")).unwrap();
        Tool::new("strip").arg("-o").args([&files.join("tidegate"), program()]).succeed().await;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let build = container.buildah("build").args(["--quiet", "--format=docker", "--target=runtime"]);
        let build = build.args(["--tag=tidegate", "--build-arg=BASE=localhost/base", "--build-context"]);
        let build = build.arg(format!("files={}", files.display())).arg("--file");
        build.arg(source.join("deploy/Containerfile")).arg(source).succeed().await;
        let name = container.buildah("from").arg("tidegate").succeed().await.stdout.trim().to_owned();
        Self { name, ..container }
    }

    /// Builds an image with the libraries that the command is linked with, and the directories of a distribution.
    async fn build_base(&self) {
        let root = self.home.path("base");
        for directory in ["etc/ssl/certs", "tmp", "usr/local/bin", "var/lib"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let linked = Tool::new("ldd").arg(program()).succeed().await.stdout;
        for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
            let copy = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(library, copy).unwrap();
        }
        let name = self.buildah("from").arg("scratch").succeed().await.stdout;
        self.buildah("copy").args(["--quiet", name.trim()]).arg(root).arg("/").succeed().await;
        self.buildah("commit").args(["--quiet", name.trim(), "base"]).succeed().await;
    }

    fn buildah(&self, command: &str) -> Tool {
        self.home.tool("buildah").env("BUILDAH_ISOLATION", "chroot").arg(command)
    }

    /// Runs the command to its end, with these arguments.
    async fn run(&self, arguments: [&str; 3]) -> Ran {
        self.buildah("run").args([&self.name, "--", "tidegate"]).args(arguments).run().await
    }

    /// Starts a service and waits until it is ready.
    async fn start(&self, mode: &str) -> Service {
        let log = self.home.path(&format!("{mode}.log"));
        let mut command = Command::new("buildah");
        command.envs(self.home.variables()).env("BUILDAH_ISOLATION", "chroot").arg("run");
        for listener in ["API__LISTEN", "API__INTERNAL_LISTEN", "CONTENT__LISTEN", "CONTENT__INTERNAL_LISTEN"]
        {
            command.arg("--env").arg(format!("TIDEGATE_{listener}=127.0.0.1:0"));
        }
        command.args([&self.name, "--", "tidegate", mode]).stdout(File::create(&log).unwrap());
        let daemon = Daemon::start(&mut command, &log);
        assert_eventually!(urls(&daemon.log()).len() == 2, "{mode} prints its addresses");
        let [public, internal] = urls(&daemon.log()).try_into().unwrap();
        let service = Service { daemon, public, internal };
        assert_eventually!(service.answers("readyz").await, "{mode} is ready");
        assert!(service.answers("livez").await);
        service
    }

    async fn health(&self, service: &Service) -> bool {
        self.run(["health", "--url", &format!("{}/readyz", service.internal)]).await.succeeded()
    }
}

impl Service {
    async fn answers(&self, path: &str) -> bool {
        let answer = http_client().get(format!("{}/{path}", self.internal)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// The `/proc` directory of the command, below the processes of buildah.
    fn proc(&self) -> String {
        let group = self.daemon.id().to_string();
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let is_command = |process: &std::path::PathBuf| {
            let read = |file| fs::read_to_string(process.join(file)).unwrap_or_default();
            let stat = read("stat");
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            after_name.split_whitespace().nth(2) == Some(&group) && read("cmdline").starts_with(COMMAND)
        };
        processes.filter(is_command).map(|process| process.display().to_string()).next().unwrap()
    }

    /// Asserts that the command has an unprivileged user and no capabilities.
    fn assert_unprivileged(&self) {
        let status = fs::read_to_string(format!("{}/status", self.proc())).unwrap();
        let value =
            |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace();
        assert!(value("Uid:").all(|id| id == "65532"), "{status}");
        assert!(value("CapEff:").all(|capabilities| capabilities == "0000000000000000"), "{status}");
    }

    /// Asserts that the command exits with 0 after SIGTERM.
    async fn assert_stops(&mut self) {
        Tool::new("kill").args(["-TERM", self.proc().trim_start_matches("/proc/")]).succeed().await;
        assert!(self.daemon.wait(STOP_TIMEOUT).await.success());
    }
}

/// The addresses that a service prints: for clients, and the internal one.
fn urls(log: &str) -> Vec<String> {
    let urls = log.lines().filter_map(|line| line.split_once(" on http://"));
    urls.map(|(_, address)| format!("http://{address}")).collect()
}

#[tokio::test]
async fn the_image_runs_each_service_without_privileges() {
    let container = Container::build().await;
    let inspected = container.buildah("inspect").args(["--type=image", "tidegate"]).succeed().await.stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let config = &inspected["Docker"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["tidegate"]));
    assert_eq!(config["Cmd"], json!(["serve"]));
    assert_eq!(config["Volumes"], json!({ "/var/lib/tidegate": {} }));
    assert_eq!(config["ExposedPorts"], json!({ "5000/tcp": {}, "5001/tcp": {} }));
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "tidegate", "health"]));

    for mode in ["serve", "registry-api", "content-app"] {
        let mut service = container.start(mode).await;
        assert!(container.health(&service).await);
        if mode != "content-app" {
            let answer = http_client().get(format!("{}/v2/", service.public)).send().await.unwrap();
            assert!(answer.status().is_success());
        }
        service.assert_unprivileged();
        service.assert_stops().await;
        assert!(!container.health(&service).await);
    }
}
