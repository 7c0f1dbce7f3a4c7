//! A TCP connection that is closed when a request head takes too long.
//!
//! The framework limits the first head of a connection only. If the first bytes of a later head
//! arrive together with the previous head, its time limit starts when further bytes arrive; until
//! then, the keep-alive timeout applies.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::rt::net::TcpStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// The state of the requests of a connection.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Number of requests whose head is complete and whose response is not.
    in_flight: Cell<u32>,
    /// Whether bytes were received since the last head was complete. They belong to the next one or to a request body.
    received: Cell<bool>,
}

impl Requests {
    /// Records that a request head is complete. The request ends when the value is dropped.
    pub(crate) fn begin(self: Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        self.received.set(false);
        InFlight(self)
    }

    fn awaits_head(&self) -> bool {
        self.in_flight.get() == 0 && self.received.get()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct InFlight(Rc<Requests>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    requests: Rc<Requests>,
    head_timeout: Duration,
    /// Deadline of the head that is being received.
    head_deadline: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Sets the options of the socket. The kernel closes the connection when its peer acknowledges nothing, or keeps a
    /// full receive buffer, for `write_timeout`.
    pub(crate) fn new(stream: TcpStream, head_timeout: Duration, write_timeout: Duration) -> Self {
        let write_timeout = u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, write_timeout)
            .map_err(io::Error::from)
            .and_then(|()| stream.set_nodelay(true))
        {
            tracing::debug!(%error, "failed to set the options of a connection");
        }
        Self { stream, requests: Rc::default(), head_timeout, head_deadline: None }
    }

    pub(crate) fn requests(&self) -> Rc<Requests> {
        Rc::clone(&self.requests)
    }

    /// Fails if a partial head is past its deadline; otherwise the task is woken at the deadline.
    fn check_head(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.requests.awaits_head() {
            self.head_deadline = None;
            return Ok(());
        }
        let timeout = self.head_timeout;
        let deadline =
            self.head_deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, "the request head is late")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.requests.received.set(true);
        } else if polled.is_pending() {
            self.check_head(context)?;
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called after the end of an answer, when the next head may have begun already.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_head(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
