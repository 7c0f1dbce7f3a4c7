//! An HTTP proxy, as between an internal network and the internet: it resolves names, tunnels (`CONNECT`) and forwards
//! requests, and can refuse.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A running proxy on a port of 127.0.0.1. It accepts no connection after this is dropped.
#[derive(Debug)]
pub struct HttpProxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    hosts: Mutex<HashMap<String, SocketAddr>>,
    refusal: Mutex<Option<String>>,
    requests: Mutex<Vec<ProxyRequest>>,
}

/// A request to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRequest {
    /// `CONNECT`, or the method of a forwarded request.
    pub method: String,
    /// `HOST:PORT` to connect to, or the URL of a forwarded request.
    pub target: String,
    /// `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl HttpProxy {
    /// A proxy that knows no host name yet.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // A connection that breaks is one that the client or the target closed.
                tokio::spawn(async move { drop(serve(client, &state).await) });
            }
        });
        Self { address, state, accepting }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Resolves `HOST:PORT` to an address. Other names do not exist.
    pub fn resolve(&self, host: &str, address: SocketAddr) {
        self.state.hosts.lock().unwrap().insert(host.to_owned(), address);
    }

    /// Answers every request with a status and a web page from now on.
    pub fn refuse(&self, status: u16) {
        let page = "<html>refused</html>";
        let head = format!("HTTP/1.1 {status} Refused\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\n");
        let length = page.len();
        self.refuse_with(&format!(
            "{head}Content-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
        ));
    }

    /// Answers every request with these bytes from now on.
    pub fn refuse_with(&self, answer: &str) {
        *self.state.refusal.lock().unwrap() = Some(answer.to_owned());
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<ProxyRequest> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(client: TcpStream, state: &State) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let first = lines.remove(0);
    let (method, rest) = first.split_once(' ').unwrap();
    let target = rest.split(' ').next().unwrap();
    let is_for_proxy = |line: &String| line.to_ascii_lowercase().starts_with("proxy-");
    let authorization = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    state.requests.lock().unwrap().push(ProxyRequest {
        method: method.to_owned(),
        target: target.to_owned(),
        authorization,
    });
    let refusal = state.refusal.lock().unwrap().clone();
    if let Some(answer) = refusal {
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    let (host, path) = match target.strip_prefix("http://") {
        None => (target.to_owned(), None),
        Some(rest) => {
            let (host, path) = rest.split_once('/').unwrap();
            (if host.contains(':') { host.to_owned() } else { format!("{host}:80") }, Some(path))
        }
    };
    let known = state.hosts.lock().unwrap().get(&host).copied();
    let Some(address) = known.or_else(|| host.parse().ok()) else {
        client
            .write_all(b"HTTP/1.1 503 Unknown host\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await?;
        return client.shutdown().await;
    };
    let mut server = TcpStream::connect(address).await?;
    match path {
        None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
        Some(path) => {
            // One request for each connection: later ones have other targets.
            lines.retain(|line| !is_for_proxy(line));
            lines.push("Connection: close".to_owned());
            let head = format!("{method} /{path} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
            server.write_all(head.as_bytes()).await?;
        }
    }
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
