//! Tidegate in the process of a test: real listeners on port 0, a real database, a real directory.

mod answer;

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use diesel::{
    Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query,
    sql_types::{BigInt, Text},
};
use reqwest::{Method, StatusCode};
use tempfile::TempDir;
use tidegate::{
    cli::{Flags, Mode},
    config,
    process::Process,
    signals::Shutdown,
};
use tokio::{sync::oneshot, task::JoinHandle};
use url::Url;

pub use answer::Answer;

use crate::{assert_eventually, chaos::ChaosUpstream, http_client::http_client};

/// The configuration of a world.
#[derive(Default)]
pub struct WorldBuilder {
    upstreams: String,
    namespaces: String,
    sections: String,
    variables: Vec<(String, String)>,
    dir: Option<TempDir>,
}

impl WorldBuilder {
    /// An upstream and a namespace of the same name, without background fetches. `keys` are further lines of
    /// `[[upstream]]`.
    pub fn upstream(self, name: &str, upstream: &ChaosUpstream, keys: &str) -> Self {
        self.bare_upstream(name, &upstream.url(), keys).namespace(name, name, "prefetch = \"none\"")
    }

    /// An upstream at any address, without a namespace.
    pub fn bare_upstream(mut self, name: &str, url: &str, keys: &str) -> Self {
        self.upstreams += &format!("[[upstream]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}\n");
        self
    }

    /// A namespace. `keys` are further lines of `[[namespace]]`.
    pub fn namespace(mut self, prefix: &str, upstream: &str, keys: &str) -> Self {
        self.namespaces +=
            &format!("[[namespace]]\nprefix = \"{prefix}\"\nupstream = \"{upstream}\"\n{keys}\n");
        self
    }

    /// Whole further sections, such as `[content]`.
    pub fn sections(mut self, toml: &str) -> Self {
        self.sections += toml;
        self.sections.push('\n');
        self
    }

    /// A variable of the environment. Those of the test are not visible.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses the data of an earlier world.
    pub fn in_dir(mut self, dir: TempDir) -> Self {
        self.dir = Some(dir);
        self
    }

    /// Starts it.
    pub async fn start(self) -> TestWorld {
        let dir = self.dir.unwrap_or_else(|| TempDir::with_prefix("tdg-").unwrap());
        let file = dir.path().join("tidegate.toml");
        fs::write(&file, format!("{}\n{}\n{}", self.sections, self.upstreams, self.namespaces)).unwrap();
        let any_port = Some("127.0.0.1:0".parse().unwrap());
        let flags = Flags {
            config: Some(file),
            data_dir: Some(dir.path().join("data").display().to_string()),
            listen: any_port,
            internal_listen: any_port,
            ..Flags::default()
        };
        let settings = config::load(&flags.overrides(Mode::Serve), self.variables.into_iter())
            .unwrap_or_else(|error| panic!("{error}"));
        let process =
            Process::start(Mode::Serve, &settings).await.unwrap_or_else(|error| panic!("{error:#}"));
        let listening = process.listening();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(process.run(async move {
            // A world that is dropped stops too.
            let _ = stopped.await.is_ok();
            Shutdown::Immediate
        }));
        TestWorld {
            api: format!("http://{}", listening.public),
            internal: format!("http://{}", listening.internal),
            client: http_client(),
            running: Some((stop, running)),
            dir: Some(dir),
        }
    }
}

/// A running Tidegate.
pub struct TestWorld {
    api: String,
    internal: String,
    client: reqwest::Client,
    running: Option<(oneshot::Sender<()>, JoinHandle<anyhow::Result<()>>)>,
    dir: Option<TempDir>,
}

impl TestWorld {
    /// Describes a world.
    pub fn builder() -> WorldBuilder {
        WorldBuilder::default()
    }

    /// A world with one upstream, `up`, below the prefix `up`, defaults otherwise, and no prefetching.
    pub async fn start(upstream: &ChaosUpstream) -> Self {
        Self::builder().upstream("up", upstream, "").start().await
    }

