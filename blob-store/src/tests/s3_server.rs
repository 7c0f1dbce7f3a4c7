//! A real S3 server, in process and over HTTP, that can be told to fail.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{AccessKeys, BlobStore, S3Config, S3Store, S3Timeouts};

const BUCKET: &str = "layers";
const ACCESS_KEY: &str = "AKIATEST";
const SECRET_KEY: &str = "secret-of-a-test";

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Served,
    /// Answered with this status, and not done.
    Status(u16),
    /// Done, but the connection breaks before the answer.
    AnswerLost,
    /// The answer breaks off after this many bytes of its body.
    CutAfter(usize),
    /// Never answered.
    Hangs,
}

/// Decides by method and by path with query.
type Decide = dyn FnMut(&Method, &str) -> Fate + Send;

pub(super) struct S3Server {
    pub(super) address: SocketAddr,
    /// How long parts are tried again by the stores of this server.
    pub(super) patience: Duration,
    files: TempDir,
    decide: Arc<Mutex<Box<Decide>>>,
    asked: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl S3Server {
    pub(super) async fn start() -> Self {
        let files = TempDir::new().unwrap();
        std::fs::create_dir(files.path().join(BUCKET)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let decide: Arc<Mutex<Box<Decide>>> = Arc::new(Mutex::new(Box::new(|_, _| Fate::Served)));
        let patience = Duration::from_secs(20);
        let mut server = Self {
            address,
            patience,
            files,
            decide,
            asked: Arc::default(),
            sent: Arc::default(),
            serving: None,
        };
        server.serve(listener);
        server
    }

    fn serve(&mut self, listener: TcpListener) {
        let mut builder = S3ServiceBuilder::new(FileSystem::new(self.files.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let (s3, decide, asked) = (builder.build(), Arc::clone(&self.decide), Arc::clone(&self.asked));
        let sent = Arc::clone(&self.sent);
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (s3, decide, asked) = (s3.clone(), Arc::clone(&decide), Arc::clone(&asked));
                let sent = Arc::clone(&sent);
                let service = service_fn(move |request| {
                    let fate = fate(&request, &decide, &asked);
                    answer(s3.clone(), request, fate, Arc::clone(&sent))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                connections.spawn(connection);
            }
        }));
    }

    /// Goes away: connections break, and new ones are refused.
    pub(super) async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    /// Comes back where it was.
    pub(super) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    pub(super) fn when(&self, decide: impl FnMut(&Method, &str) -> Fate + Send + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }

    /// How many requests began with this method and had this in path or query.
    pub(super) fn asked(&self, method: &str, part: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.starts_with(method) && asked.contains(part)).count()
    }

    /// How many bytes of bodies were sent.
    pub(super) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
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
            // The least that the server takes.
            part_size: 5 * 1024 * 1024,
            timeouts: S3Timeouts {
                connect: Duration::from_millis(500),
                answer: Duration::from_secs(3),
                read: Duration::from_secs(2),
                upload: self.patience,
                complete: Duration::from_secs(5),
            },
            ..S3Config::new(BUCKET)
        }
    }

    pub(super) fn store(&self, root: &TempDir, cache_size: Option<u64>) -> BlobStore {
        BlobStore::S3(S3Store::open(&self.config(), root.path(), cache_size).unwrap())
    }

    /// The keys in the bucket, as the server has them on its disk.
    pub(super) fn keys(&self) -> Vec<String> {
        let bucket = self.files.path().join(BUCKET);
        let mut keys: Vec<String> = files_below(&bucket)
            .iter()
            .map(|file| file.strip_prefix(&bucket).unwrap().to_str().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    }

    /// The parts of uploads that were neither completed nor thrown away.
    pub(super) fn parts(&self) -> usize {
        files_below(self.files.path())
            .iter()
            .filter(|file| file.file_name().unwrap().to_str().unwrap().contains(".part-"))
            .count()
    }

    /// Replaces the bytes of the only object.
    pub(super) fn spoil_object(&self, bytes: &[u8]) {
        let key = self.keys().pop().unwrap();
        std::fs::write(self.files.path().join(BUCKET).join(key), bytes).unwrap();
    }
}

pub(super) fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

fn fate(request: &Request<Incoming>, decide: &Mutex<Box<Decide>>, asked: &Mutex<Vec<String>>) -> Fate {
    let target = request.uri().path_and_query().unwrap().as_str();
    asked.lock().unwrap().push(format!("{} {target}", request.method()));
    decide.lock().unwrap()(request.method(), target)
}

async fn answer(
    s3: S3Service,
    request: Request<Incoming>,
    fate: Fate,
    sent: Arc<AtomicUsize>,
) -> io::Result<Response<Cut>> {
    let answer = match fate {
        Fate::Hangs => std::future::pending().await,
        Fate::Status(status) => {
            // Taken in whole, as a server does that fails after it.
            read_to_end(request.into_body()).await;
            let answer = Response::builder().status(status).body(s3s::Body::empty());
            return Ok(answer.unwrap().map(|body| Cut { body, left: usize::MAX, sent }));
        }
        _ => s3
            .call(request.map(s3s::Body::from))
            .await
            .map_err(|error| io::Error::other(format!("{error:?}")))?,
    };
    match fate {
        Fate::AnswerLost => Err(io::ErrorKind::ConnectionReset.into()),
        Fate::CutAfter(left) => Ok(answer.map(|body| Cut { body, left, sent })),
        _ => Ok(answer.map(|body| Cut { body, left: usize::MAX, sent })),
    }
}

async fn read_to_end(mut body: Incoming) {
    let next = |body: &mut Incoming, context: &mut Context<'_>| Pin::new(body).poll_frame(context);
    while let Some(Ok(_)) = std::future::poll_fn(|context| next(&mut body, context)).await {}
}

/// A body that breaks off.
struct Cut {
    body: s3s::Body,
    left: usize,
    sent: Arc<AtomicUsize>,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)))));
        }
        match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => {
                let Ok(mut bytes) = frame.into_data() else { return Poll::Ready(None) };
                bytes.truncate(self.left);
                self.left -= bytes.len();
                self.sent.fetch_add(bytes.len(), Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
