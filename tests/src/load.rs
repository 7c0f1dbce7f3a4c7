//! Clients that receive bytes from a server at little cost: for measuring servers, not clients.
//!
//! Plain sockets and one buffer for each thread. Received bytes are compared with the expected ones: all of them, or the
//! beginning of every piece where a full comparison would cost more than receiving.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// The maximum length of one receive, in bytes: it fits in the second-level cache of a processor.
const PIECE: usize = 256 * 1024;
/// The length of the beginning of each piece that is compared, in bytes.
const SAMPLE: usize = 512;
/// The maximum length of the head of a response, in bytes.
const MAX_HEAD: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// The parts of a URL.
#[derive(Clone, Debug)]
pub struct Place {
    /// The server.
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
}

impl Place {
    /// Reads `http://IP:PORT/PATH`.
    ///
    /// # Panics
    /// If it has another form.
    pub fn parse(url: &str) -> Self {
        let rest = url.strip_prefix("http://").expect("a URL begins with http://");
        let (address, path) = rest.split_once('/').expect("a URL has a path");
        Self { address: address.parse().expect("an IP address and a port"), path: format!("/{path}") }
    }
}

/// The expected bytes of a blob.
#[derive(Debug)]
pub struct Expected(Vec<u8>);

impl Expected {
    /// Reads a file.
    pub fn from_file(path: impl AsRef<Path>) -> io::Result<Self> {
        std::fs::read(path).map(Self)
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        length(&self.0)
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the bytes at `offset` are `piece`.
    pub fn has(&self, offset: u64, piece: &[u8]) -> bool {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        self.0.get(from..).is_some_and(|rest| rest.starts_with(piece))
    }

    /// Whether `piece` begins with the bytes at `offset` and ends within the blob.
    pub fn begins(&self, offset: u64, piece: &[u8]) -> bool {
        offset + length(piece) <= self.len() && self.has(offset, &piece[..piece.len().min(SAMPLE)])
    }
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Bytes of its body.
    pub length: u64,
    /// The target of a redirect.
    pub location: Option<String>,
}

/// Runs `readers` at once and returns the errors.
///
/// # Panics
/// When a reader does.
pub async fn all<R>(readers: usize, read: impl Fn() -> R) -> Vec<String>
where
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let ended = (0..readers).map(|_| read()).collect::<JoinSet<_>>().join_all().await;
    ended.into_iter().filter_map(|end| Some(end.err()?.to_string())).collect()
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    host: String,
    /// Bytes of a body that came with its head.
    early: Vec<u8>,
    /// Bytes of the body that were received, of how many.
    position: u64,
    length: u64,
}

impl Client {
    /// Connects. A small receive buffer (in bytes) keeps the kernel from reading ahead of a slow client.
    pub async fn connect(address: SocketAddr, receive_buffer: Option<u32>) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: address.to_string(), early: Vec::new(), position: 0, length: 0 })
    }

    /// Requests a path, or a range of it, and follows one redirect on the same server.
    pub async fn get(&mut self, path: &str, range: Option<Range<u64>>) -> io::Result<Head> {
        let head = self.ask(path, range.clone()).await?;
        let Some(location) = head.location.as_ref().filter(|_| (300..400).contains(&head.status)) else {
            return Ok(head);
        };
        while self.receive(PIECE, |_, _| {}).await? {}
        let here = location.strip_prefix(&format!("http://{}", self.host)).unwrap_or(location);
        self.ask(here, range).await
    }

    async fn ask(&mut self, path: &str, range: Option<Range<u64>>) -> io::Result<Head> {
        let range = range.map_or(String::new(), |it| format!("Range: bytes={}-{}\r\n", it.start, it.end - 1));
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{range}\r\n", self.host);
        self.stream.write_all(request.as_bytes()).await?;
        let mut received = std::mem::take(&mut self.early);
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if received.len() > MAX_HEAD || self.stream.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        self.early = received.split_off(end + 4);
        let head = Head::parse(&String::from_utf8_lossy(&received[..end]));
        let head = head.ok_or_else(|| io::Error::other("an answer without status or Content-Length"))?;
        (self.position, self.length) = (0, head.length);
        Ok(head)
    }

    /// Receives at most `most` bytes of the body and shows them with their offset; false at the end.
    pub async fn receive(&mut self, most: usize, mut show: impl FnMut(u64, &[u8])) -> io::Result<bool> {
        let left = self.length - self.position;
        let most = usize::try_from(left).unwrap_or(PIECE).min(most).min(PIECE);
        if most == 0 {
            return Ok(false);
        }
        let received = if self.early.is_empty() {
            loop {
                self.stream.readable().await?;
                let received = BUFFER.with_borrow_mut(|buffer| {
                    let received = self.stream.try_read(&mut buffer[..most])?;
                    show(self.position, &buffer[..received]);
                    Ok::<_, io::Error>(received)
                });
                match received {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    received => break received?,
                }
            }
        } else {
            let rest = self.early.split_off(most.min(self.early.len()));
            let early = std::mem::replace(&mut self.early, rest);
            show(self.position, &early);
            early.len()
        };
        self.position += u64::try_from(received).unwrap_or(0);
        Ok(true)
    }
}

impl Head {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let (mut length, mut location) = (None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok(),
                "location" => location = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        Some(Self { status, length: length?, location })
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{ChaosUpstream, Fault, Rule};
    use crate::image::{random_bytes, sha256};

    #[test]
    fn a_comparison_covers_all_of_a_piece_or_its_beginning() {
        let expected = Expected((0..2000_u32).map(|number| number.to_be_bytes()[3]).collect());
        let mut piece = expected.0[100..1100].to_vec();
        assert!(expected.has(100, &piece) && expected.begins(100, &piece));
        assert!(!expected.has(101, &piece) && !expected.begins(101, &piece));
        piece[SAMPLE] ^= 1;
        assert!(!expected.has(100, &piece) && expected.begins(100, &piece));
        piece[SAMPLE - 1] ^= 1;
        assert!(!expected.begins(100, &piece));
        let last = &expected.0[1999..];
        assert!(expected.begins(1999, last) && !expected.begins(2000, last), "a piece ends with the blob");
    }

    #[tokio::test]
    async fn a_client_follows_a_redirect_and_notices_a_wrong_byte() {
        let upstream = ChaosUpstream::start().await;
        let bytes = random_bytes(1, 700_000);
        let digest = sha256(&bytes);
        upstream.put_blob("x", &digest, bytes.clone());
        upstream.put_file("/file", bytes.clone());
        let path = format!("/v2/x/blobs/{digest}");
        upstream.on(Rule::on("GET", "/blobs/").times(1).then(Fault::RedirectTo("/file".into())));
        upstream.on(Rule::on("GET", "/blobs/").times(1).then(Fault::WrongByteAt(699_999)));
        let place = Place::parse(&format!("{}{path}", upstream.url()));
        let expected = Expected(bytes.to_vec());
        let mut client = Client::connect(place.address, None).await.unwrap();
        for right in [true, false] {
            let head = client.get(&place.path, None).await.unwrap();
            assert_eq!((head.status, head.length), (200, 700_000));
            let (mut received, mut as_expected) = (0, true);
            let mut show = |offset, piece: &[u8]| {
                assert_eq!(offset, received);
                received += length(piece);
                as_expected &= expected.has(offset, piece);
            };
            while client.receive(PIECE, &mut show).await.unwrap() {}
            assert_eq!((received, as_expected), (700_000, right));
        }
        let head = client.get(&place.path, Some(100..200)).await.unwrap();
        assert_eq!((head.status, head.length), (206, 100));
    }
}
