//! A small HTTP/1.1 server whose responses and faults the test chooses, and control over the clock.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use oci_types::{Digest, Reference, RepositoryName};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::watch,
};
use upstream_client::{Credentials, Observer, Unobserved, Upstream, UpstreamConfig};
use url::Url;

/// A request as the server received it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }
}

/// What goes wrong with a response.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// The connection closes after so many bytes of the body.
    Cut(usize),
    /// Nothing follows after so many bytes of the body, but the connection stays.
    Stall(usize),
    /// There is no response, and the connection stays.
    Silence,
    /// There is no response, and the connection closes.
    Close,
}

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fault: Fault,
    /// The response is sent when this is true.
    ready: watch::Receiver<bool>,
    /// What follows so many bytes of the body is sent when this is true.
    rest: Option<(usize, watch::Receiver<bool>)>,
}

pub(crate) fn reply(status: u16) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: Vec::new(),
        fault: Fault::None,
        ready: watch::channel(true).1,
        rest: None,
    }
}

/// 503 that is not retried at once.
pub(crate) fn unavailable() -> Reply {
    reply(503).header("retry-after", 1)
}

/// No response; the connection stays open.
pub(crate) fn silence() -> Reply {
    Reply { fault: Fault::Silence, ..reply(0) }
}

/// No response; the connection closes.
pub(crate) fn hang_up() -> Reply {
    Reply { fault: Fault::Close, ..reply(0) }
}

impl Reply {
    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.fault = Fault::Cut(bytes);
        self
    }

    pub(crate) fn stall_after(mut self, bytes: usize) -> Self {
        self.fault = Fault::Stall(bytes);
        self
    }

    /// Delays the response until `ready` is true.
    pub(crate) fn when(mut self, ready: watch::Receiver<bool>) -> Self {
        self.ready = ready;
        self
    }

    /// Delays what follows `bytes` bytes of the body until `ready` is true.
    pub(crate) fn rest_when(mut self, bytes: usize, ready: watch::Receiver<bool>) -> Self {
        self.rest = Some((bytes, ready));
        self
    }

    async fn send(mut self, to: &mut (impl AsyncWrite + Unpin), head_only: bool) -> std::io::Result<()> {
        match self.fault {
            Fault::Close => return Ok(()),
            Fault::Silence => std::future::pending().await,
            Fault::None | Fault::Cut(_) | Fault::Stall(_) => {}
        }
        let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", self.status);
        let sized =
            self.headers.iter().any(|(name, _)| name == "content-length" || name == "transfer-encoding");
        if !sized {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        to.write_all(format!("{head}\r\n").as_bytes()).await?;
        if head_only {
            return to.flush().await;
        }
        let length = match self.fault {
            Fault::Cut(length) | Fault::Stall(length) => length,
            _ => self.body.len(),
        };
        let mut sent = 0;
        if let Some((bytes, mut ready)) = self.rest.take() {
            to.write_all(&self.body[..bytes]).await?;
            to.flush().await?;
            sent = bytes;
            ready.wait_for(|ready| *ready).await.unwrap();
        }
        to.write_all(&self.body[sent..length]).await?;
        to.flush().await?;
        if let Fault::Stall(_) = self.fault {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// A server on a free port, until it is dropped.
pub(crate) struct Server {
    pub(crate) url: Url,
    requests: watch::Sender<Vec<Request>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer).await
    }

    pub(crate) async fn start_with(
        tls: Option<tokio_rustls::TlsAcceptor>,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = Url::parse(&format!("{scheme}://{}", listener.local_addr().unwrap())).unwrap();
        let requests = watch::Sender::new(Vec::new());
        let (received, answer) = (requests.clone(), Arc::new(answer));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (received, answer, tls) = (received.clone(), Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => drop(serve(stream, &received, answer.as_ref()).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(serve(stream, &received, answer.as_ref()).await);
                            }
                        }
                    }
                });
            }
        });
        Self { url, requests, accepting }
    }

    pub(crate) fn at(&self, path: &str) -> String {
        self.url.join(path).unwrap().to_string()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }

    /// Waits until `count` requests have been received.
    pub(crate) async fn received(&self, count: usize) {
        self.requests.subscribe().wait_for(|requests| requests.len() >= count).await.unwrap();
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.target.contains(part)).count()
    }

    /// The anonymous upstream at this server. No private address other than its own is permitted.
    pub(crate) fn config(&self) -> UpstreamConfig {
        UpstreamConfig::new("test", self.url.clone())
    }

    pub(crate) fn upstream(&self) -> Upstream {
        upstream(self.config())
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    received: &watch::Sender<Vec<Request>>,
    answer: &(impl Fn(&Request) -> Reply + ?Sized),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, target, headers: Vec::new() };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    received.send_modify(|requests| requests.push(request.clone()));
    let mut reply = answer(&request);
    reply.ready.wait_for(|ready| *ready).await.unwrap();
    reply.send(&mut stream, request.method == "HEAD").await?;
    stream.shutdown().await
}

/// Sends each of `replies` in turn, and the last one from then on.
pub(crate) async fn in_turn(replies: Vec<Reply>) -> Server {
    let next = AtomicUsize::new(0);
    Server::start(move |_| replies[next.fetch_add(1, Ordering::SeqCst).min(replies.len() - 1)].clone()).await
}

pub(crate) fn upstream(config: UpstreamConfig) -> Upstream {
    Upstream::new(config, Arc::new(Unobserved)).unwrap()
}

pub(crate) fn login(username: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Fixed { username: username.to_owned(), password: password.into() })
}

pub(crate) fn repository(name: &str) -> RepositoryName {
    RepositoryName::parse(name).unwrap()
}

pub(crate) fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(bytes)
}

/// Reads a stream until its end or its error.
pub(crate) async fn collect(
    mut body: upstream_client::BlobBody,
) -> (Vec<u8>, Option<upstream_client::UpstreamError>) {
    use futures::StreamExt;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.stream.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

/// Advances the clock, without waiting.
pub(crate) async fn advance(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

/// The result of a call that waits in vain once the server has received `requests` requests, and the time from then on.
/// The time passes at once.
pub(crate) async fn time_out<T>(
    server: &Server,
    requests: usize,
    call: impl Future<Output = T>,
) -> (T, Duration) {
    let mut call = pin!(call);
    tokio::select! {
        () = server.received(requests) => {}
        _ = &mut call => panic!("the call ended early"),
    }
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let result = call.await;
    let elapsed = started.elapsed();
    tokio::time::resume();
    (result, elapsed)
}

/// An observer that keeps the counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) exchanges: Mutex<Vec<(String, u16)>>,
    pub(crate) bytes: AtomicU64,
}

impl Observer for Counts {
    fn request_completed(&self, upstream: &str, method: &str, code: u16) {
        assert_eq!(upstream, "test");
        self.exchanges.lock().unwrap().push((method.to_owned(), code));
    }

    fn bytes_received(&self, _upstream: &str, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }
}