    /// The address of the public listener, `http://HOST:PORT`.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// The address of the internal listener, `http://HOST:PORT`.
    pub fn internal(&self) -> &str {
        &self.internal
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.root().join("data")
    }

    fn root(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// The URL that a path, or a URL of an answer, stands for.
    pub fn url(&self, reference: &str) -> Url {
        Url::parse(&self.api).unwrap().join(reference).unwrap()
    }

    /// Begins a request to the public listener.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// Sends a request and reads the whole answer. Redirects are not followed.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.unwrap() }
    }

    /// `GET` of a path.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `HEAD` of a path.
    pub async fn head(&self, path: &str) -> Answer {
        self.send(self.request(Method::HEAD, path)).await
    }

    /// A request of any method for a path.
    pub async fn ask(&self, method: &Method, path: &str) -> Answer {
        self.send(self.request(method.clone(), path)).await
    }

    /// `GET` of a path of the internal listener.
    pub async fn internal_get(&self, path: &str) -> Answer {
        self.send(self.client.get(format!("{}{path}", self.internal))).await
    }

    /// `GET` of a path that answers JSON, such as the admin API's.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The absolute URL that the redirect of a blob leads to.
    pub async fn content_url(&self, repository: &str, digest: &str) -> String {
        let answer = self.get(&format!("/v2/{repository}/blobs/{digest}")).await;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{answer:?}");
        self.url(answer.header("location")).into()
    }

    /// A blob, through the redirect.
    pub async fn blob(&self, repository: &str, digest: &str) -> Answer {
        let url = self.content_url(repository, digest).await;
        self.send(self.client.get(url)).await
    }

    /// A client that follows no redirects.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The number of rows of a table.
    pub fn rows(&self, table: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let mut database = self.database();
        let query = sql_query(format!("SELECT count(*) AS count FROM {table}"));
        query.get_result::<Count>(&mut database).unwrap().count
    }

    /// The number of jobs that are queued or running.
    pub fn live_jobs(&self) -> i64 {
        self.rows("jobs WHERE state < 2")
    }

    /// The results of a query of one column, named `text`.
    pub fn texts(&self, query: &str) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Found {
            #[diesel(sql_type = Text)]
            text: String,
        }
        let found: Vec<Found> = sql_query(query).load(&mut self.database()).unwrap();
        found.into_iter().map(|row| row.text).collect()
    }

    /// Runs a statement on the database, without the service.
    pub fn execute(&self, statement: &str) -> usize {
        sql_query(statement).execute(&mut self.database()).unwrap()
    }

    fn database(&self) -> SqliteConnection {
        let path = self.data_dir().join("tidegate.db");
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        sql_query("PRAGMA busy_timeout = 5000").execute(&mut connection).unwrap();
        connection
    }

    /// All metrics as text.
    pub async fn metrics(&self) -> String {
        String::from_utf8(self.internal_get("/metrics").await.body.to_vec()).unwrap()
    }

    /// The value of a metric with exactly these labels; zero if it does not exist.
    pub async fn metric(&self, name_and_labels: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// The path of a blob in the store.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        self.data_dir().join("blobs").join(algorithm).join(&hex[..2]).join(hex)
    }

    /// Every file of the storage: stored blobs and partial files.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { collect(&path, files) } else { files.push(path) }
            }
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(self.data_dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, &mut files);
            }
        }
        files
    }

    /// Waits until a blob is stored, and asserts its bytes.
    pub async fn assert_stored(&self, digest: &str, bytes: &Bytes) {
        let path = self.blob_path(digest);
        assert_eventually!(path.exists(), "{digest} is not stored");
        assert!(fs::read(&path).unwrap() == *bytes, "{digest} is stored with other bytes");
    }

    /// Stops as on SIGINT, and returns the directory.
    pub async fn stop(mut self) -> TempDir {
        let (stop, running) = self.running.take().unwrap();
        let _ = stop.send(());
        running.await.unwrap().unwrap();
        self.dir.take().unwrap()
    }
}
