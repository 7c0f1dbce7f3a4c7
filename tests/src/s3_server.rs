//! A real S3 server, in process and over HTTP, whose files can be looked at and whose requests can be made to fail.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
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

/// The only bucket.
pub const BUCKET: &str = "layers";
/// The id of the only access key.
pub const ACCESS_KEY: &str = "AKIATEST";
/// Its secret.
pub const SECRET_KEY: &str = "secret-of-a-test";

/// A running S3 server with one bucket. It ends, and its files go, when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    files: TempDir,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    failing: Mutex<Option<Failing>>,
    failed: AtomicUsize,
    asked: Mutex<Vec<String>>,
}

/// A number of requests of a method, with this text in path or query, that fail with 500.
#[derive(Debug)]
struct Failing {
    method: String,
    part: String,
    times: usize,
}

impl S3Server {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// If it cannot start.
    pub async fn start() -> Self {
        let files = TempDir::with_prefix("tdg-s3-").unwrap();
        std::fs::create_dir(files.path().join(BUCKET)).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(files.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let state = Arc::new(State::default());
        let serving = tokio::spawn(serve(listener, builder.build(), Arc::clone(&state)));
        Self { address, files, state, serving }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the next `times` requests of `method`, with `part` in path or query, with 500, undone.
    pub fn fail(&self, method: &str, part: &str, times: usize) {
        let failing = Failing { method: method.to_owned(), part: part.to_owned(), times };
        *self.state.failing.lock().unwrap() = Some(failing);
    }

    /// The number of requests that failed on purpose.
    pub fn failed(&self) -> usize {
        self.state.failed.load(Ordering::SeqCst)
    }

    /// The number of requests of `method` with `part` in path or query.
    pub fn asked(&self, method: &str, part: &str) -> usize {
        let asked = self.state.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.starts_with(method) && asked.contains(part)).count()
    }

    /// The keys of the objects in the bucket, in order.
    pub fn keys(&self) -> Vec<String> {
        let bucket = self.files.path().join(BUCKET);
        let files = files_below(&bucket);
        let keys = files.iter().map(|file| file.strip_prefix(&bucket).unwrap().to_str().unwrap().to_owned());
        let mut keys: Vec<_> = keys.collect();
        keys.sort();
        keys
    }

    /// What lies in the bucket under a key.
    pub fn object(&self, key: &str) -> Vec<u8> {
        std::fs::read(self.files.path().join(BUCKET).join(key)).unwrap()
    }

    /// Loses what lies in the bucket under a key.
    pub fn lose(&self, key: &str) {
        std::fs::remove_file(self.files.path().join(BUCKET).join(key)).unwrap();
    }

    /// Replaces what lies in the bucket under a key.
    pub fn replace(&self, key: &str, bytes: &[u8]) {
        std::fs::write(self.files.path().join(BUCKET).join(key), bytes).unwrap();
    }

    /// The number of parts of uploads that were neither completed nor aborted.
    pub fn parts(&self) -> usize {
        let is_part = |file: &&PathBuf| file.file_name().unwrap().to_string_lossy().contains(".part-");
        files_below(self.files.path()).iter().filter(is_part).count()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Its connections go with it.
        self.serving.abort();
    }
}

impl State {
    /// Whether a request is to fail.
    fn fails(&self, method: &str, target: &str) -> bool {
        self.asked.lock().unwrap().push(format!("{method} {target}"));
        let mut failing = self.failing.lock().unwrap();
        let matching = failing.as_mut().filter(|it| it.method == method && target.contains(&it.part));
        let Some(left) = matching.and_then(|it| it.times.checked_sub(1).map(|left| (it, left))) else {
            return false;
        };
        left.0.times = left.1;
        self.failed.fetch_add(1, Ordering::SeqCst);
        true
    }
}

async fn serve(listener: TcpListener, s3: S3Service, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        // A part of many small pieces must not wait for acknowledgements.
        drop(socket.set_nodelay(true));
        let (s3, state) = (s3.clone(), Arc::clone(&state));
        let service = service_fn(move |request| answer(s3.clone(), Arc::clone(&state), request));
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    s3: S3Service,
    state: Arc<State>,
    request: Request<Incoming>,
) -> io::Result<Response<s3s::Body>> {
    let target = request.uri().path_and_query().unwrap().as_str();
    if state.fails(request.method().as_str(), target) {
        return Ok(Response::builder().status(500).body(s3s::Body::empty()).unwrap());
    }
    let answered = s3.call(request.map(s3s::Body::from)).await;
    answered.map_err(|error| io::Error::other(format!("{error:?}")))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_client::http_client;

    #[tokio::test]
    async fn it_wants_a_signature_and_fails_as_often_as_it_is_told() {
        let server = S3Server::start().await;
        let ask = async || {
            let url = format!("http://{}/{BUCKET}/a/b", server.address());
            http_client().get(url).send().await.unwrap().status().as_u16()
        };
        assert_eq!(ask().await, 403);
        server.fail("GET", "/a/", 2);
        assert_eq!([ask().await, ask().await, ask().await], [500, 500, 403]);
        assert_eq!((server.failed(), server.asked("GET", "/a/b"), server.asked("PUT", "")), (2, 4, 0));
        assert_eq!((server.keys(), server.parts()), (Vec::new(), 0));
    }
}
