//! An S3 server in the test process, with faults: over HTTP, or without a network for tests on paused time.

mod body;
mod in_process;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hyper::{Request, Response, body::Body, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use reqwest::Method;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use self::{body::ResponseBody, in_process::InProcess};
use crate::{AccessKeys, BlobStore, S3Config, S3Timeouts};

const BUCKET: &str = "layers";
const ACCESS_KEY: &str = "AKIATEST";
const SECRET_KEY: &str = "secret-of-a-test";

/// What the server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Responds with this status, without a body and without an effect.
    Status(u16),
    /// As `Status`, with this error code in the body.
    Error(u16, &'static str),
    /// Executes the request, and closes the connection instead of a response.
    LostResponse,
    /// Closes the connection after this many bytes of the response body.
    Truncated(usize),
    /// Never responds.
    Hang,
    /// Refuses the connection; without a network only.
    Unreachable,
}

/// Chooses the fault by method, and by path with query.
type ChooseFault = dyn FnMut(&Method, &str) -> Fault + Send;

pub(super) struct S3Server {
    address: SocketAddr,
    /// [`S3Timeouts::upload`] of the stores of this server.
    pub(super) upload_timeout: Duration,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

struct State {
    s3: S3Service,
    files: TempDir,
    choose_fault: Mutex<Box<ChooseFault>>,
    requests: Mutex<Vec<String>>,
    bytes_sent: AtomicUsize,
    open_responses: AtomicUsize,
}

impl S3Server {
    pub(super) async fn start() -> Self {
        let files = TempDir::new().unwrap();
        std::fs::create_dir(files.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(files.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let state = Arc::new(State {
            s3: builder.build(),
            files,
            choose_fault: Mutex::new(Box::new(|_, _| Fault::None)),
            requests: Mutex::default(),
            bytes_sent: AtomicUsize::new(0),
            open_responses: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { address, upload_timeout: Duration::from_secs(20), state, serving }
    }

    /// Breaks all connections and refuses new ones.
    pub(super) async fn stop(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Serves at the same address again.
    pub(super) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = tokio::spawn(serve(listener, Arc::clone(&self.state)));
    }

    pub(super) fn set_fault(&self, choose: impl FnMut(&Method, &str) -> Fault + Send + 'static) {
        *self.state.choose_fault.lock() = Box::new(choose);
    }

    /// Number of requests with this method and this text in path or query.
    pub(super) fn requests(&self, method: &str, text: &str) -> usize {
        let requests = self.state.requests.lock();
        requests.iter().filter(|request| request.starts_with(method) && request.contains(text)).count()
    }

    /// Bytes of response bodies that were sent.
    pub(super) fn bytes_sent(&self) -> usize {
        self.state.bytes_sent.load(Ordering::Relaxed)
    }

    /// Sets the numbers of requests and bytes to zero.
    pub(super) fn reset_counters(&self) {
        self.state.requests.lock().clear();
        self.state.bytes_sent.store(0, Ordering::Relaxed);
    }

    /// Number of responses whose body is neither sent to its end nor dropped.
    pub(super) fn open_responses(&self) -> usize {
        self.state.open_responses.load(Ordering::Relaxed)
    }

    pub(super) fn config(&self) -> S3Config {
        S3Config {
            endpoint: Some(format!("http://{}", self.address).parse().unwrap()),
            prefix: "/a/b/".to_owned(),
            keys: Some(AccessKeys {
                access_key: ACCESS_KEY.into(),
                secret_key: SECRET_KEY.into(),
                session_token: None,
            }),
            // The minimum of the server.
            part_size: 5 * 1024 * 1024,
            timeouts: S3Timeouts {
                connect: Duration::from_millis(500),
                answer: Duration::from_secs(3),
                read: Duration::from_secs(2),
                upload: self.upload_timeout,
                complete: Duration::from_secs(5),
            },
            ..S3Config::new(BUCKET)
        }
    }

    /// A store that uses HTTP.
    pub(super) fn store(&self, root: &TempDir, cache_size: Option<u64>) -> BlobStore {
        BlobStore::open_s3(&self.config(), root.path(), cache_size).unwrap()
    }

    /// A store that uses no network.
    pub(super) fn in_process_store(&self, root: &TempDir) -> BlobStore {
        self.in_process_store_with(&self.config(), root)
    }

    pub(super) fn in_process_store_with(&self, config: &S3Config, root: &TempDir) -> BlobStore {
        let in_process = InProcess(Arc::clone(&self.state));
        let customize =
            |builder: object_store::aws::AmazonS3Builder| builder.with_http_connector(in_process.clone());
        BlobStore::open_s3_with(config, root.path(), None, &customize).unwrap()
    }

    /// The keys in the bucket.
    pub(super) fn keys(&self) -> Vec<String> {
        let bucket = self.state.files.path().join(BUCKET);
        let mut keys: Vec<String> = files_below(&bucket)
            .iter()
            .map(|file| file.strip_prefix(&bucket).unwrap().to_str().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    }

    /// Number of parts of uploads that are neither completed nor aborted.
    pub(super) fn parts(&self) -> usize {
        files_below(self.state.files.path())
            .iter()
            .filter(|file| file.file_name().unwrap().to_str().unwrap().contains(".part-"))
            .count()
    }

    /// The file of the only object.
    pub(super) fn object_path(&self) -> PathBuf {
        self.state.files.path().join(BUCKET).join(self.keys().pop().unwrap())
    }

    /// Replaces the bytes of the only object.
    pub(super) fn corrupt_object(&self, bytes: &[u8]) {
        std::fs::write(self.object_path(), bytes).unwrap();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(super) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let state = Arc::clone(&state);
            async move { state.respond(request.map(s3s::Body::from)).await }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        connections.spawn(connection);
    }
}

impl State {
    /// Responds to one request; an error closes the connection.
    async fn respond(self: &Arc<Self>, request: Request<s3s::Body>) -> io::Result<Response<ResponseBody>> {
        let target = request.uri().path_and_query().unwrap().as_str();
        self.requests.lock().push(format!("{} {target}", request.method()));
        let fault = self.choose_fault.lock()(request.method(), target);
        match fault {
            Fault::Hang => std::future::pending().await,
            Fault::Unreachable => Err(io::ErrorKind::ConnectionRefused.into()),
            Fault::Status(status) => {
                read_to_end(request.into_body()).await;
                Ok(self.response(status, String::new()))
            }
            Fault::Error(status, code) => {
                read_to_end(request.into_body()).await;
                let body = format!(
                    "<Error><Code>{code}</Code><Message>m</Message><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId></Error>"
                );
                Ok(self.response(status, body))
            }
            Fault::None => self.execute(request, usize::MAX).await,
            Fault::Truncated(length) => self.execute(request, length).await,
            Fault::LostResponse => {
                self.execute(request, usize::MAX).await?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }

    async fn execute(
        self: &Arc<Self>,
        request: Request<s3s::Body>,
        max_length: usize,
    ) -> io::Result<Response<ResponseBody>> {
        let response = self.s3.call(request).await;
        let response = response.map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(response.map(|body| ResponseBody::new(body, max_length, self)))
    }

    fn response(self: &Arc<Self>, status: u16, body: String) -> Response<ResponseBody> {
        let response = Response::builder().status(status).body(s3s::Body::from(body)).unwrap();
        response.map(|body| ResponseBody::new(body, usize::MAX, self))
    }
}

/// A server that fails after it received the body.
async fn read_to_end(mut body: s3s::Body) {
    let mut body = std::pin::Pin::new(&mut body);
    while let Some(Ok(frame)) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let _: Option<Bytes> = frame.into_data().ok();
    }
}
