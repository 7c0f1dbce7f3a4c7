//! Streams a blob from its sources to one client without storing it, when the disk has no space.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use oci_types::{Digest, Hasher, Millis, RepositoryName};
use shared_models::db::blobs;
use tokio::sync::OwnedSemaphorePermit;
use upstream_client::{FirstByteLimit, UpstreamError};

use super::checkpoint::MIN_PROGRESS;
use crate::{
    backoff::Delays,
    error::{DownloadError, FillError},
    limits::Idle,
    read_mode::ReadMode,
    source::{Choice, Next, Source, SourceRequest, UpstreamSource, byte_length},
    state::State,
};

/// Streams a range of a blob. The end of a whole blob is deferred until the digest is verified.
pub(crate) struct Bypass {
    state: Arc<State>,
    digest: Digest,
    size: u64,
    /// The bytes that have not been received.
    rest: Range<u64>,
    sources: Vec<UpstreamSource>,
    choice: Choice,
    delays: Delays,
    /// Between two reads of the client.
    body: Idle<Body>,
    /// The number of bytes since the last progress.
    received: u64,
    /// The hash of the bytes before `rest`; `None` for a range that leaves bytes out.
    hasher: Option<Hasher>,
    held_back: VecDeque<Bytes>,
    held_back_bytes: u64,
}

