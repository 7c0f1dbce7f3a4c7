//! A small HTTP/1.1 server whose every answer, and every fault, is chosen by the test.

use std::{
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
};
use upstream_client::{Credentials, Observer, Unobserved, Upstream, UpstreamConfig};
use url::Url;

/// A request as the server saw it.
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

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// The connection closes after so many bytes of the body.
    Cut(usize),
    /// Nothing follows after so many bytes of the body, but the connection stays.
    Stall(usize),
    /// There is no answer, and the connection stays.
    Silence,
    /// There is no answer, and the connection closes.
    Close,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fault: Fault,
    delay: Duration,
}

pub(crate) fn reply(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new(), fault: Fault::None, delay: Duration::ZERO }
}

/// No answer; the connection stays open.
pub(crate) fn silence() -> Reply {
    Reply { fault: Fault::Silence, ..reply(0) }
}

/// No answer; the connection closes.
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

    pub(crate) fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    async fn send(self, to: &mut (impl AsyncWrite + Unpin), head_only: bool) -> std::io::Result<()> {
        tokio::time::sleep(self.delay).await;
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
        to.write_all(&self.body[..length]).await?;
        to.flush().await?;
        if let Fault::Stall(_) = self.fault {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// A server on a port of its own, until it is dropped.
pub(crate) struct Server {
    pub(crate) url: Url,
    requests: Arc<Mutex<Vec<Request>>>,
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
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer, tls) = (Arc::clone(&seen), Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => drop(serve(stream, &seen, answer.as_ref()).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(serve(stream, &seen, answer.as_ref()).await);
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
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.target.contains(part)).count()
    }

    /// The anonymous upstream at this server. Times are short, and no address beside its own is permitted.
    pub(crate) fn config(&self) -> UpstreamConfig {
        let mut config = UpstreamConfig::new("test", self.url.clone());
        config.answer_timeout = Duration::from_secs(5);
        config
    }

    pub(crate) fn upstream(&self) -> Upstream {
        upstream(self.config())
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<Request>>,
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
    seen.lock().unwrap().push(request.clone());
    let head_only = request.method == "HEAD";
    answer(&request).send(&mut stream, head_only).await?;
    stream.shutdown().await
}

/// Answers with each of `replies` in turn, and with the last one from then on.
pub(crate) async fn in_turn(replies: Vec<Reply>) -> Server {
    let next = AtomicUsize::new(0);
    Server::start(move |_| replies[next.fetch_add(1, Ordering::SeqCst).min(replies.len() - 1)].clone()).await
}

pub(crate) fn upstream(config: UpstreamConfig) -> Upstream {
    Upstream::new(config, Arc::new(Unobserved)).unwrap()
}

pub(crate) fn login(username: &str, password: &str) -> Option<Credentials> {
    Some(Credentials { username: username.to_owned(), password: password.into() })
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

/// Reads a stream to its end or its error.
pub(crate) async fn collect(
    mut body: upstream_client::BlobBody,
) -> (Vec<u8>, Option<upstream_client::UpstreamError>) {
    use futures::StreamExt;
    let mut bytes = Vec::new();
    while let Some(piece) = body.stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

/// Keeps what an upstream reports.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answers: Mutex<Vec<(String, u16)>>,
    pub(crate) bytes: AtomicU64,
}

impl Observer for Counts {
    fn answered(&self, upstream: &str, method: &str, code: u16) {
        assert_eq!(upstream, "test");
        self.answers.lock().unwrap().push((method.to_owned(), code));
    }

    fn bytes(&self, _upstream: &str, n: u64) {
        self.bytes.fetch_add(n, Ordering::Relaxed);
    }
}
