//! The part of HTTP/1.1 that a registry needs. An HTTP library would not allow to close, stall or send false bytes in the
//! middle of a response.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::body::{Body, index, length};
use super::log::Entry;

/// The most that a request's head, or its body, may have.
const MAX_REQUEST: usize = 64 * 1024;
/// The most that one write carries.
const WRITE: u64 = 64 * 1024;

/// A request with its (small) body.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Request {
    /// The first header of this name (in lower case).
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Path and query.
    pub(super) fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }

    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?, first.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Some(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers.collect(),
            body: Bytes::new(),
        })
    }
}

/// An answer, and how it is delivered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) delivery: Delivery,
}

/// The course of one answer. Offsets count the bytes of its body.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    pub(super) delay: Option<Duration>,
    pub(super) drop: bool,
    pub(super) head_only: bool,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) stall: Option<(u64, Duration)>,
    pub(super) cut: Option<u64>,
    pub(super) reset: Option<u64>,
}

/// What becomes of the connection behind an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
    Reset,
}

/// A connection of one client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    unread: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unread: BytesMut::new() }
    }

    /// The next request, or none when the client has closed the connection.
    pub(super) async fn next_request(&mut self) -> io::Result<Option<Request>> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.unread.len() > MAX_REQUEST || self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        };
        let head = self.unread.split_to(end);
        self.unread.advance(4);
        let Some(mut request) = Request::parse(&String::from_utf8_lossy(&head)) else { return Ok(None) };
        let body = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while self.unread.len() < body {
            if body > MAX_REQUEST || self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        }
        request.body = self.unread.split_to(body).freeze();
        Ok(Some(request))
    }

    /// Delivers an answer and writes into the log how far it got.
    pub(super) async fn send(&mut self, answer: Answer, entry: &Entry) -> io::Result<After> {
        let Answer { status, mut headers, body, delivery } = answer;
        if let Some(delay) = delivery.delay {
            self.wait(delay).await?;
        }
        if delivery.drop {
            return Ok(After::Reset);
        }
        let bodiless = delivery.head_only || status == 204 || status == 304;
        if delivery.chunked {
            headers.push(("Transfer-Encoding".into(), "chunked".into()));
        }
        entry.length.store(if bodiless { 0 } else { body.len() }, Ordering::Release);
        entry.status.store(status, Ordering::Release);
        self.stream.write_all(head(status, &headers, delivery.close).as_bytes()).await?;
        let after = if bodiless { After::KeepAlive } else { self.send_body(body, &delivery, entry).await? };
        Ok(if delivery.close && after == After::KeepAlive { After::Close } else { after })
    }

    async fn send_body(&mut self, body: Body, delivery: &Delivery, entry: &Entry) -> io::Result<After> {
        let started = Instant::now();
        let mut stall = delivery.stall;
        let mut sent = 0;
        for mut part in body.into_parts() {
            while !part.is_empty() {
                if let Some(end) = self.event(sent, &mut stall, delivery).await? {
                    return Ok(end);
                }
                let next = [stall.map(|(at, _)| at), delivery.cut, delivery.reset];
                let until_next = next.into_iter().flatten().map(|at| at - sent).min().unwrap_or(WRITE);
                let pace = delivery.bytes_per_second.map_or(WRITE, |speed| (speed / 50).max(1));
                let now = part.split_to(index(length(&part).min(until_next).min(pace).min(WRITE)));
                sent += length(&now);
                self.write_counted(now, delivery.chunked, entry).await?;
                if let Some(speed) = delivery.bytes_per_second {
                    sleep_until(started + Duration::from_micros(sent * 1_000_000 / speed.max(1))).await;
                }
            }
        }
        if let Some(end) = self.event(sent, &mut stall, delivery).await? {
            return Ok(end);
        }
        if delivery.chunked {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        Ok(After::KeepAlive)
    }

    /// What is to happen when `sent` bytes are out: it has stalled, or this is the end.
    async fn event(
        &self,
        sent: u64,
        stall: &mut Option<(u64, Duration)>,
        delivery: &Delivery,
    ) -> io::Result<Option<After>> {
        if let Some((_, pause)) = stall.take_if(|(at, _)| *at == sent) {
            self.wait(pause).await?;
        }
        if delivery.reset == Some(sent) {
            // A reset discards what the kernel has not sent yet; the client is to have its bytes first.
            sleep(Duration::from_millis(50)).await;
            return Ok(Some(After::Reset));
        }
        Ok((delivery.cut == Some(sent)).then_some(After::Close))
    }

    async fn write_counted(&mut self, mut bytes: Bytes, chunked: bool, entry: &Entry) -> io::Result<()> {
        if chunked {
            self.stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
        }
        while !bytes.is_empty() {
            self.stream.writable().await?;
            // Counted before they are sent: a client that has received them finds them counted.
            let all = length(&bytes);
            entry.body_bytes.fetch_add(all, Ordering::AcqRel);
            let written = self.stream.try_write(&bytes);
            let sent = *written.as_ref().unwrap_or(&0);
            entry.body_bytes.fetch_sub(all - length(&bytes[..sent]), Ordering::AcqRel);
            match written {
                Ok(_) => bytes.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if chunked { self.stream.write_all(b"\r\n").await } else { Ok(()) }
    }

    /// Waits, or ends with an error once the client is gone: a stalled answer must not outlive its client.
    async fn wait(&self, pause: Duration) -> io::Result<()> {
        let gone = async {
            match self.stream.peek(&mut [0]).await {
                Ok(1) => std::future::pending().await,
                _ => io::Error::from(io::ErrorKind::ConnectionAborted),
            }
        };
        tokio::select! {
            () = sleep(pause) => Ok(()),
            error = gone => Err(error),
        }
    }

    /// Closes in order, or with a reset.
    pub(super) async fn end(mut self, after: After) {
        let ended = match after {
            After::Reset => self.stream.set_zero_linger(),
            After::Close | After::KeepAlive => self.stream.shutdown().await,
        };
        // The client may be gone already, which is what was wanted.
        drop(ended);
    }
}

/// A status line and headers.
fn head(status: u16, headers: &[(String, String)], close: bool) -> String {
    let mut head = format!("HTTP/1.1 {status} {status}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
    head
}