struct Body {
    source: usize,
    stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Bypass {
    /// A bypass for a blob of `size` bytes, if the size is known; otherwise of the size that is recorded, or that a source
    /// states. It serves no bytes before [`Bypass::connect`].
    ///
    /// # Errors
    /// The database failed; as [`Bypass::query_size`].
    pub(crate) async fn open(
        state: Arc<State>,
        digest: Digest,
        repository: Option<&RepositoryName>,
        size: Option<u64>,
    ) -> Result<Self, FillError> {
        let (row, recorded) = tokio::try_join!(
            blobs::find(&state.db, &digest),
            blobs::sources(&state.db, &digest, repository, Millis::now())
        )?;
        let size = size.or(row.and_then(|row| row.size)).filter(|size| digest.admits_size(*size));
        let sources = UpstreamSource::configured(&recorded, &state.upstreams);
        let policy = &state.config.fills;
        let choice = if sources.is_empty() && !recorded.is_empty() {
            Choice::unconfigured(policy.attempts)
        } else {
            let origins: Vec<_> = sources.iter().map(|source| source.upstream().to_owned()).collect();
            Choice::new(&origins, policy.attempts)
        };
        let delays = Delays::new(policy.backoff_min, policy.backoff_max);
        let body = state.limits.idle();
        let mut bypass = Self {
            state,
            digest,
            size: size.unwrap_or(0),
            rest: 0..0,
            sources,
            choice,
            delays,
            body,
            received: 0,
            hasher: None,
            held_back: VecDeque::new(),
            held_back_bytes: 0,
        };
        if size.is_none() {
            bypass.query_size().await?;
        }
        Ok(bypass)
    }

    /// Sets the size to what a source states.
    ///
    /// # Errors
    /// All sources failed; [`FillError::NoSpace`]: the source states no size.
    pub(crate) async fn query_size(&mut self) -> Result<(), FillError> {
        // `Choice` bounds the failures.
        loop {
            let (index, source) = self.source()?;
            let _permit = self.state.limits.acquire_upstream(source.upstream()).await;
            match source.head(&self.digest).await {
                Ok(size) => {
                    let admitted = size.filter(|size| self.digest.admits_size(*size));
                    self.size = admitted.ok_or(FillError::NoSpace)?;
                    return Ok(());
                }
                Err(error) => self.failed(index, error.into()).await?,
            }
        }
    }

    fn source(&self) -> Result<(usize, UpstreamSource), FillError> {
        let index = self.choice.current()?;
        Ok((index, self.sources.get(index).cloned().ok_or(FillError::NoSource)?))
    }

    /// The size of the blob in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Connects to a source, so that a failure is known before the response begins. `hasher`: the hash of the bytes before
    /// `range`, where the client has them. The digest is verified when the bytes from 0 to the end are hashed.
    ///
    /// # Errors
    /// All sources failed.
    pub(crate) async fn connect(
        mut self,
        range: Range<u64>,
        hasher: Option<Hasher>,
    ) -> Result<Self, FillError> {
        self.hasher =
            hasher.or_else(|| (range == (0..self.size)).then(|| Hasher::new(self.digest.algorithm())));
        self.rest = range;
        if !self.rest.is_empty() {
            let body = self.open_source().await?;
            self.body.put(body);
        }
        Ok(self)
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// All sources failed, or the bytes do not match the digest.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, FillError> {
        while !self.rest.is_empty() {
            let piece = self.receive().await?;
            self.rest.start += byte_length(&piece);
            let Some(hasher) = &mut self.hasher else { return Ok(Some(piece)) };
            hasher.update(&piece);
            self.held_back_bytes += byte_length(&piece);
            self.held_back.push_back(piece);
            if let Some(piece) = self.release() {
                return Ok(Some(piece));
            }
        }
        if let Some(hasher) = self.hasher.take()
            && hasher.finish() != self.digest
        {
            tracing::error!(digest = %self.digest, "upstream sent bytes that do not match the digest");
            return Err(FillError::WrongDigest);
        }
        Ok(self.held_back.pop_front())
    }

    /// The oldest piece, if enough bytes remain deferred.
    fn release(&mut self) -> Option<Bytes> {
        let left = self.held_back_bytes - self.held_back.front().map_or(0, byte_length);
        if left < self.state.config.fills.hold_back {
            return None;
        }
        self.held_back_bytes = left;
        self.held_back.pop_front()
    }

    /// At least one byte of the rest.
    async fn receive(&mut self) -> Result<Bytes, FillError> {
        // `Choice` bounds the failures without a byte.
        loop {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.open_source().await?,
            };
            let source = body.source;
            match body.stream.next().await {
                Some(Ok(mut piece)) => {
                    piece.truncate(usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX));
                    self.body.put(body);
                    self.count_progress(byte_length(&piece));
                    return Ok(piece);
                }
                Some(Err(error)) => self.failed(source, error.into()).await?,
                None => self.failed(source, DownloadError::Interrupted).await?,
            }
        }
    }

    async fn open_source(&mut self) -> Result<Body, FillError> {
        // `Choice` bounds the failures.
        loop {
            let (index, source) = self.source()?;
            let permit = self.state.limits.acquire_upstream(source.upstream()).await;
            let source = Source::Upstream(source);
            let request = SourceRequest {
                digest: &self.digest,
                start: self.rest.start,
                end: Some(self.rest.end),
                size: Some(self.size),
                mode: ReadMode::Rest,
                first_byte: match self.choice.has_alternative(index) {
                    true => FirstByteLimit::Short,
                    false => FirstByteLimit::Full,
                },
            };
            match source.open(request).await {
                Ok(body) if body.size.is_none_or(|size| size == self.size) => {
                    return Ok(Body { source: index, stream: body.into_stream(|_| {}), _permit: permit });
                }
                Ok(_) => self.failed(index, DownloadError::WrongSize).await?,
                Err(error) => self.failed(index, error.into()).await?,
            }
        }
    }

    /// Earlier failures no longer count when enough bytes were received.
    fn count_progress(&mut self, bytes: u64) {
        self.received += bytes;
        if self.received < MIN_PROGRESS {
            return;
        }
        self.received = 0;
        self.choice.progressed();
        let policy = &self.state.config.fills;
        self.delays = Delays::new(policy.backoff_min, policy.backoff_max);
    }

    async fn failed(&mut self, source: usize, error: DownloadError) -> Result<(), FillError> {
        let delay = match self.choice.failed(source, &error, self.rest.start > 0)? {
            Next::Other | Next::Ignore => return Ok(()),
            // The response has begun with the known size: no source that states another one can continue it.
            Next::StartOver => return Err(FillError::WrongSize),
            Next::Retry | Next::ProbePeer => self.delays.next_delay(),
        };
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
