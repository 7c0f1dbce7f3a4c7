//! One claim's bytes: from a source into the partial file.

use std::{ops::Range, sync::Arc};

use blob_store::StoreError;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream::BoxStream};
use tokio::task::JoinHandle;
use upstream_client::{BlobBody, UpstreamError};

use super::{
    error::FillError,
    fill::{Claimed, Fill},
    life::Origin,
    plan::{ClaimId, OPEN_END},
    read_mode::Part,
    source::Source,
};

/// The most that is written to the file in one go, in bytes.
const BATCH_BYTES: u64 = 1024 * 1024;

/// Why a download ended before its claim did.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The source failed; another attempt may go on from where this one stopped.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The source has a blob of another size.
    #[error("the source has a blob of another size")]
    WrongSize,
    /// What the source has now is not what the landed bytes came from.
    #[error("the source's content changed in between")]
    Changed,
    /// The file could not be written.
    #[error(transparent)]
    Local(#[from] FillError),
}

impl DownloadError {
    /// Whether the source failed, rather than this node.
    pub(crate) fn is_of_source(&self) -> bool {
        !matches!(self, Self::Local(_))
    }
}

impl From<StoreError> for DownloadError {
    fn from(error: StoreError) -> Self {
        Self::Local(error.into())
    }
}

/// Brings a claim from `source`, as that `part` of the blob, and gives the claim up at its end, however it ends.
pub(crate) async fn download(
    fill: Arc<Fill>,
    index: usize,
    source: Source,
    (id, range): Claimed,
    part: Part,
) -> Result<(), DownloadError> {
    let claim = Release { fill: &fill, id };
    let validator = fill.origin().filter(|origin| origin.source == index).map(|origin| origin.validator);
    let body = source.open(fill.digest(), &range, part, fill.now().size, validator.as_deref()).await?;
    check_size(&fill, &body)?;
    if body.start > range.start {
        return Err(UpstreamError::invalid_response("range that begins after the requested one").into());
    }
    if range.start > 0 && validator.is_some() && body.validator.is_some() && validator != body.validator {
        return Err(DownloadError::Changed);
    }
    fill.contributes(index);
    if let Some(validator) = body.validator.clone() {
        fill.originates(Origin { source: index, name: source.to_string(), validator });
    }
    receive(&claim, body, range).await
}

struct Release<'a> {
    fill: &'a Arc<Fill>,
    id: ClaimId,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.fill.release(self.id);
    }
}

