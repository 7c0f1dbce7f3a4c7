//! A response body that is counted and can be cut short.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::State;

pub(super) struct ResponseBody {
    body: s3s::Body,
    remaining: usize,
    state: Arc<State>,
}

impl ResponseBody {
    /// At most `max_length` bytes of a body, then an error.
    pub(super) fn new(body: s3s::Body, max_length: usize, state: &Arc<State>) -> Self {
        state.open_responses.fetch_add(1, Ordering::Relaxed);
        Self { body, remaining: max_length, state: Arc::clone(state) }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.state.open_responses.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.remaining == 0 {
            return Poll::Ready(Some(Err(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)))));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => {
                let Ok(mut bytes) = frame.into_data() else { return Poll::Ready(None) };
                bytes.truncate(self.remaining);
                self.remaining -= bytes.len();
                self.state.bytes_sent.fetch_add(bytes.len(), Ordering::Relaxed);
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
