//! A client with its own socket: it reads as slowly as it likes, and sees how a body really ended.

use std::collections::HashMap;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
};
use url::Url;

/// Small, so that what was not read is not in the kernel either.
const RECEIVE_BUFFER: u32 = 64 * 1024;

/// An answer whose body is read piece by piece.
pub(crate) struct Raw {
    stream: BufReader<TcpStream>,
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    left: u64,
}

/// The rest of a body.
pub(crate) struct Rest {
    pub(crate) bytes: Vec<u8>,
    /// Whether as many came as `Content-Length` said.
    pub(crate) complete: bool,
}

impl Raw {
    /// Sends a `GET` and reads the head of the answer.
    pub(crate) async fn get(url: &str, headers: &[(&str, &str)]) -> Self {
        let mut asked = Self::ask(url, headers).await;
        asked.head().await;
        asked
    }

    /// Sends a `GET` and reads nothing.
    pub(crate) async fn ask(url: &str, headers: &[(&str, &str)]) -> Self {
        let url = Url::parse(url).unwrap();
        let address = url.socket_addrs(|| None).unwrap()[0];
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let query = url.query().unwrap_or_default();
        let mut request = format!("GET {}?{query} HTTP/1.1\r\nHost: {address}\r\n", url.path());
        headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
        request += "Connection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream: BufReader::new(stream), status: 0, headers: HashMap::new(), left: 0 }
    }

    /// Reads the head of the answer.
    pub(crate) async fn head(&mut self) {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        self.status =
            line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {line:?}")).parse().unwrap();
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.unwrap();
            let Some((name, value)) = line.split_once(':') else { break };
            self.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        self.left = self.header("content-length").parse().unwrap();
    }

    /// A header; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Reads so many bytes, which must come.
    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        self.left -= u64::try_from(count).unwrap();
        bytes
    }

    /// Reads so many bytes, or until the body or the connection ends.
    pub(crate) async fn up_to(&mut self, count: usize) -> Vec<u8> {
        let count = u64::try_from(count).unwrap().min(self.left);
        let mut bytes = Vec::new();
        // A reset is an end like any other.
        let _ = (&mut self.stream).take(count).read_to_end(&mut bytes).await;
        self.left -= u64::try_from(bytes.len()).unwrap();
        bytes
    }

    /// Reads until the body or the connection ends.
    pub(crate) async fn rest(mut self) -> Rest {
        let bytes = self.up_to(usize::MAX).await;
        Rest { bytes, complete: self.left == 0 }
    }
}