fn check_size(fill: &Fill, body: &BlobBody) -> Result<(), DownloadError> {
    match (fill.now().size, body.size) {
        (Some(size), Some(reported)) if size != reported => Err(DownloadError::WrongSize),
        (None, Some(reported)) if !fill.digest().admits_size(reported) => Err(DownloadError::WrongSize),
        (None, Some(reported)) => {
            fill.learn_size(reported);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Lands the body's bytes one batch after the other: while one is written and hashed, the next is received.
async fn receive(claim: &Release<'_>, body: BlobBody, range: Range<u64>) -> Result<(), DownloadError> {
    let fill = claim.fill;
    let mut incoming = Incoming { stream: body.stream, skip: range.start - body.start, carry: None };
    let mut position = range.start;
    let mut writing: Option<Writing> = None;
    loop {
        let end = fill.end_of(claim.id).unwrap_or(position);
        let receiving = async {
            let room = end.saturating_sub(position).min(BATCH_BYTES);
            Ok(if room > 0 { incoming.batch(room).await } else { Ok(Vec::new()) })
        };
        // What is written is shown at once, however long the next bytes take to come.
        let landing = async {
            match writing.take() {
                Some(written) => written.land(claim).await,
                None => Ok(()),
            }
        };
        let (batch, ()) = futures::future::try_join(receiving, landing).await?;
        let batch = batch?;
        let length: u64 = batch.iter().map(byte_length).sum();
        if length == 0 {
            break;
        }
        writing = Some(Writing::start(fill, position, batch, position + length).await?);
        position += length;
    }
    let end = fill.end_of(claim.id).unwrap_or(position);
    match fill.now().size {
        None if end == OPEN_END && !fill.digest().admits_size(position) => {
            return Err(DownloadError::WrongSize);
        }
        None if end == OPEN_END => fill.learn_size(position),
        Some(size) if position < end.min(size) => return Err(DownloadError::WrongSize),
        Some(size) if position == size && incoming.has_more().await => return Err(DownloadError::WrongSize),
        _ => {}
    }
    Ok(())
}

struct Incoming {
    stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
    /// Bytes before the claim that a source without ranges sends all the same.
    skip: u64,
    carry: Option<Bytes>,
}

impl Incoming {
    /// Waits for the next bytes, and takes what else is there already, up to `limit` bytes. Empty at the end.
    async fn batch(&mut self, limit: u64) -> Result<Vec<Bytes>, UpstreamError> {
        let mut pieces = Vec::new();
        let mut room = limit;
        while room > 0 {
            let polled = match self.carry.take() {
                Some(piece) => Some(Some(Ok(piece))),
                None if pieces.is_empty() => Some(self.stream.next().await),
                None => self.stream.next().now_or_never(),
            };
            match polled {
                None | Some(None) => break,
                // What came before the break is landed first; the stream says the same again, or ends.
                Some(Some(Err(error))) if pieces.is_empty() => return Err(error),
                Some(Some(Err(error))) => {
                    self.stream = futures::stream::once(async { Err(error) }).boxed();
                    break;
                }
                Some(Some(Ok(piece))) => {
                    if let Some(piece) = self.fit(piece, room) {
                        room -= byte_length(&piece);
                        pieces.push(piece);
                    }
                }
            }
        }
        Ok(pieces)
    }

    /// The part of `piece` that lies in the claim and has room; the rest is kept for the next batch.
    fn fit(&mut self, mut piece: Bytes, room: u64) -> Option<Bytes> {
        let skipped = self.skip.min(byte_length(&piece));
        self.skip -= skipped;
        let mut piece = piece.split_off(usize::try_from(skipped).unwrap_or(piece.len()));
        if byte_length(&piece) > room {
            self.carry = Some(piece.split_off(usize::try_from(room).unwrap_or(piece.len())));
        }
        (!piece.is_empty()).then_some(piece)
    }

    /// Whether the source sends more than the blob's size.
    async fn has_more(&mut self) -> bool {
        if self.carry.is_some() {
            return true;
        }
        matches!(self.stream.next().now_or_never(), Some(Some(Ok(piece))) if !piece.is_empty())
    }
}

/// A batch on its way into the file.
struct Writing {
    task: JoinHandle<Result<(), StoreError>>,
    end: u64,
}

impl Writing {
    async fn start(
        fill: &Arc<Fill>,
        position: u64,
        batch: Vec<Bytes>,
        end: u64,
    ) -> Result<Self, DownloadError> {
        let Some(partial) = fill.partial() else {
            return Err(FillError::Storage("the partial file is not open".to_owned()).into());
        };
        let (verifier, landed) = (fill.verifier(), Arc::clone(fill));
        let permit = fill.write_permit().await;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut offset = position;
            for piece in &batch {
                partial.write_at(offset, piece)?;
                offset += byte_length(piece);
            }
            verifier.take(&partial, position, &batch, |from| landed.reach(from));
            Ok(())
        });
        Ok(Self { task, end })
    }

    /// Waits until the bytes are in the file, then shows them to readers.
    async fn land(self, claim: &Release<'_>) -> Result<(), DownloadError> {
        self.task.await.map_err(|_| FillError::Stopped)??;
        claim.fill.landed_up_to(claim.id, self.end);
        Ok(())
    }
}

fn byte_length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
