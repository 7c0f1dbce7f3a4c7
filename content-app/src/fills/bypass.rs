//! A download for one client alone, past the storage: when there is no space for the blob.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use oci_types::{Digest, Hasher};
use shared_models::db::blobs;
use upstream_client::UpstreamError;

use super::{
    choice::Rotation, download::DownloadError, error::FillError, read_mode::Part, registry::Context,
    source::Source,
};
use crate::config::FillPolicy;

/// Streams a window of a blob from its sources. Of a whole blob the end is held back until the digest is right.
pub(crate) struct Bypass {
    context: Arc<Context>,
    policy: FillPolicy,
    digest: Digest,
    size: u64,
    /// What is still to be received.
    rest: Range<u64>,
    sources: Vec<Source>,
    rotation: Rotation,
    incoming: Option<Incoming>,
    /// Over everything before `rest`; none for a window that leaves something out.
    hasher: Option<Hasher>,
    held: VecDeque<Bytes>,
    held_bytes: u64,
}

struct Incoming {
    source: usize,
    stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
    /// Bytes that a source without ranges sends before the ones that are wanted.
    skip: u64,
    /// Held while the upstream sends.
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Bypass {
    /// Connects to a source of the blob, so that a failure is told before the answer begins.
    ///
    /// `size` is the blob's where a source has told it already. `window` is given the size and says what is wanted; what
    /// runs to the end is verified when `hasher` has seen all that lies before it, or there is nothing before it.
    pub(crate) async fn open(
        context: Arc<Context>,
        policy: FillPolicy,
        digest: Digest,
        size: Option<u64>,
        window: impl FnOnce(u64) -> Range<u64>,
        hasher: Option<Hasher>,
    ) -> Result<Self, FillError> {
        let known = blobs::find(&context.db, &digest).await?.and_then(|row| row.size);
        let recorded = blobs::sources(&context.db, &digest).await?;
        let is_recorded = !recorded.is_empty();
        let sources = Source::among(recorded, |name| context.upstreams.get(name).cloned());
        let size = size.or(known).ok_or(FillError::NoSpace)?;
        let rest = window(size);
        let hasher = hasher.or_else(|| (rest == (0..size)).then(|| Hasher::new(digest.algorithm())));
        let mut bypass = Self {
            rest,
            rotation: match sources.len() {
                0 if is_recorded => Rotation::unconfigured(),
                sources => Rotation::new(sources),
            },
            context,
            policy,
            digest,
            size,
            sources,
            incoming: None,
            hasher,
            held: VecDeque::new(),
            held_bytes: 0,
        };
        if !bypass.rest.is_empty() {
            bypass.incoming = Some(bypass.connect().await?);
        }
        Ok(bypass)
    }

    /// The blob's size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes for the client; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, FillError> {
        while !self.rest.is_empty() {
            let piece = self.receive().await?;
            self.rest.start += byte_length(&piece);
            let Some(hasher) = &mut self.hasher else { return Ok(Some(piece)) };
            hasher.update(&piece);
            self.held_bytes += byte_length(&piece);
            self.held.push_back(piece);
            if let Some(released) = self.release() {
                return Ok(Some(released));
            }
        }
        if let Some(hasher) = self.hasher.take()
            && hasher.finish() != self.digest
        {
            tracing::error!(digest = %self.digest, "upstream sent bytes that do not match the digest");
            return Err(FillError::WrongDigest);
        }
        Ok(self.held.pop_front())
    }

    /// The oldest held bytes, when enough stay behind.
    fn release(&mut self) -> Option<Bytes> {
        let left = self.held_bytes - self.held.front().map_or(0, byte_length);
        if left < self.policy.hold_back {
            return None;
        }
        self.held_bytes = left;
        self.held.pop_front()
    }

    /// At least one byte of what is wanted, from wherever it can be had.
    async fn receive(&mut self) -> Result<Bytes, FillError> {
        loop {
            let mut incoming = match self.incoming.take() {
                Some(incoming) => incoming,
                None => self.connect().await?,
            };
            let source = incoming.source;
            match incoming.stream.next().await {
                Some(Ok(mut piece)) => {
                    let skipped = incoming.skip.min(byte_length(&piece));
                    incoming.skip -= skipped;
                    let mut piece = piece.split_off(usize::try_from(skipped).unwrap_or(piece.len()));
                    piece.truncate(usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX));
                    self.incoming = Some(incoming);
                    if !piece.is_empty() {
                        self.rotation.progressed();
                        return Ok(piece);
                    }
                }
                Some(Err(error)) => self.failed(source, error.into()).await?,
                None => self.failed(source, DownloadError::WrongSize).await?,
            }
        }
    }

    async fn connect(&mut self) -> Result<Incoming, FillError> {
        loop {
            let index = self.rotation.current()?;
            let Some(source) = self.sources.get(index) else { return Err(FillError::NoSource) };
            let places = source.upstream().map(|from| self.context.upstream_permits(from.upstream()));
            let permit = match places {
                Some(places) => places.acquire_owned().await.ok(),
                None => None,
            };
            match source.open(&self.digest, &self.rest, Part::Rest, Some(self.size), None).await {
                Ok(body)
                    if body.start <= self.rest.start && body.size.is_none_or(|size| size == self.size) =>
                {
                    let skip = self.rest.start - body.start;
                    return Ok(Incoming { source: index, stream: body.stream, skip, _permit: permit });
                }
                Ok(_) => self.failed(index, DownloadError::WrongSize).await?,
                Err(error) => self.failed(index, error.into()).await?,
            }
        }
    }

    async fn failed(&mut self, source: usize, error: DownloadError) -> Result<(), FillError> {
        let pause = self.rotation.failed(source, &error, self.rest.start > 0, &self.policy)?;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

fn byte_length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
